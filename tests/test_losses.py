"""Losses: the equations on numbers a reader can check, and who has a gradient."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from rtdetr_lab.boxes import paired_giou, xyxy_from_cxcywh
from rtdetr_lab.losses import (
    BinaryCrossEntropy,
    CrossEntropy,
    Focal,
    Varifocal,
    giou_loss,
    l1_loss,
)

ALL = [
    Varifocal(),
    Varifocal(alpha=0.5, gamma=1.0),
    Varifocal(iou_target=False),
    Focal(),
    Focal(alpha=0.3, gamma=1.0),
    Focal(iou_target=True),
    BinaryCrossEntropy(),
    BinaryCrossEntropy(iou_target=True),
    CrossEntropy(),
    CrossEntropy(no_object=0.5),
]
SIGMOID = [loss for loss in ALL if not isinstance(loss, CrossEntropy)]


@pytest.fixture
def answer():
    """(logits, is_class, iou) of two pictures, three queries, four classes; three are matched."""
    logits = 2 * torch.randn(2, 3, 4, dtype=torch.float64)
    is_class = torch.zeros(2, 3, 4, dtype=torch.bool)
    iou = torch.zeros(2, 3, dtype=torch.float64)
    for picture, query, label, overlap in [(0, 1, 2, 0.7), (1, 0, 0, 0.2), (1, 2, 2, 0.9)]:
        is_class[picture, query, label] = True
        iou[picture, query] = overlap
    return logits, is_class, iou


def by_the_equations(loss, p, matched, q):
    """One score p, at its object's class or not, with the IoU q: the table of the chapter."""
    target = (q if loss.iou_target else 1.0) if matched else 0.0
    error = -target * math.log(p) - (1 - target) * math.log(1 - p)
    if isinstance(loss, BinaryCrossEntropy):
        return error
    if isinstance(loss, Varifocal):
        return error * (target if matched else loss.alpha * p**loss.gamma)
    alpha = loss.alpha if matched else 1 - loss.alpha
    return alpha * abs(target - p) ** loss.gamma * error


@pytest.mark.parametrize("loss", SIGMOID, ids=str)
def test_a_class_loss_is_its_equation_summed_over_all_scores(loss, answer):
    """Eq. 04.1 (focal) and Eq. 04.2 (varifocal), and their neighbours in the table."""
    logits, is_class, iou = answer
    total = sum(
        by_the_equations(
            loss, logits[b, q, c].sigmoid().item(), is_class[b, q, c], iou[b, q].item()
        )
        for b in range(2)
        for q in range(3)
        for c in range(4)
    )
    assert loss(logits, is_class, iou, 3.0).item() == pytest.approx(total / 3, rel=1e-12)


def test_cross_entropy_is_a_weighted_mean_in_which_nothing_counts_a_tenth(answer):
    """Eq. 02.3"""
    logits, is_class, iou = answer
    log_p = logits.log_softmax(-1)
    found = log_p[0, 1, 2] + log_p[1, 0, 0] + log_p[1, 2, 2]
    nothing = log_p[0, 0, 3] + log_p[0, 2, 3] + log_p[1, 1, 3]
    by_hand = -(found + 0.1 * nothing) / (3 + 0.3)
    torch.testing.assert_close(CrossEntropy()(logits, is_class, iou, 99.0), by_hand)


@pytest.mark.parametrize("q", [0.1, 0.5, 0.8])
def test_varifocal_is_least_where_the_score_is_the_iou(q):
    logits = torch.linspace(-6, 6, 2401, dtype=torch.float64)
    found = torch.ones(1, 1, 1, dtype=torch.bool)
    iou = torch.full((1, 1), q, dtype=torch.float64)
    losses = torch.stack([Varifocal()(x.view(1, 1, 1), found, iou, 1.0) for x in logits])
    assert logits[losses.argmin()].sigmoid().item() == pytest.approx(q, abs=2e-3)


def test_varifocal_cares_more_for_well_placed_boxes_and_not_at_all_for_misses():
    found = torch.ones(1, 1, 1, dtype=torch.bool)
    pull = []
    for q in (0.0, 0.5, 1.0):
        logits = torch.zeros(1, 1, 1, requires_grad=True)
        Varifocal()(logits, found, torch.full((1, 1), q), 1.0).backward()
        pull.append(-logits.grad.item())
    assert pull == pytest.approx([0.0, 0.0, 0.5]), "q (q - p) with p = 0.5"


