"""Dense one-to-one: pictures are joined, and every box stays on its pixels."""

from dataclasses import replace

import pytest
import torch
from augmented import SHAPES, World, corners_of, extent, same, sample_of
from hypothesis import given, settings
from hypothesis import strategies as st

from rtdetr_lab.boxes import xyxy_from_cxcywh
from rtdetr_lab.config import diff
from rtdetr_lab.config_json import from_json, to_json
from rtdetr_lab.data.augment import Augmentation, Place, paper_augmentation
from rtdetr_lab.data.batch import as_float
from rtdetr_lab.data.colours import PhotometricDistort
from rtdetr_lab.data.dense import (
    DenseAugmentation,
    augmentation_named,
    deim_augmentation,
    mixup,
    mosaic,
)
from rtdetr_lab.data.windows import ZoomOut
from rtdetr_lab.errors import ConfigError, TrainingError
from rtdetr_lab.model import Metadata
from rtdetr_lab.rtdetr import rtdetr_r18
from rtdetr_lab.training.finetune import metadata_of
from rtdetr_lab.training.recipe import deim, v2
from rtdetr_lab.training.stream import Steps

ALWAYS = DenseAugmentation(size=(64, 96), mosaic=1.0, mixup=1.0, between=(0.0, 0.5), mild=())


def solid(boxes_xyxy, size, colour):
    """A picture of a colour on black: its objects are exactly its bright pixels."""
    made = sample_of(boxes_xyxy, size)
    image = (made.masks.any(0) * colour).to(torch.uint8).expand(3, *size)
    return replace(made, image=image)


FOUR = [
    solid([[10, 20, 30, 50], [40, 0, 80, 10]], (60, 80), 200),
    solid([[0, 0, 7, 60]], (60, 80), 150),
    solid([], (60, 80), 90),
    solid([[60, 40, 80, 60], [8, 8, 24, 16], [30, 30, 50, 36]], (60, 80), 120),
]


# --- mosaic ---------------------------------------------------------------------------------------


def test_a_mosaic_by_hand():
    """Four pictures of 60 × 80 make one of 120 × 160; no pixel and no object is lost."""
    made = mosaic(FOUR)
    assert made.image.shape == (3, 120, 160)
    corners = [[10, 20, 30, 50], [40, 0, 80, 10], [80, 0, 87, 60]]
    corners += [[140, 100, 160, 120], [88, 68, 104, 76], [110, 90, 130, 96]]
    torch.testing.assert_close(corners_of(made), torch.tensor(corners, dtype=torch.float32))
    assert made.labels.tolist() == [0, 1, 0, 0, 1, 2]
    tiles = [made.image[:, y : y + 60, x : x + 80] for y in (0, 60) for x in (0, 80)]
    assert all(torch.equal(t, s.image) for t, s in zip(tiles, FOUR, strict=True))
    areas = [s.masks.flatten(1).sum(1).tolist() for s in FOUR]
    assert made.masks.flatten(1).sum(1).tolist() == [a for one in areas for a in one]


boxes = st.tuples(*(st.integers(0, 30) for _ in range(2)), *(st.integers(3, 25) for _ in range(2)))
pictures = st.tuples(st.integers(56, 70), st.integers(56, 90), st.lists(boxes, max_size=3))


@settings(max_examples=25, deadline=None)
@given(st.lists(pictures, min_size=4, max_size=4))
def test_every_box_of_a_mosaic_lies_where_its_pixels_are(drawn):
    """Pictures of any size: the extent of a mask is its box, to the pixel that scaling may move."""
    samples = [
        solid([[x, y, x + w, y + h] for x, y, w, h in found], (height, width), 99 + 50 * i)
        for i, (height, width, found) in enumerate(drawn)
    ]
    height, width = samples[0].image.shape[-2:]
    made = mosaic(samples)
    assert made.image.shape == (3, 2 * height, 2 * width)
    assert len(made.boxes) == len(made.labels) == sum(len(s.boxes) for s in samples)
    for mask, box in zip(made.masks, corners_of(made), strict=True):
        assert (extent(mask) - box).abs().max() <= 1
        inside = made.image[0][mask]
        assert (inside > 0).float().mean() > 0.7, "its pixels are bright"


