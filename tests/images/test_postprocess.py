"""From logits to boxes in pixels: one top-k over queries and classes, nothing suppressed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rtdetr_lab.boxes import iou
from rtdetr_lab.errors import ImageError
from rtdetr_lab.images.postprocess import (
    Found,
    of_the_canvas,
    postprocess,
    suppress,
    survivors,
)
from rtdetr_lab.structures import Prediction


def prediction(logits, boxes=None):
    logits = torch.as_tensor(logits, dtype=torch.float32)
    if boxes is None:
        boxes = torch.rand(*logits.shape[:2], 4) * 0.5 + 0.25
    return Prediction(logits, torch.as_tensor(boxes, dtype=torch.float32), layers=())


def found(boxes, scores, labels=None):
    n = len(scores)
    labels = torch.zeros(n, dtype=torch.long) if labels is None else torch.tensor(labels)
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(n, 4)
    return Found(boxes, torch.tensor(scores, dtype=torch.float32), labels, torch.arange(n))


def test_the_best_pairs_of_query_and_class_win_as_a_reader_would_sort_them():
    answer = prediction(torch.randn(2, 7, 5))
    for b, result in enumerate(postprocess(answer, [(10, 10), (10, 10)], threshold=0.0)):
        pairs = [(answer.logits[b, q, c].item(), q, c) for q in range(7) for c in range(5)]
        by_hand = sorted(pairs, reverse=True)[:7]
        assert result.queries.tolist() == [q for _, q, _ in by_hand]
        assert result.labels.tolist() == [c for _, _, c in by_hand]


def test_one_query_may_have_two_labels_and_another_none():
    answer = prediction([[[4.0, 3.0], [-4.0, -5.0]]])
    (result,) = postprocess(answer, [(10, 10)])
    assert result.queries.tolist() == [0, 0]
    assert result.labels.tolist() == [0, 1]
    assert torch.equal(result.boxes_xyxy[0], result.boxes_xyxy[1])


def test_the_threshold_itself_is_not_enough():
    answer = prediction([[[0.0], [1e-3]]])
    (result,) = postprocess(answer, [(10, 10)], threshold=0.5)
    assert result.queries.tolist() == [1]


def test_sizes_are_height_first_and_boxes_may_leave_the_picture():
    answer = prediction([[[9.0]]], [[[0.5, 0.5, 1.0, 0.5]]])
    (result,) = postprocess(answer, [(100, 200)])
    assert result.boxes_xyxy.tolist() == [[0.0, 25.0, 200.0, 75.0]]
    (beyond,) = postprocess(prediction([[[9.0]]], [[[0.0, 0.5, 0.5, 0.5]]]), [(100, 200)])
    assert beyond.boxes_xyxy[0, 0] == -50


def test_on_a_canvas_that_is_not_square_height_and_width_are_enlarged_by_their_own_part():
    """The picture fills three quarters of the height and four fifths of the width."""
    padding = torch.ones(1, 40, 100, dtype=torch.bool)
    padding[0, :30, :80] = False
    answer = prediction([[[9.0]]], [[[0.4, 0.375, 0.4, 0.375]]])
    (result,) = postprocess(answer, [(60, 160)], padding=padding, fractions=of_the_canvas)
    assert result.boxes_xyxy[0].tolist() == pytest.approx([40, 15, 120, 45])


def test_a_picture_without_anything_has_zero_rows():
    (result,) = postprocess(prediction(torch.full((1, 4, 3), -9.0)), [(10, 10)])
    assert len(result) == 0
    assert result.boxes_xyxy.shape == (0, 4)


def test_a_picture_does_not_depend_on_its_neighbours_in_the_batch():
    answer = prediction(torch.randn(3, 20, 4))
    sizes = [(10, 20), (300, 40), (7, 7)]
    together = postprocess(answer, sizes, 0.3)
    for b in range(3):
        alone = prediction(answer.logits[b : b + 1], answer.boxes[b : b + 1])
        (result,) = postprocess(alone, sizes[b : b + 1], 0.3)
        assert torch.equal(result.boxes_xyxy, together[b].boxes_xyxy)
        assert torch.equal(result.scores, together[b].scores)


def test_half_precision_answers_give_pixels_in_single_precision():
    answer = prediction([[[9.0]]], [[[0.5, 0.5, 0.25, 0.25]]])
    half = Prediction(answer.logits.bfloat16(), answer.boxes.bfloat16(), layers=())
    (found,) = postprocess(half, [(1001, 2003)])
    assert found.boxes_xyxy.dtype == found.scores.dtype == torch.float32
    assert torch.equal(found.boxes_xyxy, postprocess(answer, [(1001, 2003)])[0].boxes_xyxy)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_answer_that_is_not_finite_is_no_empty_picture(bad):
    for logits, boxes in (([[[0.0]], [[bad]]], None), ([[[0.0]], [[0.0]]], [[[bad] * 4]] * 2)):
        if boxes is None and bad == float("inf"):
            continue  # the sigmoid of infinity is an honest 1
        with pytest.raises(ImageError, match="NaN or infinity"):
            postprocess(prediction(logits, boxes), [(1, 1), (1, 1)])


def test_as_many_sizes_as_pictures():
    with pytest.raises(ImageError, match="1 sizes for 2 pictures"):
        postprocess(prediction(torch.zeros(2, 3, 4)), [(1, 1)])


# --- duplicate removal, off unless asked for -----------------------------------------------------


def test_suppression_keeps_the_best_of_a_pile_whatever_its_label():
    pile = found([[0, 0, 10, 10], [1, 0, 11, 10], [50, 0, 60, 10]], [0.6, 0.9, 0.7], [0, 1, 0])
    kept = suppress(pile, max_iou=0.5)
    assert kept.queries.tolist() == [1, 2]


def test_a_box_that_is_gone_suppresses_nobody():
    chain = found([[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]], [0.9, 0.8, 0.7])
    assert suppress(chain, max_iou=0.3).queries.tolist() == [0, 2]


def test_suppressing_nothing_is_fine():
    assert len(suppress(found([], []))) == 0
    assert survivors(torch.zeros(0, 0, dtype=torch.bool)).shape == (0,)


@given(st.integers(0, 30), st.floats(0.1, 0.9), st.integers(0, 10_000))
@settings(max_examples=40)
def test_survivors_do_not_overlap_and_everyone_else_overlaps_a_better_one(n, max_iou, seed):
    rng = torch.Generator().manual_seed(seed)
    low = torch.rand(n, 2, generator=rng) * 20
    boxes = torch.cat([low, low + 5 + torch.rand(n, 2, generator=rng) * 20], -1)
    scores = torch.rand(n, generator=rng)
    everything = Found(boxes, scores, torch.zeros(n, dtype=torch.long), torch.arange(n))
    kept = suppress(everything, max_iou)
    overlaps = iou(kept.boxes_xyxy, kept.boxes_xyxy).fill_diagonal_(0)
    assert not (overlaps > max_iou).any()
    for q in set(range(n)) - set(kept.queries.tolist()):
        rivals = (iou(boxes[q : q + 1], kept.boxes_xyxy)[0] > max_iou) & (kept.scores >= scores[q])
        assert rivals.any()
