"""COCO panoptic folders: colours are segments, and what contradicts itself is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rtdetr_lab.backbone import BasicBlock
from rtdetr_lab.config import replace_at
from rtdetr_lab.data.batch import Mapped
from rtdetr_lab.data.canvas import ResizeEdges
from rtdetr_lab.data.coco import CocoDataset
from rtdetr_lab.data.coco_panoptic import PanopticDataset
from rtdetr_lab.data.layout import COCO, PANOPTIC, find_layout
from rtdetr_lab.data.segment_map import boxes_of, id_to_rgb, rgb_to_id
from rtdetr_lab.detr.resnet import ResNetConfig
from rtdetr_lab.detr.segmentation import SegmentationConfig
from rtdetr_lab.detr.transformer import DETRDecoderConfig, DETREncoderConfig
from rtdetr_lab.errors import DataError
from rtdetr_lab.evaluation.panoptic import evaluate_panoptic
from rtdetr_lab.images.panoptic import ByArea
from rtdetr_lab.images.preprocess import KeepAspect
from rtdetr_lab.model import DetectionModel, Metadata
from rtdetr_lab.structures import Prediction
from rtdetr_lab.training import from_scratch, train

HIGH, LOW = 70_000, 3
CATEGORIES = [
    {"id": 17, "name": "cat", "isthing": 1},
    {"id": 187, "name": "sky", "isthing": 0},
]


@given(st.lists(st.integers(0, 256**3 - 1), min_size=1, max_size=9))
def test_an_id_is_a_colour_and_back(ids):
    array = np.array([ids])
    assert (rgb_to_id(id_to_rgb(array)) == array).all()


def test_an_id_too_large_for_a_colour_is_refused():
    with pytest.raises(DataError, match="16777216"):
        id_to_rgb(np.array([[256**3]]))


@pytest.fixture
def folder(tmp_path):
    """Two pictures: a cat under the sky, some of it nobody's; and only sky."""
    (tmp_path / "annotations" / "panoptic_val2017").mkdir(parents=True)
    (tmp_path / "val2017").mkdir()
    ids = np.full((40, 60), LOW)
    ids[20:30, 10:40] = HIGH
    ids[39] = 0
    maps = {5: ids, 6: np.full((60, 40), LOW)}
    images, annotations = [], []
    for number, one in maps.items():
        height, width = one.shape
        colours = np.where(one[..., None] == HIGH, [250, 120, 0], [90, 150, 250])
        Image.fromarray(colours.astype(np.uint8)).save(tmp_path / "val2017" / f"{number}.png")
        png = tmp_path / "annotations" / "panoptic_val2017" / f"{number}.png"
        Image.fromarray(id_to_rgb(one)).save(png)
        images.append(
            {"id": number, "file_name": f"{number}.png", "height": height, "width": width}
        )
        segments = [{"id": LOW, "category_id": 187, "iscrowd": 0}]
        if number == 5:
            segments.append({"id": HIGH, "category_id": 17, "iscrowd": 0})
        annotations.append(
            {"image_id": number, "file_name": f"{number}.png", "segments_info": segments}
        )
    tree = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    (tmp_path / "annotations" / "panoptic_val2017.json").write_text(json.dumps(tree))
    return tmp_path


def edited(folder, change):
    path = folder / "annotations" / "panoptic_val2017.json"
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))
    return PanopticDataset.from_folder(folder)


def test_segments_become_masks_labels_and_boxes(folder):
    data = PanopticDataset.from_folder(folder)
    assert (data.names, data.category_ids, data.stuff_ids) == (("cat", "sky"), (17, 187), {187})
    sample = data[0]
    assert sample.labels.tolist() == [1, 0]
    assert sample.masks[1].sum() == 300
    assert sample.truth.boxes_xyxy[1].tolist() == [10, 20, 40, 30]
    assert sample.boxes[1].tolist() == pytest.approx([25 / 60, 25 / 40, 0.5, 0.25])
    assert not sample.masks[:, 39].any()


def test_a_category_that_does_not_say_what_it_is_is_a_thing(folder):
    data = edited(folder, lambda tree: [c.pop("isthing") for c in tree["categories"]])
    assert data.stuff_ids == set()


def test_segments_are_annotations_of_a_layout_that_train_and_eval_read(folder):
    layout = find_layout(folder)
    assert (layout.format, list(layout.splits)) == (PANOPTIC, ["val"])
    found = layout["val"].load()
    assert (found.names, found.category_ids) == (("cat", "sky"), (17, 187))
    first, second = found.pictures
    assert [(one.id, one.label, one.area) for one in first.annotations] == [
        (1, 1, 2040),
        (2, 0, 300),
    ]
    assert first.annotations[1].box_xywh == (10, 20, 30, 10)
    assert [one.id for one in second.annotations] == [3]
    sample = CocoDataset(found, layout.folder, with_masks=True)[0]
    assert torch.equal(sample.masks, PanopticDataset.from_folder(folder)[0].masks)


@pytest.mark.parametrize("place", ["", "annotations"])
def test_its_annotation_file_alone_means_the_same_set(folder, place):
    stem = "panoptic_val2017"
    for name in (f"{stem}.json", stem):
        (folder / "annotations" / name).rename(folder / place / name)
    layout = find_layout(folder / place / f"{stem}.json")
    assert (layout.format, layout.folder) == (PANOPTIC, folder)
    assert len(layout["val"].load().pictures) == 2


def test_boxes_win_over_segments_in_a_folder_that_has_both(folder):
    tree = {"images": [], "annotations": [], "categories": []}
    (folder / "annotations" / "instances_val2017.json").write_text(json.dumps(tree))
    assert find_layout(folder).format == COCO