def test_pictures_without_masks_have_none_afterwards():
    assert mosaic([*FOUR[:3], replace(FOUR[3], masks=None)]).masks is None


# --- mixup ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.45, 0.5, 0.52])
def test_mixup_averages_pixels_and_keeps_all_boxes(share):
    one, other = FOUR[0], FOUR[3]
    made = mixup(one, other, share)
    wanted = share * one.image.double() + (1 - share) * other.image.double()
    assert made.image.dtype == torch.uint8
    assert (made.image.double() - wanted).abs().max() <= 0.5 + 1e-4
    assert torch.equal(made.boxes, torch.cat([one.boxes, other.boxes]))
    assert torch.equal(made.masks, torch.cat([one.masks, other.masks]))
    assert made.labels.tolist() == [0, 1, 0, 1, 2]


def test_pictures_of_floats_are_mixed_without_rounding():
    one, other = (replace(s, image=s.image.double() / 255) for s in FOUR[:2])
    made = mixup(one, other, 0.25)
    assert made.image.dtype == torch.float64
    torch.testing.assert_close(made.image, 0.25 * one.image + 0.75 * other.image, rtol=0, atol=1e-6)


# --- the recipe -----------------------------------------------------------------------------------


def test_both_ways_put_eight_pictures_into_one():
    """The objects of a batch, by hand: all pictures are equal, so their number tells how many."""

    class Same(World):
        def __getitem__(self, index):
            return SHAPES[2]

    one = len(SHAPES[2].boxes)
    place = Place(3, 40, 10, 0.1, Same())
    for p_mosaic, p_mixup, times in ((0.0, 0.0, 1), (1.0, 0.0, 4), (0.0, 1.0, 2), (1.0, 1.0, 8)):
        recipe = replace(ALWAYS, mosaic=p_mosaic, mixup=p_mixup)
        made = recipe(SHAPES[2], place)
        assert len(made.boxes) == times * one
        assert made.image.shape == (3, 64, 96)


def test_the_two_pictures_of_a_mixup_are_changed_each_in_its_own_way():
    class Same(World):
        def __getitem__(self, index):
            return FOUR[1]

    recipe = replace(ALWAYS, strong=(ZoomOut(1.0),), mosaic=0.0)
    for position in range(5):
        one, other = recipe(FOUR[1], Place(3, position, 10, 0.1, Same())).boxes
        assert not torch.equal(one, other)


def test_a_place_decides_which_pictures_are_joined():
    def made(position, seed=1):
        return ALWAYS(SHAPES[0], Place(seed, position, 10, 0.1, World()))

    assert same(made(40), made(40))
    assert not same(made(40), made(41))
    assert not same(made(40), made(40, seed=2))


def test_the_joins_end_before_the_strong_changes_and_both_before_the_run():
    recipe = deim_augmentation(64)
    plain = Augmentation(size=(64, 64))
    strong = replace(paper_augmentation(64), until=recipe.until)
    for epoch, wanted in ((2, plain), (35, strong), (49.9, strong), (51, plain), (57.9, plain)):
        place = Place(0, 7, 3, epoch / 58, World())
        assert same(recipe(SHAPES[1], place), wanted(SHAPES[1], place)), epoch
    counts = [len(recipe(SHAPES[1], Place(0, p, 3, 10 / 58, World())).boxes) for p in range(24)]
    assert max(counts) > len(SHAPES[1].boxes)


def test_a_mosaic_keeps_colours_and_is_not_zoomed_out():
    strong = (PhotometricDistort(0.0), ZoomOut(1.0, largest=4.0))
    far = replace(ALWAYS, strong=strong, mixup=0.0)
    place = Place(0, 5, 3, 0.1, World())
    assert same(far(SHAPES[0], place), replace(far, strong=())(SHAPES[0], place))
    alone = replace(far, mosaic=0.0)
    assert not same(alone(SHAPES[0], place), replace(alone, strong=())(SHAPES[0], place))


