"""Boxes: formats there and back, overlap against counting cells, logits against torch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rtdetr_lab import boxes as B

coordinate = st.floats(-2, 2, width=32)
BOX = st.tuples(coordinate, coordinate, st.floats(0, 2, width=32), st.floats(0, 2, width=32))
few = settings(max_examples=50)


def tensor(*rows):
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, 4)


def test_one_box_in_every_format():
    centred = tensor([0.5, 0.4, 0.2, 0.6])
    corners = tensor([0.4, 0.1, 0.6, 0.7])
    left_top = tensor([0.4, 0.1, 0.2, 0.6])
    torch.testing.assert_close(B.xyxy_from_cxcywh(centred), corners)
    torch.testing.assert_close(B.cxcywh_from_xyxy(corners), centred)
    torch.testing.assert_close(B.xyxy_from_xywh(left_top), corners)
    torch.testing.assert_close(B.xywh_from_xyxy(corners), left_top)
    torch.testing.assert_close(B.scale_boxes(corners, (100, 200)), tensor([80, 10, 120, 70]))
    assert B.area(corners).item() == pytest.approx(0.12)


@given(box=BOX)
@few
def test_formats_there_and_back_is_where_we_were(box):
    box = tensor(box)
    for there, back in (
        (B.xyxy_from_cxcywh, B.cxcywh_from_xyxy),
        (B.xyxy_from_xywh, B.xywh_from_xyxy),
    ):
        torch.testing.assert_close(back(there(box)), box, rtol=1e-12, atol=1e-12)


cell = st.integers(0, 12)
CELLS = st.tuples(cell, cell, cell, cell).map(
    lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3]))
)


def covered(box):
    left, top, right, bottom = box
    return {(x, y) for x in range(left, right) for y in range(top, bottom)}


@given(a=CELLS, b=CELLS)
@few
def test_overlap_is_what_counting_cells_gives(a, b):
    """Eq. 01.1 and Eq. 01.2, on cells one can count."""
    both, either = covered(a) & covered(b), covered(a) | covered(b)
    around = (*map(min, a[:2], b[:2]), *map(max, a[2:], b[2:]))
    iou = len(both) / len(either) if either else 0.0
    enclosing = len(covered(around))
    giou = iou - (enclosing - len(either)) / enclosing if enclosing else iou
    a, b = tensor(a), tensor(b)
    assert B.iou(a, b).item() == pytest.approx(iou, abs=1e-12)
    assert B.giou(a, b).item() == pytest.approx(giou, abs=1e-12)


@given(rows=st.lists(st.tuples(BOX, BOX), min_size=1, max_size=5))
@few
def test_overlap_of_pairs_is_the_diagonal_of_overlap_of_all(rows):
    a, b = (B.xyxy_from_xywh(tensor(*boxes)) for boxes in zip(*rows, strict=True))
    for of_all, of_pairs in ((B.iou, B.paired_iou), (B.giou, B.paired_giou)):
        torch.testing.assert_close(of_all(a, b).diagonal(), of_pairs(a, b))
        torch.testing.assert_close(of_all(a, b), of_all(b, a).T)


@given(a=BOX, b=BOX)
@few
def test_giou_lies_between_minus_one_and_iou(a, b):
    a, b = B.xyxy_from_xywh(tensor(a)), B.xyxy_from_xywh(tensor(b))
    iou, giou = B.iou(a, b).item(), B.giou(a, b).item()
    assert -1e-12 <= iou <= 1 + 1e-12
    assert -1 - 1e-12 <= giou <= iou + 1e-12


def test_giou_keeps_falling_where_iou_can_say_nothing_more():
    a = tensor([0, 0, 1, 1])
    far = [tensor([x, 0, x + 1, 1]) for x in (1.0, 2.0, 5.0)]
    assert [B.iou(a, b).item() for b in far] == [0, 0, 0]
    assert [B.giou(a, b).item() for b in far] == pytest.approx([0, -1 / 3, -2 / 3])


@pytest.mark.parametrize(
    "empty",
    [[0.3, 0.3, 0.3, 0.3], [0.3, 0.1, 0.3, 0.9], [0.6, 0.6, 0.2, 0.2]],
    ids=["a point", "a line", "inside out"],
)
def test_a_box_without_area_overlaps_nothing_and_never_makes_a_nan(empty):
    box = tensor(empty).requires_grad_()
    other = tensor([0.0, 0.0, 1.0, 1.0])
    for some in (box, other):
        assert B.iou(box, some).item() == 0
    assert torch.isfinite(B.giou(box, other)).all()
    (B.giou(box, box).sum() + B.giou(box, other).sum()).backward()
    assert torch.isfinite(box.grad).all()


def test_overlap_has_the_gradient_of_its_value():
    a = tensor([0.1, 0.2, 0.5, 0.6], [0.0, 0.0, 0.2, 0.2]).requires_grad_()
    b = tensor([0.3, 0.3, 0.9, 0.7], [0.5, 0.5, 0.8, 0.6]).requires_grad_()
    assert torch.autograd.gradcheck(B.paired_iou, (a, b))
    assert torch.autograd.gradcheck(B.paired_giou, (a, b))


def test_no_boxes_have_no_overlap():
    none, some = torch.zeros(0, 4), torch.rand(3, 4)
    assert B.iou(none, some).shape == (0, 3)
    assert B.giou(some, none).shape == (3, 0)


# --- the logit ----------------------------------------------------------------------------------


@given(x=st.floats(-11, 11))
@few
def test_inverse_sigmoid_undoes_sigmoid(x):
    x = torch.tensor(x, dtype=torch.float64)
    assert B.inverse_sigmoid(x.sigmoid()).item() == pytest.approx(x.item(), abs=1e-6)


def test_inverse_sigmoid_stays_finite_at_the_ends_and_beyond():
    ends = torch.tensor([-0.5, 0.0, 1e-7, 1 - 1e-7, 1.0, 1.5], requires_grad=True)
    logits = B.inverse_sigmoid(ends)
    assert logits.abs().max().item() == pytest.approx(11.513, abs=1e-3)
    assert torch.equal(logits.sign(), torch.tensor([-1.0, -1, -1, 1, 1, 1]))
    logits.sum().backward()
    assert torch.isfinite(ends.grad).all()


def test_inverse_sigmoid_is_torchs_logit_away_from_the_ends():
    """Eq. 01.3: at the ends it is clamped in its own way."""
    x = torch.linspace(0.001, 0.999, 99, dtype=torch.float64)
    torch.testing.assert_close(B.inverse_sigmoid(x), torch.logit(x))
    near_one = torch.tensor([1 - 1e-5 / 2], dtype=torch.float64)
    assert B.inverse_sigmoid(near_one) != torch.logit(near_one, eps=1e-5)


def test_a_box_turned_inside_out_is_empty_and_not_large():
    inside_out = torch.tensor([[0.7, 0.7, 0.3, 0.3]])  # negative times negative is 0.16
    assert B.area(inside_out).item() == 0
    assert B.iou(inside_out, torch.tensor([[0.3, 0.3, 0.7, 0.7]])).item() == 0