def test_the_factor_that_silences_the_background_has_no_gradient_in_varifocal():
    logits = torch.tensor([[[0.3]]], dtype=torch.float64, requires_grad=True)
    nothing, iou = torch.zeros(1, 1, 1, dtype=torch.bool), torch.zeros(1, 1, dtype=torch.float64)
    Varifocal()(logits, nothing, iou, 1.0).backward()
    p = logits.detach().sigmoid()
    torch.testing.assert_close(logits.grad, 0.75 * p**2 * p)


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_every_class_loss_has_the_gradient_of_its_value(loss, answer):
    """Not so varifocal's background, see above: its factor is held still here as well."""
    logits, is_class, iou = answer
    if isinstance(loss, Varifocal):
        is_class, iou = torch.ones(2, 3, 4, dtype=torch.bool), iou + 0.05
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, is_class, iou, 3.0), logits)


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_certain_scores_cost_much_and_never_infinity(loss, answer):
    logits, is_class, iou = answer
    logits = (logits.sign() * 1e4).float().requires_grad_()
    value = loss(logits, is_class, iou.float(), 3.0)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_without_objects_every_score_is_pushed_down(loss):
    logits = torch.zeros(1, 5, 3, requires_grad=True)
    nothing = torch.zeros(1, 5, 3, dtype=torch.bool)
    loss(logits, nothing, torch.zeros(1, 5), 1.0).backward()
    classes = logits.grad[..., :-1] if isinstance(loss, CrossEntropy) else logits.grad
    assert (classes > 0).all()


# --- boxes --------------------------------------------------------------------------------------

BOX = st.tuples(*[st.floats(0.2, 0.8)] * 2, *[st.floats(0.05, 0.4)] * 2)


def test_the_box_losses_on_a_box_shifted_by_half_its_width():
    """Eq. 04.3"""
    wanted = torch.tensor([[0.5, 0.5, 0.2, 0.2]])
    boxes = wanted + torch.tensor([[0.1, 0.0, 0.0, 0.0]])
    assert l1_loss(boxes, wanted, 1.0).item() == pytest.approx(0.1)
    # IoU 1/3, and the box around both is filled: GIoU is the same.
    assert giou_loss(boxes, wanted, 1.0).item() == pytest.approx(2 / 3)
    assert giou_loss(boxes, wanted, 4.0).item() == pytest.approx(1 / 6)


@given(a=BOX, b=BOX)
@settings(max_examples=50)
def test_box_losses_are_symmetric_zero_only_at_the_box_and_bounded(a, b):
    a, b = torch.tensor([a]).double(), torch.tensor([b]).double()
    for loss, most in ((l1_loss, 4), (giou_loss, 2)):
        assert loss(a, a, 1.0).item() == pytest.approx(0, abs=1e-12)
        assert loss(a, b, 1.0).item() == pytest.approx(loss(b, a, 1.0).item(), abs=1e-12)
        assert 0 <= loss(a, b, 1.0).item() + 1e-12 <= most
    assert (l1_loss(a, b, 1.0) < 1e-9) == (giou_loss(a, b, 1.0) < 1e-9)


def test_a_box_that_misses_still_has_a_gradient_towards_its_object():
    boxes = torch.tensor([[0.2, 0.5, 0.1, 0.1]], requires_grad=True)
    wanted = torch.tensor([[0.8, 0.5, 0.1, 0.1]])
    giou_loss(boxes, wanted, 1.0).backward()
    assert boxes.grad[0, 0] < 0
    assert 1 - giou_loss(boxes, wanted, 1.0) == paired_giou(
        xyxy_from_cxcywh(boxes), xyxy_from_cxcywh(wanted)
    )


def test_no_pairs_cost_nothing_and_keep_the_graph():
    boxes = torch.rand(0, 4, requires_grad=True)
    total = l1_loss(boxes, torch.rand(0, 4), 1.0) + giou_loss(boxes, torch.rand(0, 4), 1.0)
    assert total == 0
    total.backward()
    assert boxes.grad.shape == (0, 4)


def test_plain_cross_entropy_is_torchs(answer):
    logits, is_class, iou = answer
    theirs = F.binary_cross_entropy_with_logits(logits, is_class.double(), reduction="sum")
    torch.testing.assert_close(BinaryCrossEntropy()(logits, is_class, iou, 2.0), theirs / 2)
