"""From DETR's queries to boxes in pixels, whatever the boxes are fractions of."""

from functools import partial

import pytest
import torch

from rtdetr_lab.errors import ImageError
from rtdetr_lab.images.postprocess import (
    filled_part,
    of_the_canvas,
    of_the_picture,
    postprocess,
)
from rtdetr_lab.model import by_softmax
from rtdetr_lab.structures import LayerPrediction, Prediction

postprocess_softmax = partial(postprocess, rank=by_softmax)


def prediction(logits, boxes):
    logits, boxes = torch.as_tensor(logits), torch.as_tensor(boxes)
    return Prediction(logits, boxes, (LayerPrediction(logits, boxes),))


HALF = [[[0.25, 0.5, 0.5, 1.0]]]


def test_a_query_has_one_label_and_the_last_class_is_nothing():
    logits = torch.log(torch.tensor([[[0.1, 0.7, 0.2], [0.3, 0.1, 0.6], [0.8, 0.1, 0.1]]]))
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.4]] * 3])
    (found,) = postprocess_softmax(prediction(logits, boxes), [(100, 200)], threshold=0.2)
    assert found.labels.tolist() == [0, 1, 0]
    assert found.queries.tolist() == [2, 0, 1]
    torch.testing.assert_close(found.scores, torch.tensor([0.8, 0.7, 0.3]))
    torch.testing.assert_close(found.boxes_xyxy[0], torch.tensor([80.0, 30.0, 120.0, 70.0]))


def test_the_threshold_is_strict():
    logits = torch.zeros(1, 1, 2)  # a score of exactly one half
    for threshold, count in ((0.5, 0), (0.499, 1)):
        out = postprocess_softmax(prediction(logits, HALF), [(4, 4)], threshold)
        assert len(out[0]) == count


@pytest.fixture
def canvas():
    """The second picture fills 30 of 40 rows and 10 of 50 columns."""
    padding = torch.zeros(2, 40, 50, dtype=torch.bool)
    padding[1, 30:] = padding[1, :, 10:] = True
    return padding


def test_what_a_picture_fills_of_its_canvas(canvas):
    assert filled_part(canvas, torch.float64).tolist() == [[1.0, 1.0], [0.75, 0.2]]


def test_fractions_of_the_picture_and_of_the_canvas(canvas):
    """The same place, said in both ways: the right half of both pictures, in pixels."""
    half = [[0.75, 0.5, 0.5, 1.0]]
    of_picture = prediction(torch.tensor([[[5.0, 0.0]]] * 2), torch.tensor([half] * 2))
    on_canvas = [half, [[0.15, 0.375, 0.1, 0.75]]]
    of_canvas = prediction(torch.tensor([[[5.0, 0.0]]] * 2), torch.tensor(on_canvas))
    sizes = [(40, 50), (300, 100)]
    for answer, rule in ((of_picture, of_the_picture), (of_canvas, of_the_canvas)):
        found = postprocess_softmax(answer, sizes, padding=canvas, fractions=rule)
        torch.testing.assert_close(found[0].boxes_xyxy, torch.tensor([[25.0, 0, 50, 40]]))
        torch.testing.assert_close(found[1].boxes_xyxy, torch.tensor([[50.0, 0, 100, 300]]))


def test_half_precision_gets_its_pixels_in_single():
    out = prediction(torch.tensor([[[5.0, 0.0]]]).bfloat16(), torch.tensor(HALF).bfloat16())
    (found,) = postprocess_softmax(out, [(1025, 1025)])
    assert found.boxes_xyxy.tolist() == [[0, 0, 512.5, 1025]]


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_an_answer_that_is_not_finite_is_refused(broken):
    out = prediction(torch.tensor([[[5.0, broken]]]), torch.tensor(HALF))
    with pytest.raises(ImageError, match=r"pictures\[0\]"):
        postprocess_softmax(out, [(4, 4)])


def test_sizes_that_do_not_fit_the_batch_are_refused():
    with pytest.raises(ImageError, match="2 sizes for 1 pictures"):
        postprocess_softmax(prediction(torch.zeros(1, 1, 2), HALF), [(4, 4)] * 2)