def test_about_half_of_the_pictures_are_mosaics_and_half_are_mixed():
    recipe = replace(ALWAYS, mosaic=0.5, mixup=0.5, strong=())

    class One(World):
        def __getitem__(self, index):
            return FOUR[1]

    counts = [len(recipe(FOUR[1], Place(0, p, 0, 0.1, One())).boxes) for p in range(200)]
    single = sum(count == 1 for count in counts) / 200
    assert single == pytest.approx(0.25, abs=0.09)
    assert {1, 2, 4, 5, 8} == set(counts)


def test_without_a_size_every_picture_keeps_its_own():
    strong = (ZoomOut(1.0, largest=4.0),)
    for recipe in (replace(ALWAYS, size=None), Augmentation(strong, mild=(), size=None)):
        for sample in (SHAPES[1], FOUR[0]):
            made = recipe(sample, Place(0, 5, 3, 0.1, World()))
            assert made.image.shape == sample.image.shape
            assert not torch.equal(made.image, sample.image)
    with pytest.raises(ConfigError, match="sizes: need a size; give one"):
        Augmentation(size=None, sizes=(64,))


def test_a_run_without_a_size_learns_the_size_of_its_pictures():
    recipe = replace(ALWAYS, size=None)
    assert metadata_of(World(), recipe, Metadata()).image_size == SHAPES[0].image.shape[-2:]
    assert metadata_of(World(), recipe, Metadata(image_size=(32, 64))).image_size == (32, 64)
    assert metadata_of(World(), ALWAYS, Metadata(image_size=(32, 64))).image_size == (64, 96)


def test_a_step_of_a_run_joins_pictures_of_its_data():
    steps = Steps(World(), 4, seed=3, last=20, augment=replace(ALWAYS, mixup=0.0))
    early, late = steps.batch(2), steps.batch(15)
    assert early.images.shape == late.images.shape == (4, 3, 64, 96)
    drawn = {i: len(SHAPES[i].boxes) for i in range(6)}
    assert late.targets.counts == [drawn[i] for i in steps.pictures(15)]
    least = [drawn[i] + 3 * min(drawn.values()) for i in steps.pictures(2)]
    assert all(a >= b for a, b in zip(early.targets.counts, least, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(early.images, steps.batch(2).images, strict=True))


def test_a_partner_that_cannot_be_read_is_named():
    class Broken(World):
        def __getitem__(self, index):
            raise KeyError(index)

    with pytest.raises(TrainingError, match=r"data\[\d\]"):
        ALWAYS(SHAPES[0], Place(0, 1, 1, 0.1, Broken()))


def test_the_recipe_is_v2s_with_another_augmentation():
    one, other = deim(rtdetr_r18(), 1000, 320), v2(rtdetr_r18(), 1000, 320)
    assert set(diff(one, other)) == {"augment"}
    assert one.augment == deim_augmentation(320)
    assert from_json(to_json(one)) == one
    assert deim(rtdetr_r18(), 1000, augment=None).augment is None


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"mosaic": 1.5}, "mosaic"),
        ({"mixup": -0.1}, "mixup"),
        ({"between": (0.5, 0.1)}, "between"),
        ({"between": (0.0, 1.1)}, "between"),
        ({"until": 2.0}, "until"),
    ],
    ids=str,
)
def test_an_impossible_value_is_refused_by_name(changes, where):
    with pytest.raises(ConfigError) as refused:
        DenseAugmentation(**changes)
    assert refused.value.where == where


@pytest.mark.parametrize(
    ("name", "mirrored", "ways"), [("none", True, 4), ("flip", False, 4), ("flip", True, 8)]
)
def test_pictures_are_turned_and_keep_their_boxes(name, mirrored, ways):
    augment = augmentation_named(name, (64, 64), mirrored, turned=True)
    sample = solid([[9, 6, 36, 18]], (60, 90), 255)
    assert augmentation_named(name, (64, 64), mirrored) is None
    seen = {tuple(_found(augment(sample, Place(0, k, k, 0.5)))) for k in range(80)}
    assert len(seen) == ways


def _found(sample):
    """The box, which must be that of the white pixels, in whole pixels."""
    height, width = sample.image_size
    y, x = torch.nonzero(as_float(sample.image).mean(0) > 0.4, as_tuple=True)
    box = xyxy_from_cxcywh(sample.boxes)[0] * torch.tensor([width, height, width, height])
    seen = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1])
    assert (box - seen).abs().max() <= 1
    return seen.tolist()
