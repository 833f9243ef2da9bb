"""DETR's augmentation: shape kept, boxes and masks in agreement, a place decides everything."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from augmented import SHAPES, World, corners_of, extent, same, sample_of
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rtdetr_lab.cli import main
from rtdetr_lab.config_json import from_json, to_json
from rtdetr_lab.data.augment import AspectAugmentation, Place, detr_augmentation, paper_augmentation
from rtdetr_lab.data.canvas import PAPER_SHORTEST, RandomEdges, collate_on_canvas
from rtdetr_lab.data.transforms import RandomFlip, flip
from rtdetr_lab.data.windows import Window, crop, shows_something
from rtdetr_lab.errors import ConfigError
from rtdetr_lab.model import Metadata
from rtdetr_lab.training import TrainConfig
from rtdetr_lab.training.finetune import metadata_of
from rtdetr_lab.training.stream import Steps

SMALL = detr_augmentation((64, 106))
PARTS = replace(SMALL, p_crop=1.0)


def places(count, seed=0):
    return [Place(seed, i, i // 4, 0.5) for i in range(count)]


def test_the_sizes_are_those_of_the_paper_and_shrink_with_the_edges():
    paper = detr_augmentation()
    assert paper.shortest == PAPER_SHORTEST == tuple(range(480, 801, 32))
    assert (paper.longest, paper.before, paper.sides) == (1333, (400, 500, 600), (384, 600))
    assert (paper.edges, paper.size) == ((800, 1333), (800, 800))
    assert RandomEdges((52, 64, 40), 106).edges == (64, 106)
    assert paper == AspectAugmentation()
    assert SMALL.edges == (64, 106)
    assert (min(SMALL.shortest), SMALL.before, SMALL.sides) == (38, (32, 40, 48), (31, 48))


@settings(max_examples=40)
@given(st.integers(0, 5), st.integers(0, 10**6), st.integers(0, 10**6))
def test_boxes_and_masks_stay_in_agreement(index, seed, position):
    before = SHAPES[index]
    after = SMALL(before, Place(seed, position, 0, 0.0))
    height, width = after.image.shape[-2:]
    assert min(height, width) in SMALL.shortest or max(height, width) == 106
    assert max(height, width) <= 107
    assert after.masks.shape == (len(after.boxes), height, width)
    assert len(after.labels) == len(after.boxes)
    assert after.truth is before.truth
    assert ((after.boxes >= 0) & (after.boxes <= 1)).all()
    assert (after.boxes[:, 2:] > 0).all()
    for mask, box in zip(after.masks, corners_of(after), strict=True):
        seen = extent(mask)  # resized twice, by nearest pixels: up to a pixel of slack, each
        assert (seen[:2] >= box[:2] - 2.1).all()
        assert (seen[2:] <= box[2:] + 2.1).all()


def test_a_picture_that_is_not_cut_keeps_its_shape_and_its_objects():
    whole = replace(SMALL, p_crop=0.0, flip=RandomFlip(0.0))
    sample = sample_of([[10, 10, 30, 40], [60, 10, 78, 50]], size=(60, 80))
    sizes = set()
    for place in places(40):
        after = whole(sample, place)
        sizes.add(tuple(after.image.shape[-2:]))
        assert torch.equal(after.boxes, sample.boxes)
    assert {h for h, _ in sizes} == set(SMALL.shortest)
    assert all(abs(w / h - 80 / 60) < 0.03 for h, w in sizes)


def test_half_of_the_pictures_are_mirrored_and_half_are_cut():
    sample = SHAPES[0]
    whole, parts = replace(SMALL, p_crop=0.0), 0
    mirrored = sum(torch.equal(whole(sample, p).boxes, flip(sample).boxes) for p in places(200))
    assert 75 < mirrored < 125
    for place in places(200):
        parts += not torch.equal(SMALL(sample, place).boxes, whole(sample, place).boxes)
    assert 60 < parts < 125  # a part may show everything


def test_parts_have_the_sides_of_the_paper_and_are_cut_anywhere():
    wide = sample_of([], size=(60, 150))
    still = AspectAugmentation((32,), 10**6, 1.0, (60,), (40, 50), RandomFlip(0.0))
    shapes, lefts = set(), set()
    for place in places(60):
        after = still(wide, place).image
        shapes.add(round(after.shape[-1] / after.shape[-2], 2))
        lefts.add(int(after[0, 0, 0]) // 20)
    assert min(shapes) >= 0.78
    assert max(shapes) <= 1.26
    assert len(shapes) > 10
    assert lefts == {0, 1, 2, 3, 4, 5}


def test_a_part_may_have_the_smallest_and_the_largest_side():
    """20 or 21 pixels of a picture of 30 × 50; then its shorter side becomes 420."""
    still = AspectAugmentation((420,), 10**6, 1.0, (30,), (20, 21), RandomFlip(0.0))
    wide = sample_of([], size=(30, 50))
    shapes = {tuple(still(wide, place).image.shape[1:]) for place in places(20)}
    assert shapes == {(420, 420), (420, 441), (441, 420)}


def test_an_object_belongs_to_a_part_that_shows_any_of_it():
    sample = sample_of([[10, 10, 30, 40], [60, 10, 78, 50], [0, 0, 12, 12]])
    part = crop(sample, Window(left=25, top=8, width=30, height=40), shows_something)
    assert part.labels.tolist() == [0], "of the centre nothing is asked"
    assert corners_of(part).round().tolist() == [[0, 2, 5, 32]]
    assert torch.equal(extent(part.masks[0]), corners_of(part)[0].round())
    assert not len(crop(sample, Window(25, 8, 30, 40)).labels)
    beside = crop(sample, Window(left=30, top=0, width=20, height=60), shows_something)
    assert not len(beside.labels), "what only touches the window shows nothing"


def test_a_small_picture_is_enlarged_before_a_part_is_cut_out():
    tiny = sample_of([[2, 2, 8, 8]], size=(10, 12))
    for place in places(10):
        after = PARTS(tiny, place)
        assert min(after.image.shape[-2:]) >= 38 or max(after.image.shape[-2:]) == 106


def test_the_same_place_gives_the_same_picture_and_another_place_another():
    first = SMALL(SHAPES[0], Place(1, 40, 10, 0.1))
    assert same(first, SMALL(SHAPES[0], Place(1, 40, 10, 0.9)))
    assert any(not same(first, SMALL(SHAPES[0], Place(1, n, 10, 0.1))) for n in range(3))


def test_a_batch_lies_on_one_canvas_with_its_masks():
    steps = Steps(World(), 4, 3, 3, SMALL, collate_on_canvas)
    sizes = set()
    for batch in steps.batches():
        sizes.add(tuple(batch.images.shape[-2:]))
        for masks, hidden in zip(batch.targets.masks, batch.padding, strict=True):
            assert masks.shape[1:] == batch.images.shape[-2:]
            assert not (masks & hidden).any()
    assert len(sizes) > 1


def test_a_recipe_is_a_value_that_a_run_can_keep():
    config = TrainConfig(augment=SMALL)
    assert from_json(to_json(config)) == config


def test_what_was_learnt_says_at_which_sizes():
    """Stored pictures have any size: what the augmentation made of them counts."""
    known = metadata_of(World(), SMALL, Metadata())
    assert (known.edges, known.image_size) == ((64, 106), (64, 64))
    known = metadata_of(World(), paper_augmentation(320), Metadata())
    assert (known.edges, known.image_size) == (None, (320, 320))


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"shortest": ()}, "shortest"),
        ({"shortest": (2000,)}, "shortest"),
        ({"p_crop": 1.5}, "p_crop"),
        ({"before": ()}, "before"),
        ({"sides": (600, 384)}, "sides"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(changes, where):
    with pytest.raises(ConfigError) as caught:
        AspectAugmentation(**changes)
    assert caught.value.where == where


# --- from the command line ------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """A COCO folder of two wide pictures."""
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        images, boxes = [], []
        for i in (1, 2):
            name = f"{i}.png"
            Image.fromarray(np.full((40, 80, 3), 60 * i, np.uint8)).save(tmp_path / split / name)
            images.append({"id": i, "file_name": name, "width": 80, "height": 40})
            box = [10.0, 5.0, 30.0, 20.0]
            boxes.append({"id": i, "image_id": i, "category_id": 1, "bbox": box, "area": 600.0,
                          "iscrowd": 0})  # fmt: skip
        tree = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "a"}]}
        (tmp_path / f"{split}.json").write_text(json.dumps(tree))
    return tmp_path


def trained(folder, size, *words):
    run = ["train", "--data", str(folder), "--out", str(folder / "run"), "--device", "cpu"]
    few = ["--size", str(size), "--pictures", "2", "--batch-size", "2"]
    return main([*run, *few, *words])


def test_for_a_detr_the_papers_augmentation_is_its_own(folder):
    from rtdetr_lab.detector import Detector

    assert trained(folder, 64, "--preset", "detr_nano", "--augment", "paper") == 0
    config = json.loads((folder / "run" / "run.json").read_text())
    assert "AspectAugmentation" in json.dumps(config)
    assert Detector.from_pretrained(folder / "run" / "model", "cpu").preprocess.edges == (64, 106)


def test_a_detr_is_not_stretched_as_v2_would(folder, capsys):
    assert trained(folder, 64, "--preset", "detr_nano", "--augment", "v2") == 1
    assert "use v1" in capsys.readouterr().err


def test_an_rt_detr_remembers_the_size_it_was_stretched_to(folder):
    from rtdetr_lab.detector import Detector

    assert trained(folder, 128, "--preset", "nano", "--augment", "paper") == 0
    assert Detector.from_pretrained(folder / "run" / "model", "cpu").preprocess.size == (128, 128)
