"""Samples become batches; transforms keep picture, boxes and masks in agreement."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rtdetr_lab.boxes import scale_boxes, xyxy_from_cxcywh
from rtdetr_lab.data.batch import Augmented, Mapped, collate, in_order
from rtdetr_lab.data.shapes import ShapesConfig, ShapesDataset
from rtdetr_lab.data.transforms import RandomFlip, Resize, flip
from rtdetr_lab.errors import ConfigError, DataError

SMALL = ShapesConfig(size=96, max_side=40.0, max_objects=4)
SHAPES = ShapesDataset(SMALL, seed=0, count=7, with_masks=True)


def test_a_batch_is_pictures_in_fractions_of_white_and_targets():
    samples = [SHAPES[0], SHAPES[1]]
    batch = collate(samples)
    targets = batch.targets
    assert batch.images.shape == (2, 3, 96, 96)
    assert torch.equal(batch.images[1], samples[1].image.float() / 255)
    assert targets.counts == [len(s.labels) for s in samples]
    assert torch.equal(targets.masks[0], samples[0].masks)


def test_a_picture_without_objects_is_a_row_like_any_other():
    nothing = ShapesConfig(size=96, max_side=40.0, min_objects=0, max_objects=0, crowding=0.0)
    targets = collate([SHAPES[0], ShapesDataset(nothing, 0, 1, with_masks=True)[0]]).targets
    assert targets.counts[1] == 0
    assert targets.boxes[1].shape == (0, 4)


def test_masks_are_given_for_the_whole_batch_or_left_out():
    assert collate([SHAPES[0], replace(SHAPES[1], masks=None)]).targets.masks is None


def test_pictures_of_two_sizes_are_refused_by_id():
    with pytest.raises(DataError, match="picture 1: is 48×64, but the first of the batch is 96×96"):
        collate([SHAPES[0], Resize((48, 64))(SHAPES[1])])


def test_a_batch_says_which_pictures_it_holds_and_takes_the_names_along():
    named = replace(SHAPES[1], truth=replace(SHAPES[1].truth, file_name="b/cell.jpg"))
    targets = collate([SHAPES[0], named]).targets
    assert targets.pictures == ("picture 0", "b/cell.jpg")
    assert targets.to(torch.float64).pictures == targets.pictures


def test_an_empty_batch_is_refused():
    with pytest.raises(DataError, match="holds no samples"):
        collate([])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_in_order_every_sample_comes_once_whoever_loads_it(num_workers):
    batches = list(in_order(SHAPES, 3, num_workers))
    assert [len(b) for b in batches] == [3, 3, 1]
    assert [s.image_id for b in batches for s in b] == list(range(7))
    assert torch.equal(batches[1][0].image, SHAPES[3].image)


class Broken:
    """A data set whose last picture is missing."""

    names, category_ids = ("thing",), (1,)

    def __len__(self):
        return 2

    def __getitem__(self, index):
        if index:
            raise DataError("picture 1", "is missing", "fetch it")
        return SHAPES[index]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_in_a_worker_keeps_its_type_and_its_words(num_workers):
    with pytest.raises(DataError, match=r"picture 1: is missing; fetch it"):
        list(in_order(Broken(), 2, num_workers))


def test_walking_in_order_draws_nothing_from_the_runs_random_numbers():
    before = torch.get_rng_state()
    list(in_order(SHAPES, 4))
    assert torch.equal(torch.get_rng_state(), before)


def test_an_augmented_sample_is_a_function_of_its_index():
    data = Augmented(SHAPES, RandomFlip(0.5), seed=3, rounds=4)
    assert [data[i].image_id for i in range(len(data))] == [*range(7)] * 4
    versions = [data[i].image for i in range(2, 28, 7)]
    again = [data[i].image for i in range(2, 28, 7)]
    assert all(torch.equal(a, b) for a, b in zip(versions, again, strict=True))
    others = [Augmented(SHAPES, RandomFlip(0.5), seed=s, rounds=4)[2].image for s in range(8)]
    assert any(not torch.equal(o, versions[0]) for o in others), "the seed must matter"
    with pytest.raises(IndexError):
        data[28]


def test_wrapped_data_sets_keep_what_labels_mean():
    for data in (Mapped(SHAPES, flip), Augmented(SHAPES, RandomFlip())):
        assert data.names == SHAPES.names
        assert data.category_ids == SHAPES.category_ids
    assert torch.equal(Mapped(SHAPES, flip)[2].image, flip(SHAPES[2]).image)


@settings(max_examples=25)
@given(
    index=st.integers(0, 6),
    mirrored=st.booleans(),
    height=st.integers(96, 200),
    width=st.integers(96, 200),
)
def test_boxes_still_surround_their_masks(index, mirrored, height, width):
    sample = Resize((height, width))(SHAPES[index])
    sample = flip(sample) if mirrored else sample
    boxes = scale_boxes(xyxy_from_cxcywh(sample.boxes), (height, width))
    assert sample.image.shape == (3, height, width)
    for mask, box in zip(sample.masks, boxes, strict=True):
        y, x = mask.nonzero().unbind(1)
        extent = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1])
        slack = 0.51 + 0.5 * max(height, width) / 96  # half a new pixel and half an old one
        assert (extent - box).abs().max() <= slack


@settings(max_examples=10)
@given(index=st.integers(0, 6))
def test_two_flips_change_nothing(index):
    sample, twice = SHAPES[index], flip(flip(SHAPES[index]))
    assert torch.equal(twice.image, sample.image)
    assert torch.equal(twice.masks, sample.masks)
    assert torch.allclose(twice.boxes, sample.boxes, atol=1e-6)


def test_a_flip_moves_the_pixels_under_a_box_with_it():
    sample = SHAPES[0]
    for one in (sample, flip(sample)):
        corners = scale_boxes(xyxy_from_cxcywh(one.boxes), (96, 96)).round().long()
        cut = [one.image[:, y0:y1, x0:x1] for x0, y0, x1, y1 in corners.tolist()]
        if one is sample:
            before = cut
    assert all(torch.equal(a, b.flip(-1)) for a, b in zip(before, cut, strict=True))


def test_the_truth_stays_in_pixels_of_the_stored_picture():
    changed = flip(Resize((32, 64))(SHAPES[0]))
    assert changed.truth is SHAPES[0].truth or torch.equal(
        changed.truth.boxes_xyxy, SHAPES[0].truth.boxes_xyxy
    )
    assert changed.size == (96, 96)


def test_resizing_is_what_detection_does():
    from rtdetr_lab.images.preprocess import Preprocess

    rgb = np.ascontiguousarray(SHAPES[0].image.permute(1, 2, 0).numpy())
    resized = Resize((50, 70))(SHAPES[0]).image
    assert torch.equal(resized.float() / 255, Preprocess((50, 70))(rgb))


def test_floats_are_resized_too_and_stay_floats():
    sample = replace(SHAPES[0], image=SHAPES[0].image.float() / 255)
    resized = Resize((48, 48))(sample).image
    exact = Resize((48, 48))(SHAPES[0]).image.float() / 255
    assert (resized - exact).abs().max() < 0.02


def test_sizes_and_probabilities_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError):
        Resize((0, 10))
    with pytest.raises(ConfigError):
        RandomFlip(1.5)
