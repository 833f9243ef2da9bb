"""Pictures with their boxes, turned, mirrored, scaled, mixed: what comes out follows."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from symmetries import (
    generator,
    moved_boxes,
    moved_corners,
    moved_pixels,
    moved_size,
    moves,
    quick,
    seeds,
    shuffled,
)

from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.images.decode import decode
from rtdetr_lab.images.frames import TURNS, Frame
from rtdetr_lab.images.postprocess import Found, of_the_canvas, of_the_picture, postprocess
from rtdetr_lab.images.predict import predict
from rtdetr_lab.images.preprocess import KeepAspect, Preprocess, padded, resized
from rtdetr_lab.images.tiling import Tiling
from rtdetr_lab.model import by_sigmoid, by_softmax
from rtdetr_lab.structures import Prediction

NUM_QUERIES, NUM_CLASSES = 9, 5
SIZES = [(31, 67), (80, 23), (50, 51)]
ranks = st.sampled_from([by_sigmoid, by_softmax])
sides = st.integers(5, 90)


def picture(seed, height, width):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def answers(seed):
    draw = generator(seed)
    logits = torch.randn(len(SIZES), NUM_QUERIES, NUM_CLASSES, generator=draw, dtype=torch.float64)
    boxes = 0.1 + 0.6 * torch.rand(len(SIZES), NUM_QUERIES, 4, generator=draw, dtype=torch.float64)
    return Prediction(logits, boxes, layers=())


def same(one, other):
    """Detections of one picture, in this order."""
    assert len(one) == len(other) > 0
    for name in ("boxes_xyxy", "scores", "labels", "queries"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-9, atol=1e-9)


@quick
@given(seeds, seeds, ranks)
def test_detections_follow_their_pictures_queries_and_classes(seed, other, rank):
    prediction = answers(seed)
    pictures, queries = shuffled(len(SIZES), other), shuffled(NUM_QUERIES, other)
    classes = shuffled(NUM_CLASSES - 1, other)  # the last is "no object" to one of the two
    columns = torch.cat([classes, torch.tensor([NUM_CLASSES - 1])])
    logits = prediction.logits[pictures][:, queries][..., columns]
    mixed = Prediction(logits, prediction.boxes[pictures][:, queries], layers=())
    before = postprocess(prediction, SIZES, 0.1, rank=rank)
    after = postprocess(mixed, [SIZES[i] for i in pictures], 0.1, rank=rank)
    for one, place in zip(after, pictures, strict=True):
        same(replace(one, labels=columns[one.labels], queries=queries[one.queries]), before[place])


@quick
@given(seeds, moves, st.integers(2, 5), ranks)
def test_detections_turn_and_grow_with_their_picture(seed, move, scale, rank):
    prediction = answers(seed)
    turned = Prediction(prediction.logits, moved_boxes(prediction.boxes, move), layers=())
    sizes = [tuple(scale * side for side in moved_size(size, move)) for size in SIZES]
    before = postprocess(prediction, SIZES, 0.1, rank=rank)
    after = postprocess(turned, sizes, 0.1, rank=rank)
    for one, other, size in zip(before, after, SIZES, strict=True):
        corners = scale * moved_corners(one.boxes_xyxy, size, move)
        same(replace(one, boxes_xyxy=corners), other)


@quick
@given(seeds, st.sampled_from([of_the_picture, of_the_canvas]))
def test_detections_of_a_canvas_are_those_of_its_pictures_one_by_one(seed, fractions):
    """Each alone is on a canvas of the common size, so that fractions of it stay the same."""
    prediction, (_, padding) = answers(seed), padded([torch.ones(3, *size) for size in SIZES])
    together = postprocess(prediction, SIZES, 0.1, padding=padding, fractions=fractions)
    for i, size in enumerate(SIZES):
        one = Prediction(prediction.logits[i : i + 1], prediction.boxes[i : i + 1], layers=())
        alone = {"padding": padding[i : i + 1], "fractions": fractions}
        same(postprocess(one, [size], 0.1, **alone)[0], together[i])


@quick
@given(seeds)
def test_fractions_of_a_canvas_are_those_of_the_picture_by_the_part_it_fills(seed):
    prediction, (_, padding) = answers(seed), padded([torch.ones(3, *size) for size in SIZES])
    height, width = padding.shape[1:]
    parts = torch.tensor([[w / width, h / height] * 2 for h, w in SIZES], dtype=torch.float64)
    smaller = Prediction(prediction.logits, prediction.boxes * parts[:, None], layers=())
    on_canvas = {"padding": padding, "fractions": of_the_canvas}
    found = postprocess(smaller, SIZES, 0.1, **on_canvas)
    for one, other in zip(found, postprocess(prediction, SIZES, 0.1), strict=True):
        same(one, other)


@quick
@given(seeds, moves, sides, sides, sides, sides)
def test_a_turned_picture_is_stretched_to_the_turned_input(seed, move, h, w, height, width):
    """Rounding to bytes happens between the two directions: a step of 1/255 may remain."""
    rgb = picture(seed, h, w)
    turned = moved_pixels(torch.from_numpy(rgb).permute(2, 0, 1), move).permute(1, 2, 0)
    after = Preprocess(moved_size((height, width), move))(np.ascontiguousarray(turned.numpy()))
    before = moved_pixels(Preprocess((height, width))(rgb), move)
    assert (after - before).abs().max() < 1.5 / 255


@quick
@given(sides, sides, st.integers(5, 60), st.integers(0, 60))
def test_edges_treat_height_and_width_alike(height, width, shortest, more):
    edges = (shortest, shortest + more)
    assert resized((width, height), edges) == resized((height, width), edges)[::-1]


@quick
@given(seeds, seeds)
def test_a_canvas_holds_what_each_picture_gives_alone(seed, other):
    look, pictures = KeepAspect((20, 45)), [picture(seed + i, *s) for i, s in enumerate(SIZES)]
    order = shuffled(len(SIZES), other)
    canvas, padding = look.batch([pictures[i] for i in order])
    for one, hidden, place in zip(canvas, padding, order, strict=True):
        alone = look(pictures[place])
        height, width = alone.shape[-2:]
        assert torch.equal(one[:, :height, :width], alone)
        assert one.sum() == pytest.approx(alone.sum().item(), rel=1e-5)
        assert (~hidden).sum() == height * width
        assert not hidden[:height, :width].any()


@quick
@given(seeds, st.sampled_from(sorted(TURNS)), sides, sides)
def test_a_file_that_says_how_it_lies_is_decoded_upright(tmp_path_factory, seed, turn, h, w):
    """Whatever the orientation: the stored raster is turned so that a viewer sees one picture."""
    upright = picture(seed, h, w)
    frame = Frame(moved_size((h, w), TURNS[turn]), turn)
    stored = np.ascontiguousarray(frame.pixels_as_stored(upright))
    assert stored.shape[:2] == frame.stored
    path, exif = tmp_path_factory.mktemp("turned") / "a.png", Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(stored).save(path, exif=exif)
    assert (decode(path) == upright).all()


# --- tiles ---


def in_windows(seed, windows):
    """Random detections of two classes in every window; many of them touch its border."""
    draw, found = generator(seed), []
    for top, left, bottom, right in windows:
        edge = torch.tensor([right - left, bottom - top] * 2)
        ends = torch.rand(6, 4, generator=draw, dtype=torch.float64) * 1.4 - 0.2
        corners = torch.cat([ends[:, :2].minimum(ends[:, 2:]), ends[:, :2].maximum(ends[:, 2:])], 1)
        scores = torch.rand(6, generator=draw, dtype=torch.float64)
        labels = torch.randint(2, (6,), generator=draw)
        found.append(Found(corners.clamp(0, 1) * edge, scores, labels, torch.arange(6)))
    return found


def turned_window(window, size, move):
    top, left, bottom, right = window
    corners = torch.tensor([[left, top, right, bottom]])
    left, top, right, bottom = moved_corners(corners, size, move)[0].tolist()
    return top, left, bottom, right


@quick
@given(seeds, moves)
def test_windows_that_are_turned_with_their_picture_merge_to_the_same_boxes(seed, move):
    tiling, size = Tiling(tile=40, overlap=0.3), (70, 115)
    windows = tiling.windows(size)
    found = in_windows(seed, windows)
    turned = [
        replace(f, boxes_xyxy=moved_corners(f.boxes_xyxy, (b - t, r - x), move))
        for f, (t, x, b, r) in zip(found, windows, strict=True)
    ]
    others = [turned_window(window, size, move) for window in windows]
    before = tiling.merge(found, windows, size)
    assert len(before) < sum(map(len, found))
    after = tiling.merge(turned, others, moved_size(size, move))
    same(replace(before, boxes_xyxy=moved_corners(before.boxes_xyxy, size, move)), after)


@quick
@given(seeds, seeds)
def test_the_order_of_windows_and_the_names_of_classes_merge_to_the_same_boxes(seed, other):
    tiling, size = Tiling(tile=40, overlap=0.3), (70, 115)
    windows = tiling.windows(size)
    found, order = in_windows(seed, windows), shuffled(len(windows), other)
    mixed = [replace(found[i], labels=1 - found[i].labels) for i in order]
    after = tiling.merge(mixed, [windows[i] for i in order], size)
    same(tiling.merge(found, windows, size), replace(after, labels=1 - after.labels))


@quick
@given(sides, sides)
def test_the_windows_of_a_transposed_picture_are_transposed(height, width):
    tiling = Tiling(tile=32, overlap=0.2)
    transposed = {(x, t, r, b) for t, x, b, r in tiling.windows((height, width))}
    assert set(tiling.windows((width, height))) == transposed


# --- a model ---


def test_a_batch_is_answered_like_its_pictures_one_by_one_in_any_order():
    model, look = load_pretrained("nano"), Preprocess((96, 128))
    pictures = [look(picture(i, *size)) for i, size in enumerate(SIZES)]
    alone = [predict(model, [p], [s], 0.02)[0] for p, s in zip(pictures, SIZES, strict=True)]
    assert min(map(len, alone)) > 3
    for order in ([0, 1, 2], [2, 0, 1]):
        together = predict(model, [pictures[i] for i in order], [SIZES[i] for i in order], 0.02)
        for one, place in zip(together, order, strict=True):
            for name in ("boxes_xyxy", "scores"):
                here, there = getattr(one, name), getattr(alone[place], name)
                torch.testing.assert_close(here, there, rtol=1e-3, atol=1e-3)
            assert torch.equal(one.labels, alone[place].labels)