def test_a_crowd_is_true_and_not_learned_from(folder):
    def crowd(tree):
        tree["annotations"][0]["segments_info"][1]["iscrowd"] = 1

    sample = edited(folder, crowd)[0]
    assert sample.labels.tolist() == [1]
    assert sample.truth.is_crowd.tolist() == [False, True]


def test_what_is_learned_from_beside_a_crowd_has_its_own_mask(folder):
    def crowd(tree):
        tree["annotations"][0]["segments_info"][0]["iscrowd"] = 1

    sample = edited(folder, crowd)[0]
    assert sample.labels.tolist() == [0]
    assert sample.masks.sum() == 300, "the cat's"


def test_labels_are_places_among_the_sorted_category_ids(folder):
    data = edited(folder, lambda tree: tree["categories"].reverse())
    assert (data.names, data.category_ids, data.stuff_ids) == (("cat", "sky"), (17, 187), {187})
    assert data[0].labels.tolist() == [1, 0]


def test_boxes_are_the_outer_edges_of_masks():
    masks = torch.zeros(2, 4, 5, dtype=torch.bool)
    masks[0, 1:3, 2] = True
    assert boxes_of(masks).tolist() == [[2, 1, 3, 3], [0, 0, 0, 0]]


WRONG = {
    "a colour that is not listed": (
        lambda tree: tree["annotations"][0]["segments_info"].pop(),
        "1 of 2 segment ids are painted and not listed: 70000",
    ),
    "a segment without a pixel": (
        lambda tree: tree["annotations"][0]["segments_info"].append({"id": 8, "category_id": 17}),
        "1 of 3 segment ids are listed and not painted: 8",
    ),
    "another size": (
        lambda tree: tree["images"][0].update(width=61),
        "40×60 on disk, but the annotations say 40×61",
    ),
    "a category nobody listed": (
        lambda tree: tree["annotations"][0]["segments_info"][1].update(category_id=18),
        "category 18",
    ),
    "more pictures than annotations": (
        lambda tree: tree["annotations"].pop(),
        "2 images and 1 annotations",
    ),
    "another format": (
        lambda tree: tree.update(annotations=[{"image_id": 1, "bbox": [1, 2, 3, 4]}]),
        "is COCO's detection format.*CocoDataset",
    ),
    "no categories": (lambda tree: tree.pop("categories"), "no list of categories"),
    "an entry without its file": (
        lambda tree: tree["annotations"][0].pop("file_name"),
        "file_name",
    ),
    "a way out of the folder": (
        lambda tree: tree["annotations"][0].update(file_name="../x.png"),
        "leaves the folder",
    ),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_what_contradicts_itself_is_refused_with_its_numbers(folder, change, message):
    with pytest.raises(DataError, match=message):
        edited(folder, change)[0]


def test_a_folder_without_annotations_is_named(tmp_path):
    with pytest.raises(DataError, match="no panoptic annotations"):
        PanopticDataset.from_folder(tmp_path)


TINY = SegmentationConfig(
    2,
    dim=32,
    backbone=ResNetConfig(
        (1, 1, 1, 1),
        (8, 12, 16, 24),
        BasicBlock,
        8,
        outputs=(1, 2, 3, 4),
        norm=torch.nn.BatchNorm2d,
    ),
    encoder=DETREncoderConfig(1, 4, 16, 0.0),
    decoder=DETRDecoderConfig(6, 2, 4, 16, 0.0),
    num_mask_heads=4,
)


@pytest.mark.parametrize("frozen", [False, True], ids=["jointly", "on a frozen detector"])
def test_masks_are_learned_and_scored_from_a_folder(folder, frozen, tmp_path):
    data = PanopticDataset.from_folder(folder)
    cfg = replace_at(TINY, "frozen_detector", frozen)
    model = cfg.build()
    before = {n: p.clone() for n, p in model.named_parameters() if not n.startswith("mask_")}
    run = train(
        model,
        Mapped(data, ResizeEdges((32, 64))),
        tmp_path / "run",
        from_scratch(4, batch_size=2),
        progress=False,
    )
    assert run.history[-1].keys() >= {"mask", "dice", "class", "cardinality_error"}
    after = dict(run.model.named_parameters())
    assert all(torch.equal(p, after[n]) for n, p in before.items()) is frozen
    scores = evaluate_panoptic(
        run.model, data, ByArea(threshold=0.0), batch_size=2, look=KeepAspect((32, 64))
    )
    assert scores.keys() == {f"{q}{s}" for q in ("PQ", "SQ", "RQ") for s in ("", "_th", "_st")}
    assert 0 <= scores["PQ"] <= 1
    assert not run.model.training


class SkyFirst(DetectionModel):
    """Draws the first picture, with its own order of the two classes."""

    draws_masks, num_classes, num_queries = True, 2, 2

    def __init__(self, data):
        super().__init__(data)
        self.metadata = Metadata(("sky", "cat"), (187, 17), image_size=(40, 60))
        self.ids = data.truth(0).ids

    def forward(self, images):
        logits = torch.tensor([[[9.0, -9], [-9, 9]]])
        masks = torch.stack([self.ids == LOW, self.ids == HIGH])[None] * 18.0 - 9.0
        return Prediction(logits, torch.full((1, 2, 4), 0.5), (), masks=masks)


def test_a_model_that_orders_classes_in_another_way_is_compared_by_category(folder):
    data = PanopticDataset.from_folder(folder)
    first = replace(data, entries=data.entries[:1])
    scores = evaluate_panoptic(SkyFirst(data), first)
    assert set(scores.values()) == {1.0}
