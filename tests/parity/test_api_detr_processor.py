"""DetrImageProcessor against transformers' DetrImageProcessorPil: pixels to the last bit, labels
too, and what becomes of a model's answer."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detr_oracle import transformers
from PIL import Image

import rtdetr_lab as lab
from rtdetr_lab.data.segment_map import id_to_rgb

SIZE = {"shortest_edge": 30, "longest_edge": 50}


def picture(width, height, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


PICTURES = [picture(57, 41), picture(30, 44, 1)]


def detection(count):
    boxes = [[2.0, 3.0, 20.0, 11.0], [-4.0, 10.0, 60.0, 30.0], [5.0, 5.0, 0.0, 4.0]]
    return {
        "image_id": 7 + count,
        "annotations": [
            {
                "bbox": box,
                "category_id": i,
                "area": 10.0 + i,
                "iscrowd": 0,
                "segmentation": [[2.0, 3.0, 22.0, 3.0, 22.0 + i, 14.0, 2.0, 14.0]],
            }
            for i, box in enumerate(boxes[:count])
        ],
    }


OPTIONS = [
    {},
    {"do_normalize": False},
    {"do_rescale": False},
    {"resample": 3},
    {"size": {"height": 40, "width": 72}},
    {"size": {"max_height": 30, "max_width": 33}},
    {"pad_size": {"height": 60, "width": 64}},
    {"do_convert_annotations": False},
    {"do_resize": False},
    {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]},
]


def compare(mine, expected):
    assert set(mine) == set(expected)
    for name in set(expected) - {"labels"}:
        assert mine[name].dtype == expected[name].dtype
        assert torch.equal(mine[name], expected[name]), name
    for one, other in zip(mine.get("labels", ()), expected.get("labels", ()), strict=True):
        assert set(one) == set(other)
        for key, value in other.items():
            assert torch.equal(one[key], value.bool() if key == "masks" else value), key


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_pictures_and_boxes_are_theirs_to_the_last_bit(options):
    given = {"images": PICTURES, "annotations": [detection(3), detection(1)]}
    options = {"size": SIZE, **options}
    expected = transformers.DetrImageProcessorPil(**options)(**given, return_tensors="pt")
    compare(lab.DetrImageProcessor(**options)(**given, return_tensors="pt"), expected)


def test_masks_of_polygons_are_theirs(monkeypatch):
    """Theirs asks pycocotools, ours faster-coco-eval: here both ask the one that is installed."""
    reason = "polygons need faster-coco-eval; runs with the extra [eval]"
    library = pytest.importorskip("faster_coco_eval", reason=reason)
    monkeypatch.setitem(sys.modules, "pycocotools", SimpleNamespace(mask=library.mask))
    given = {"images": PICTURES, "annotations": [detection(3), detection(1)]}
    given |= {"return_segmentation_masks": True, "return_tensors": "pt"}
    expected = transformers.DetrImageProcessorPil(size=SIZE)(**given)
    mine = lab.DetrImageProcessor(size=SIZE)(**given)
    compare(mine, expected)
    assert mine["labels"][0]["masks"].any()


@pytest.fixture
def panoptic(tmp_path):
    """Two pictures of three segments each, one id beyond a byte."""
    annotations = []
    for k, one in enumerate(PICTURES):
        ids = np.zeros((one.height, one.width), np.int64)
        ids[2:20, 3:25], ids[20:, :11], ids[5:9, 26:] = 7, 300, 70000
        Image.fromarray(id_to_rgb(ids)).save(tmp_path / f"{k}.png")
        segments = [
            {"id": i, "category_id": c, "iscrowd": 0, "area": int((ids == i).sum())}
            for c, i in enumerate((300, 7, 70000))
        ]
        annotations.append({"image_id": k, "file_name": f"{k}.png", "segments_info": segments})
    return tmp_path, annotations


@pytest.mark.parametrize("masks", [None, False])
@pytest.mark.parametrize("resize", [True, False])
def test_panoptic_labels_are_theirs(panoptic, masks, resize):
    folder, annotations = panoptic
    given = {"images": PICTURES, "annotations": annotations, "masks_path": folder}
    given |= {"return_segmentation_masks": masks, "return_tensors": "pt"}
    options = {"size": SIZE, "format": "coco_panoptic", "do_resize": resize}
    expected = transformers.DetrImageProcessorPil(**options)(**given)
    mine = lab.DetrImageProcessor(**options)(**given)
    compare(mine, expected)
    assert ("masks" in mine["labels"][0]) == (masks is None)


def test_colours_are_their_ids():
    from transformers.image_transforms import rgb_to_id

    colours = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    assert np.array_equal(lab.rgb_to_id(colours), rgb_to_id(colours))
    assert lab.rgb_to_id([1, 2, 3]) == rgb_to_id([1, 2, 3]) == 197121


@pytest.fixture
def answer():
    """Five sure queries with a band each, four that say nothing; in the second picture, nobody."""
    rng = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 9, 5, generator=rng)
    logits[0, range(5), [0, 1, 0, 2, 1]] += 6
    logits[0, 5:, -1] += 6
    logits[1, :, -1] += 30
    masks = torch.randn(2, 9, 14, 17, generator=rng) - 4
    for k in range(5):
        masks[:, k, 3 * k : 3 * k + 3 - k // 4] += 8
    boxes = torch.rand(2, 9, 4, generator=rng)
    return SimpleNamespace(logits=logits, pred_boxes=boxes, pred_masks=masks)


@pytest.mark.parametrize("sizes", [None, [(57, 41), (30, 80)]], ids=["as they are", "resized"])
def test_what_becomes_of_an_answer_is_theirs(answer, sizes):
    theirs, ours = transformers.DetrImageProcessorPil(), lab.DetrImageProcessor()
    tensor = None if sizes is None else torch.tensor(sizes)
    for given in (sizes, tensor):
        expected = theirs.post_process_object_detection(answer, 0.3, given)
        mine = ours.post_process_object_detection(answer, 0.3, given)
        for one, other in zip(mine, expected, strict=True):
            assert list(one) == list(other)
            for key in other:
                torch.testing.assert_close(one[key], other[key])
        assert len(mine[0]["scores"])
    expected = theirs.post_process_semantic_segmentation(answer, sizes)
    mine = ours.post_process_semantic_segmentation(answer, sizes)
    assert all(torch.equal(a, b) for a, b in zip(mine, expected, strict=True))
    for option in ({}, {"return_coco_annotation": True}, {"threshold": 0.2, "mask_threshold": 0.3}):
        expected = theirs.post_process_instance_segmentation(answer, target_sizes=sizes, **option)
        mine = ours.post_process_instance_segmentation(answer, target_sizes=sizes, **option)
        for one, other in zip(mine, expected, strict=True):
            assert one["segments_info"] == other["segments_info"]
            a, b = one["segmentation"], other["segmentation"]
            assert torch.equal(a.long(), b.long()) if isinstance(a, torch.Tensor) else a == b
        assert len(mine[0]["segments_info"]) > 2
    assert mine[1]["segmentation"].unique().tolist() == [-1]


def test_panoptic_answers_are_theirs_where_nothing_is_joined(answer):
    theirs, ours = transformers.DetrImageProcessorPil(), lab.DetrImageProcessor()
    given = {"target_sizes": [(57, 41), (30, 80)], "label_ids_to_fuse": {4}}
    expected = theirs.post_process_panoptic_segmentation(answer, **given)
    mine = ours.post_process_panoptic_segmentation(answer, **given)
    for one, other in zip(mine, expected, strict=True):
        assert one["segments_info"] == other["segments_info"]
        assert torch.equal(one["segmentation"].long(), other["segmentation"].long())
    fused = ours.post_process_panoptic_segmentation(answer, label_ids_to_fuse={0, 1})[0]
    labels = [(s["label_id"], s["was_fused"]) for s in fused["segments_info"]]
    assert sorted(labels) == [(0, True), (1, True), (2, False)]


def test_the_file_of_2020_and_todays_are_read(tmp_path):
    old = {"feature_extractor_type": "DetrFeatureExtractor", "size": 30, "max_size": 50}
    old |= {"pad_and_return_pixel_mask": True, "do_normalize": True, "format": "coco_detection"}
    mine = lab.DetrImageProcessor.from_dict(old)
    compare(mine(PICTURES, return_tensors="pt"), mine_of(SIZE)(PICTURES, return_tensors="pt"))
    transformers.DetrImageProcessorPil(size=SIZE).save_pretrained(tmp_path / "theirs")
    read = lab.AutoImageProcessor.from_pretrained(tmp_path / "theirs")
    assert read == mine_of(SIZE)
    read.save_pretrained(tmp_path / "ours")
    back = transformers.DetrImageProcessorPil.from_pretrained(tmp_path / "ours")
    compare(read(PICTURES, return_tensors="pt"), back(PICTURES, return_tensors="pt"))


def mine_of(size):
    return lab.DetrImageProcessor(size=size)
