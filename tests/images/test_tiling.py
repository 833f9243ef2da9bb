"""Windows cover the picture; what they see is found once, and whole."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rtdetr_lab.errors import ConfigError
from rtdetr_lab.images.postprocess import Found
from rtdetr_lab.images.tiling import Tiling

sizes = st.tuples(st.integers(10, 900), st.integers(10, 900))


def seen_by(window, objects, labels):
    """A perfect detector: the visible part of every object, if a fair piece of it is visible."""
    top, left, bottom, right = window
    low = torch.maximum(objects[:, :2], torch.tensor([left, top]))
    high = torch.minimum(objects[:, 2:], torch.tensor([right, bottom]))
    visible = ((high - low).clamp(min=0)).prod(-1)
    full = (objects[:, 2:] - objects[:, :2]).prod(-1)
    see = visible > 0.1 * full
    boxes = torch.cat([low, high], -1)[see] - torch.tensor([left, top, left, top])
    scores = (0.5 + 0.5 * visible / full)[see]
    return Found(boxes, scores, labels[see], torch.arange(len(objects))[see])


def nothing():
    empty = torch.zeros(0)
    return Found(torch.zeros(0, 4), empty, empty.long(), empty.long())


@given(sizes, st.integers(32, 300), st.sampled_from([0.0, 0.2, 0.5]))
@settings(max_examples=60)
def test_windows_cover_every_pixel_and_none_outside(size, tile, overlap):
    windows = Tiling(tile, overlap).windows(size)
    assert windows[0] == (0, 0, *size)
    covered = torch.zeros(size, dtype=torch.bool)
    for top, left, bottom, right in windows[1:] or windows:
        assert 0 <= top < bottom <= size[0]
        assert 0 <= left < right <= size[1]
        assert len(windows) == 1 or max(bottom - top, right - left) <= tile
        covered[top:bottom, left:right] = True
    assert covered.all()


def test_a_picture_no_larger_than_a_tile_is_looked_at_once():
    assert Tiling(64).windows((64, 40)) == [(0, 0, 64, 40)]


@given(st.integers(0, 100_000))
@settings(max_examples=60)
def test_small_things_are_found_once_and_whole_wherever_they_lie(seed):
    rng = torch.Generator().manual_seed(seed)
    tiling, size = Tiling(200, 0.4), (500, 700)
    # One per cell of a coarse grid, so that no two overlap; all smaller than the shared strip.
    cells = torch.randperm(35, generator=rng)[:12]
    corner = torch.stack([cells % 7, cells // 7], -1) * 100 + torch.randint(
        0, 40, (12, 2), generator=rng
    )
    objects = torch.cat([corner, corner + torch.randint(12, 60, (12, 2), generator=rng)], -1)
    objects, labels = objects.float(), torch.randint(0, 3, (12,), generator=rng)
    windows = tiling.windows(size)
    found = [nothing(), *(seen_by(w, objects, labels) for w in windows[1:])]
    merged = tiling.merge(found, windows, size)
    assert sorted(merged.queries.tolist()) == list(range(12))
    assert torch.equal(merged.boxes_xyxy, objects[merged.queries])
    assert torch.equal(merged.labels, labels[merged.queries])


def test_what_is_larger_than_a_tile_comes_from_the_look_at_the_whole():
    objects = torch.tensor([[20.0, 30.0, 580.0, 470.0], [500.0, 40.0, 530.0, 70.0]])
    labels = torch.tensor([0, 1])
    tiling = Tiling(200, 0.25)
    windows = tiling.windows((500, 600))
    found = [seen_by(w, objects, labels) for w in windows]
    merged = tiling.merge(found, windows, (500, 600))
    assert sorted(merged.queries.tolist()) == [0, 1]
    assert torch.equal(merged.boxes_xyxy, objects[merged.queries])


def test_two_in_a_crowd_seen_by_one_window_stay_two():
    twins = torch.tensor([[10.0, 10.0, 50.0, 60.0], [14.0, 10.0, 54.0, 60.0]])
    zeros = torch.zeros(2, dtype=torch.long)
    both = Found(twins, torch.tensor([0.9, 0.8]), zeros, torch.arange(2))
    tiling = Tiling(64, 0.0)
    windows = tiling.windows((64, 128))
    merged = tiling.merge([nothing(), both, nothing()], windows, (64, 128))
    assert len(merged) == 2


SIDE_BY_SIDE = [(0, 0, 100, 100), (0, 50, 100, 150)]
"""Two windows of a picture of 100 × 150, and no look at the whole."""


def one(box, label, left=0, score=0.9):
    """What a window that begins at column `left` says of one object of the picture."""
    box = torch.tensor([box]) - torch.tensor([left, 0, left, 0])
    return Found(box.float(), torch.tensor([score]), torch.tensor([label]), torch.tensor([label]))


def test_two_classes_in_one_place_stay_two_and_one_class_becomes_one():
    box, tiling = [60, 20, 90, 70], Tiling(100)
    for labels in ((0, 1), (1, 1)):
        found = [one(box, labels[0]), one(box, labels[1], left=50)]
        merged = tiling.merge(found, SIDE_BY_SIDE, (100, 150))
        assert sorted(merged.labels.tolist()) == sorted(set(labels))


def test_a_cut_half_goes_with_the_whole_of_its_class_and_with_no_other():
    whole, half = [48, 20, 95, 90], [50, 30, 70, 60]
    for label, count in ((0, 1), (1, 2)):
        found = [one(whole, 0), one(half, label, left=50)]
        assert len(Tiling(100).merge(found, SIDE_BY_SIDE, (100, 150))) == count


def test_the_whole_stays_though_the_cut_part_has_the_better_score():
    whole, part = [45, 20, 90, 60], [50, 20, 90, 60]
    found = [one(whole, 0, score=0.6), one(part, 0, left=50, score=0.95)]
    merged = Tiling(100).merge(found, SIDE_BY_SIDE, (100, 150))
    assert merged.boxes_xyxy.tolist() == [whole]


def test_the_best_comes_first_cut_or_whole():
    found = [one([5, 20, 30, 60], 0, score=0.6), one([50, 20, 90, 60], 1, left=50, score=0.95)]
    merged = Tiling(100).merge(found, SIDE_BY_SIDE, (100, 150))
    assert merged.labels.tolist() == [1, 0]


def test_what_ends_at_the_border_of_the_picture_is_whole():
    """A small object in front of a large one of its class, in the last corner and in the first."""
    large, tiling = [2, 2, 149, 99], Tiling(100)
    windows = [(0, 0, 100, 150), *SIDE_BY_SIDE]
    last, first = one([135, 80, 150, 100], 0, left=50), one([0, 0, 12, 15], 0)
    merged = tiling.merge([one(large, 0), first, last], windows, (100, 150))
    assert len(merged) == 3


def test_one_window_alone_is_only_sorted():
    boxes, scores = torch.rand(5, 4) * 30, torch.rand(5)
    zeros = torch.zeros(5, dtype=torch.long)
    merged = Tiling(64).merge(
        [Found(boxes, scores, zeros, torch.arange(5))], [(0, 0, 30, 30)], (30, 30)
    )
    assert torch.equal(merged.scores, scores.sort(descending=True).values)


@pytest.mark.parametrize("wrong", [{"tile": 8}, {"overlap": 1.0}, {"overlap": -0.1}])
def test_impossible_tilings_are_refused(wrong):
    with pytest.raises(ConfigError):
        Tiling(**wrong)
