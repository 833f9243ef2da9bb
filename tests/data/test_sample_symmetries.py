"""A sample's pixels, boxes and masks stay together, in whatever order they are changed."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from symmetries import generator, moved_boxes, moved_pixels, quick, seeds, shuffled

from rtdetr_lab.data.batch import Sample, Truth
from rtdetr_lab.data.canvas import ResizeEdges, collate_on_canvas
from rtdetr_lab.data.transforms import RandomTurn, Resize, SanitizeBoxes, flip, turn

MIRROR = (False, False, True)
QUARTERS = ((False, False, False), (True, True, False), (False, True, True), (True, False, True))
SIZES = [(31, 67), (80, 23), (50, 51), (20, 90)]


def sample_of(seed, height, width, dtype=torch.uint8):
    """Four objects, one of them a crowd; masks fill their boxes."""
    draw = generator(seed)
    low = torch.rand(4, 2, generator=draw) * torch.tensor([width, height]) * 0.5
    far = torch.rand(4, 2, generator=draw) * torch.tensor([width, height]) * 0.4
    corners = torch.cat([low, low + 4 + far], 1).round()
    crowd = torch.tensor([False, True, False, False])
    labels = torch.randint(9, (4,), generator=draw)
    truth = Truth(seed, (height, width), labels, corners, torch.ones(4), crowd)
    masks = torch.zeros(3, height, width, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, corners[~crowd].int().tolist(), strict=True):
        mask[y0:y1, x0:x1] = True
    image = torch.randint(256, (3, height, width), generator=draw).to(torch.uint8)
    image = image if dtype == torch.uint8 else image.to(dtype) / 255
    return Sample.of(image, truth, masks)


def same(one, other, most=0.0):
    assert one.image.shape == other.image.shape
    assert (one.image.double() - other.image.double()).abs().max() <= most
    torch.testing.assert_close(one.boxes, other.boxes, rtol=1e-6, atol=1e-6)
    assert torch.equal(one.labels, other.labels)
    assert torch.equal(one.masks, other.masks)


@quick
@given(seeds, st.integers(0, 3))
def test_a_flip_moves_pixels_boxes_and_masks_alike_and_twice_is_nothing(seed, which):
    sample = sample_of(seed, *SIZES[which])
    flipped = flip(sample)
    assert torch.equal(flipped.image, moved_pixels(sample.image, MIRROR))
    assert torch.equal(flipped.masks, moved_pixels(sample.masks, MIRROR))
    torch.testing.assert_close(flipped.boxes, moved_boxes(sample.boxes, MIRROR))
    same(flip(flipped), sample)


@quick
@given(seeds, st.integers(0, 3), st.integers(0, 3))
def test_a_turn_moves_pixels_boxes_and_masks_alike_and_turning_on_is_nothing(seed, which, quarters):
    sample = sample_of(seed, *SIZES[which])
    turned, move = turn(sample, quarters), QUARTERS[quarters]
    assert torch.equal(turned.image, moved_pixels(sample.image, move))
    assert torch.equal(turned.masks, moved_pixels(sample.masks, move))
    torch.testing.assert_close(turned.boxes, moved_boxes(sample.boxes, move))
    same(turn(turned, 4 - quarters), sample)


def test_a_random_turn_is_each_of_the_four_as_often():
    sample, rng = sample_of(3, 31, 67), np.random.default_rng(5)
    ways = [turn(sample, quarters).image for quarters in range(4)]
    drawn = [RandomTurn()(sample, rng).image for _ in range(400)]
    counts = [sum(torch.equal(one, way) for one in drawn) for way in ways]
    assert sum(counts) == 400
    assert all(70 <= count <= 130 for count in counts)


@quick
@given(seeds, st.integers(0, 3), st.integers(1, 4), st.integers(1, 3))
def test_flipping_and_enlarging_may_change_places(seed, which, down, across):
    """By whole factors, so that no cell of a mask lies on a border. Pillow rounds to bytes."""
    height, width = SIZES[which]
    sample, resize = sample_of(seed, height, width), Resize((down * height, across * width))
    same(flip(resize(sample)), resize(flip(sample)), most=1)
    floats = sample_of(seed, height, width, torch.float32)
    same(flip(resize(floats)), resize(flip(floats)), most=1e-5)


@quick
@given(seeds)
def test_flipping_and_shrinking_may_change_places(seed):
    """A cell of the small mask is the middle one of three, from whichever side one counts."""
    sample, resize = sample_of(seed, 33, 69), Resize((11, 23))
    same(flip(resize(sample)), resize(flip(sample)), most=1)


@quick
@given(seeds, st.integers(0, 3), st.integers(2, 5))
def test_an_enlarged_mask_still_fills_its_box(seed, which, scale):
    height, width = SIZES[which]
    large = Resize((scale * height, scale * width))(sample_of(seed, height, width))
    sides = torch.tensor([scale * width, scale * height])
    pixels = (large.boxes[:, 2:] * sides).prod(1).round()
    assert torch.equal(large.masks.flatten(1).sum(1), pixels.long())


@quick
@given(seeds, seeds)
def test_what_is_left_out_does_not_depend_on_the_order_of_objects(seed, other):
    sample = sample_of(seed, 40, 70)
    small = float((sample.boxes[:, 2:] * torch.tensor([70, 40])).amin(1).median())
    keep = SanitizeBoxes(small)
    order = shuffled(3, other)
    mixed = Sample(
        sample.image, sample.labels[order], sample.boxes[order], sample.truth, sample.masks[order]
    )
    left = {tuple(box) for box in keep(sample).boxes.tolist()}
    assert left == {tuple(box) for box in keep(mixed).boxes.tolist()}
    assert left


@quick
@given(seeds, seeds, st.booleans())
def test_a_batch_on_a_canvas_holds_its_samples_one_by_one_in_any_order(seed, other, of_canvas):
    look = ResizeEdges((20, 45))
    samples = [look(sample_of(seed + i, *size)) for i, size in enumerate(SIZES)]
    order = shuffled(len(samples), other).tolist()
    batch = collate_on_canvas([samples[i] for i in order], of_canvas=of_canvas)
    height, width = batch.images.shape[-2:]
    for place, i in enumerate(order):
        one = samples[i]
        h, w = one.image.shape[-2:]
        assert torch.equal(batch.images[place, :, :h, :w] * 255, one.image.float())
        assert int((~batch.padding[place]).sum()) == h * w
        share = torch.tensor([w / width, h / height] * 2) if of_canvas else 1.0
        torch.testing.assert_close(batch.targets.boxes[place], one.boxes * share)
        assert torch.equal(batch.targets.labels[place], one.labels)
