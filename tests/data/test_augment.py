"""The recipe's augmentation: picture, boxes and masks agree, and a place decides everything."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from augmented import SHAPES, World, corners_of, extent, same, sample_of
from hypothesis import given, settings
from hypothesis import strategies as st

from rtdetr_lab.config_json import from_json, to_json
from rtdetr_lab.data.augment import (
    BATCH,
    PICTURE,
    Augmentation,
    Place,
    multi_scale,
    paper_augmentation,
    v2_augmentation,
)
from rtdetr_lab.data.colours import (
    GREY,
    SAME,
    PhotometricDistort,
    brightness,
    contrast,
    hue,
    mean_colour,
    saturation,
)
from rtdetr_lab.data.transforms import RandomFlip, Resize, SanitizeBoxes
from rtdetr_lab.data.windows import IoUCrop, Window, ZoomOut, crop, holds_an_object, paste
from rtdetr_lab.errors import ConfigError, DataError
from rtdetr_lab.training import TrainConfig
from rtdetr_lab.training.stream import Steps

ALWAYS = (PhotometricDistort(1.0), ZoomOut(1.0), IoUCrop(1.0), RandomFlip(1.0))
EVERYTHING = Augmentation(strong=ALWAYS[:3], size=(64, 64), sizes=(48, 64, 80))


# --- picture, boxes and masks ---------------------------------------------------------------------


@settings(max_examples=30)
@given(index=st.integers(0, 5), seed=st.integers(0, 10**6), which=st.sampled_from(ALWAYS))
def test_every_change_keeps_masks_inside_their_boxes(index, seed, which):
    before = SHAPES[index]
    after = SanitizeBoxes()(which(before, np.random.default_rng(seed)))
    height, width = after.image.shape[-2:]
    assert len(after.labels) == len(after.boxes) == len(after.masks)
    assert after.masks.shape[1:] == (height, width)
    assert after.truth is before.truth
    for mask, box in zip(after.masks, corners_of(after), strict=True):
        seen, cut = extent(mask), torch.tensor([0.0, 0, width, height])
        assert (seen[:2] >= box[:2] - 1e-3).all()
        assert (seen[2:] <= box[2:] + 1e-3).all()
        whole = ((box - cut).abs() > 1e-3).all()  # touches no border: nothing was cut off
        assert not whole or (seen - box).abs().max() < 1e-3


@settings(max_examples=20)
@given(index=st.integers(0, 5), seed=st.integers(0, 10**6), position=st.integers(0, 10**9))
def test_the_whole_recipe_keeps_masks_inside_their_boxes(index, seed, position):
    place = Place(seed, position, position // 4, 0.5)
    after = EVERYTHING(SHAPES[index], place)
    assert tuple(after.image.shape[-2:]) == EVERYTHING.size_at(place)
    assert after.image.dtype == torch.uint8
    assert ((after.boxes >= 0) & (after.boxes <= 1)).all()
    for mask, box in zip(after.masks, corners_of(after), strict=True):
        seen = extent(mask)  # nearest pixels: half a pixel of slack
        assert (seen[:2] >= box[:2] - 0.51).all()
        assert (seen[2:] <= box[2:] + 0.51).all()


@pytest.mark.parametrize("change", ALWAYS, ids=lambda c: type(c).__name__)
def test_a_picture_without_objects_survives_every_change(change):
    empty = sample_of([])
    after = change(empty, np.random.default_rng(0))
    assert after.boxes.shape == (0, 4)
    assert after.masks.shape == (0, *after.image.shape[-2:])
    assert Resize((32, 32))(after).masks.shape == (0, 32, 32)


@pytest.mark.parametrize("change", ALWAYS, ids=lambda c: type(c).__name__)
def test_a_change_does_not_touch_what_it_was_given(change):
    before = sample_of([[10, 10, 30, 40]])
    parts = before.image, before.boxes, before.masks
    copies = [part.clone() for part in parts]
    change(before, np.random.default_rng(3))
    assert all(map(torch.equal, parts, copies))


@pytest.mark.parametrize("change", ALWAYS, ids=lambda c: type(c).__name__)
def test_masks_need_not_be_loaded_and_change_no_box(change):
    with_masks = change(SHAPES[1], np.random.default_rng(5))
    without = change(replace(SHAPES[1], masks=None), np.random.default_rng(5))
    assert without.masks is None
    assert torch.equal(without.boxes, with_masks.boxes)
    assert torch.equal(without.image, with_masks.image)


@pytest.mark.parametrize("change", ALWAYS[:3], ids=lambda c: type(c).__name__)
def test_pictures_in_floats_change_like_those_in_bytes(change):
    floats = replace(SHAPES[2], image=SHAPES[2].image.float() / 255)
    a = change(SHAPES[2], np.random.default_rng(7))
    b = change(floats, np.random.default_rng(7))
    assert torch.equal(a.boxes, b.boxes)
    assert (a.image.float() / 255 - b.image).abs().max() < 0.51 / 255 + 1e-6


@pytest.mark.parametrize("kind", [PhotometricDistort, ZoomOut, IoUCrop, RandomFlip])
def test_with_probability_zero_nothing_happens(kind):
    for seed in range(8):
        assert kind(p=0.0)(SHAPES[0], np.random.default_rng(seed)) is SHAPES[0]


# --- windows --------------------------------------------------------------------------------------


def test_a_crop_by_hand():
    sample = sample_of([[10, 10, 30, 40], [60, 10, 78, 50], [0, 0, 12, 12]])
    part = crop(sample, Window(left=5, top=8, width=40, height=40))
    assert part.labels.tolist() == [0], "the centres of the others lie outside"
    assert corners_of(part).round().tolist() == [[5, 2, 25, 32]]
    assert torch.equal(extent(part.masks[0]), corners_of(part)[0].round())
    assert part.image[0, 0].tolist() == list(range(5, 45))


def test_an_object_whose_centre_is_inside_is_cut_off_at_the_border():
    part = crop(sample_of([[10, 10, 30, 40]]), Window(0, 0, 25, 60))
    assert corners_of(part).round().tolist() == [[10, 10, 25, 40]]
    assert torch.equal(extent(part.masks[0]), torch.tensor([10.0, 10, 25, 40]))


def test_a_canvas_is_black_where_there_is_no_picture():
    image = torch.full((3, 60, 80), 200, dtype=torch.uint8)
    wide = paste(sample_of([[10, 10, 30, 40]], image=image), Window(-20, -5, 160, 120))
    assert wide.image.shape == (3, 120, 160)
    assert wide.image.sum() == 200 * image.numel()
    assert (wide.image[:, 5:65, 20:100] == 200).all()
    assert corners_of(wide).round().tolist() == [[30, 15, 50, 45]]
    assert torch.equal(extent(wide.masks[0]), torch.tensor([30.0, 15, 50, 45]))


def test_zooming_out_makes_objects_smaller_never_larger():
    for seed in range(20):
        after = ZoomOut(1.0)(SHAPES[0], np.random.default_rng(seed))
        ratio = SHAPES[0].boxes[:, 2:] / after.boxes[:, 2:]
        assert ((ratio > 0.99) & (ratio < 4.01)).all()


def test_a_window_is_chosen_by_the_centre_and_the_overlap():
    boxes = np.array([[10.0, 10, 30, 30]])
    windows = np.array([[0, 0, 40, 40], [0, 0, 19, 40], [10, 10, 30, 30], [50, 50, 60, 60]])
    assert holds_an_object(windows, boxes, 0.0).tolist() == [True, False, True, False]
    assert holds_an_object(windows, boxes, 0.25).tolist() == [True, False, True, False]
    assert holds_an_object(windows, boxes, 0.26).tolist() == [False, False, True, False]


def test_crops_keep_an_object_their_aspect_and_their_least_size():
    areas = []
    for seed in range(60):
        after = IoUCrop(1.0)(sample_of([[10, 10, 30, 40]]), np.random.default_rng(seed))
        height, width = after.image.shape[-2:]
        assert len(after.boxes) == 1
        assert width >= int(0.3 * 80)
        assert height >= int(0.3 * 60)
        assert 0.5 <= width / height <= 2
        areas.append(width * height / 4800)
    assert min(areas) < 0.3
    assert 1.0 in areas, "the whole picture is one of the choices"


def test_what_is_too_small_to_learn_from_is_left_out():
    sample = sample_of([[10, 10, 30, 40], [5, 5, 6, 30]])
    assert SanitizeBoxes(1.0)(sample) is sample
    assert SanitizeBoxes(1.5)(sample).labels.tolist() == [0]
    hidden = replace(sample, masks=sample.masks & torch.tensor([False, True])[:, None, None])
    assert SanitizeBoxes()(hidden).labels.tolist() == [1]


# --- colours --------------------------------------------------------------------------------------


def test_every_colour_change_by_its_definition():
    x, mean = np.array([0.2, 0.5, 0.3]), np.array([0.4, 0.4, 0.1])

    def at(change):
        return change.matrix @ x + change.offset

    assert np.allclose(at(brightness(SAME, 1.1)), 1.1 * x)
    assert np.allclose(at(contrast(SAME, 0.5, mean)), 0.5 * x + 0.5 * (GREY @ mean))
    assert np.allclose(at(saturation(SAME, 0.0)), GREY @ x)
    assert np.isclose(GREY @ at(hue(SAME, 0.05)), GREY @ x), "the grey value stays"
    assert np.allclose(at(hue(hue(SAME, 0.03), -0.03)), x)
    assert np.allclose(hue(SAME, 0.04).matrix @ np.ones(3), 1), "grey has no hue"


def test_contrast_asks_for_the_mean_of_what_came_before_it():
    x, mean = np.array([0.2, 0.5, 0.3]), np.array([0.4, 0.4, 0.1])
    both = contrast(brightness(SAME, 1.1), 0.5, mean)
    assert np.allclose(both.matrix @ x + both.offset, 0.5 * 1.1 * x + 0.5 * 1.1 * (GREY @ mean))


def test_what_follows_contrast_changes_its_grey_too():
    x, mean = np.array([0.2, 0.5, 0.3]), np.array([0.4, 0.4, 0.1])
    both = brightness(contrast(SAME, 0.5, mean), 1.1)
    assert np.allclose(both.matrix @ x + both.offset, 1.1 * (0.5 * x + 0.5 * (GREY @ mean)))


def test_one_pass_over_the_pixels_gives_the_colours_of_the_map():
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (3, 8, 9)).astype(np.uint8))
    drawn = PhotometricDistort(1.0).draw(mean_colour(image), rng)
    colours = image.numpy().reshape(3, -1) / 255
    wanted = (drawn.matrix @ colours + drawn.offset[:, None]).clip(0, 1) * 255
    changed = drawn(sample_of([], (8, 9), image)).image.numpy().reshape(3, -1)
    assert np.abs(changed - wanted).max() < 0.51
    assert np.allclose(mean_colour(image), colours.mean(1))


def test_each_colour_change_happens_with_its_probability():
    rng, mean = np.random.default_rng(1), np.array([0.4, 0.5, 0.6])
    drawn = [PhotometricDistort(0.5).draw(mean, rng) for _ in range(400)]
    untouched = sum(d is SAME for d in drawn) / 400
    assert 1 / 2**5 * 0.3 < untouched < 1 / 2**5 * 2.5
    swapped = sum(abs(d.matrix.argmax(1) - [0, 1, 2]).any() for d in drawn) / 400
    assert 0.3 < swapped < 0.5, "half of them, less the permutation that changes nothing"


# --- a place decides everything -------------------------------------------------------------------


def test_the_same_place_gives_the_same_picture_and_another_place_another():
    first = EVERYTHING(SHAPES[0], Place(1, 40, 10, 0.1))
    assert same(first, EVERYTHING(SHAPES[0], Place(1, 40, 10, 0.1)))
    assert not same(first, EVERYTHING(SHAPES[0], Place(1, 41, 10, 0.1)))
    assert not same(first, EVERYTHING(SHAPES[0], Place(2, 40, 10, 0.1)))
    assert Place(1, 40, 40, 0.0).rng(PICTURE).random() != Place(1, 40, 40, 0.0).rng(BATCH).random()
    assert Place(-1, 40, 40, 0.0).rng(BATCH).random() > 0, "every seed will do"


def test_a_batch_has_one_size_and_all_sizes_occur():
    recipe = paper_augmentation()
    sizes = [recipe.size_at(Place(0, 16 * step, step, 0.0)) for step in range(300)]
    assert recipe.size_at(Place(0, 7, 3, 0.0)) == recipe.size_at(Place(0, 8, 3, 0.9))
    assert set(sizes) == {(n, n) for n in range(480, 801, 32)}
    assert sizes.count((640, 640)) > 1.5 * sizes.count((480, 480))


def test_a_wide_batch_keeps_its_shape_at_every_size():
    wide = Augmentation(size=(48, 96), sizes=(24, 36))
    sizes = {wide.size_at(Place(0, step, step, 0.0)) for step in range(20)}
    assert sizes == {(24, 48), (36, 72)}


def test_the_sizes_are_those_of_the_recipe():
    assert multi_scale(640) == (480, 512, 544, 576, 608, 640, 640, 640, 672, 704, 736, 768, 800)
    assert multi_scale(320) == (256, 288, 320, 320, 320, 352, 384)
    assert multi_scale(300).count(300) == 3


def test_v2_ends_with_pictures_as_they_will_be_seen_in_use():
    recipe = v2_augmentation(64, epochs=10)
    last = [Place(0, p, p, 0.8) for p in range(12)]
    sizes = {recipe.size_at(p) for p in last}
    assert sizes == {(64, 64)}
    plain = Resize((64, 64))(SHAPES[0])
    mirrored = RandomFlip(1.0)(SHAPES[0], np.random.default_rng(0))
    expected = plain, Resize((64, 64))(mirrored)
    found = [recipe(SHAPES[0], p) for p in last]
    assert all(any(same(f, e) for e in expected) for f in found)
    assert all(any(same(f, e) for f in found) for e in expected), "the flip stays"
    assert paper_augmentation(64).is_strong(Place(0, 0, 0, 0.9999))
    assert not recipe.is_strong(Place(0, 0, 0, 0.81))
    assert recipe.is_strong(Place(0, 0, 0, 0.79))


def stream(first, num_workers=0, seed=3, augment=EVERYTHING):
    return Steps(World(), 4, seed, 9, augment).batches(first, num_workers)


def test_a_stream_that_starts_later_sees_what_it_would_have_seen():
    whole = list(stream(0))
    assert len({tuple(batch.images.shape) for batch in whole}) > 1, "several sizes"
    for late, batch in zip(whole[5:], stream(5, num_workers=1), strict=True):
        assert torch.equal(batch.images, late.images)
        assert all(map(torch.equal, batch.targets.boxes, late.targets.boxes))
    other, first = next(stream(0, seed=4)).images, whole[0].images
    assert other.shape != first.shape or not torch.equal(other, first)


def test_in_a_stream_the_strong_changes_end_where_the_recipe_says():
    plain = Augmentation(strong=(ZoomOut(1.0, 4.0),), mild=(), size=(64, 64), until=6 / 9)
    wanted = {tuple(Resize((64, 64))(s).boxes.flatten().tolist()) for s in SHAPES}
    for step, batch in enumerate(stream(0, augment=plain)):
        untouched = [tuple(b.flatten().tolist()) in wanted for b in batch.targets.boxes]
        assert untouched == [step >= 6] * 4


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_picture_that_cannot_be_read_ends_the_stream_with_its_name(num_workers):
    class Broken(World):
        def __getitem__(self, index):
            raise DataError("picture 5", "is gone", "fetch it")

    with pytest.raises(DataError, match=r"picture 5: is gone; fetch it"):
        list(Steps(Broken(), 2, 0, 3, EVERYTHING).batches(0, num_workers))


@pytest.mark.parametrize("recipe", [paper_augmentation(), v2_augmentation(320, 120)])
def test_a_recipe_is_a_value_that_a_run_can_keep(recipe):
    config = TrainConfig(augment=recipe)
    assert from_json(to_json(config)) == config


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda: PhotometricDistort(1.2), "p"),
        (lambda: PhotometricDistort(contrast=(1.5, 0.5)), "contrast"),
        (lambda: PhotometricDistort(brightness=(-0.1, 0.5)), "brightness"),
        (lambda: ZoomOut(largest=0.5), "largest"),
        (lambda: IoUCrop(smallest=0.0), "smallest"),
        (lambda: IoUCrop(overlaps=(0.1, 0.5)), "overlaps"),
        (lambda: IoUCrop(tries=0), "tries"),
        (lambda: SanitizeBoxes(-1.0), "min_size"),
        (lambda: Augmentation(until=2.0), "until"),
        (lambda: Augmentation(sizes=(0,)), "size"),
        (lambda: v2_augmentation(epochs=10, plain_epochs=11), "plain_epochs"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(make, where):
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.where == where
