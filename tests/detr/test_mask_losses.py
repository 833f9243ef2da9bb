"""What a wrong mask costs: pixel by pixel, and as a shape."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rtdetr_lab.criterion import CriterionConfig
from rtdetr_lab.detr.mask_losses import (
    MaskLoss,
    dice_loss,
    enlarged,
    mask_focal_loss,
)
from rtdetr_lab.errors import ConfigError, TargetError
from rtdetr_lab.structures import LayerPrediction, Prediction, Targets


def logit(p):
    return math.log(p / (1 - p))


def test_focal_by_hand_on_two_pixels():
    masks = torch.tensor([[[logit(0.8), logit(0.3)]]]).double()
    wanted = torch.tensor([[[1.0, 0.0]]]).double()
    by_hand = (0.25 * 0.2**2 * -math.log(0.8) + 0.75 * 0.3**2 * -math.log(0.7)) / 2
    assert mask_focal_loss(masks, wanted, 4.0).item() == pytest.approx(by_hand / 4)
    plain = (-math.log(0.8) - math.log(0.7)) / 2 * 0.5
    assert mask_focal_loss(masks, wanted, 1.0, 0.5, 0.0).item() == pytest.approx(plain)


def test_dice_by_hand_on_two_pixels():
    masks = torch.tensor([[[logit(0.8), logit(0.3)]]]).double()
    wanted = torch.tensor([[[1.0, 0.0]]]).double()
    assert dice_loss(masks, wanted, 2.0).item() == pytest.approx(
        (1 - (2 * 0.8 + 1) / (1.1 + 1 + 1)) / 2
    )


@given(st.integers(1, 5), st.integers(1, 8), st.integers(1, 8))
@settings(max_examples=20)
def test_a_perfect_mask_costs_nothing_and_its_opposite_most(count, height, width):
    wanted = torch.randint(2, (count, height, width)).double()
    perfect, opposite = 40 * (2 * wanted - 1), 40 * (1 - 2 * wanted)
    for loss in (dice_loss, mask_focal_loss):
        assert loss(perfect, wanted, 1.0) < 1e-9
        assert loss(opposite, wanted, 1.0) > loss(0 * wanted, wanted, 1.0)
    assert (dice_loss(opposite, wanted, 1.0) <= count).all()


def test_dice_counts_a_small_object_as_much_as_a_large_one_and_focal_does_not():
    wanted = torch.zeros(2, 20, 20).double()
    wanted[0, :2, :2] = wanted[1, :16, :16] = 1
    missed = torch.full_like(wanted, -40.0)
    small, large = (dice_loss(missed[i : i + 1], wanted[i : i + 1], 1.0) for i in range(2))
    assert small > 0.7
    assert large / small < 1.3
    small, large = (mask_focal_loss(missed[i : i + 1], wanted[i : i + 1], 1.0) for i in range(2))
    assert large / small == pytest.approx(64)


def case(counts, size=(8, 12), queries=6):
    """Logits, boxes and masks of a model as leaves, and objects with masks."""
    total = len(counts)
    logits = torch.randn(total, queries, 4).double().requires_grad_()
    boxes = torch.rand(total, queries, 4).double().requires_grad_()
    masks = torch.randn(total, queries, 2, 3).double().requires_grad_()
    targets = Targets.of(
        {
            "labels": torch.randint(3, (n,)),
            "boxes": 0.3 + 0.3 * torch.rand(n, 4),
            "masks": torch.rand(n, *size) > 0.5,
        }
        for n in counts
    )
    layer = LayerPrediction(logits, boxes)
    return Prediction(logits, boxes, (layer, layer), masks=masks), targets


def test_only_the_masks_of_matched_queries_of_the_last_layer_learn():
    prediction, targets = case((2, 1))
    criterion = CriterionConfig(masks=MaskLoss()).build()
    terms = criterion(prediction, targets)
    assert {n for n in terms if n.startswith(("mask", "dice"))} == {"mask", "dice"}
    (terms["mask"] + terms["dice"]).backward()
    pairs = criterion.matcher(prediction.layers[-1], targets)
    for b, (queries, _) in enumerate(pairs):
        touched = prediction.masks.grad[b].flatten(1).abs().sum(1).nonzero()[:, 0]
        assert touched.tolist() == queries.tolist()
    assert prediction.boxes.grad is None


def test_the_mask_of_a_query_is_compared_with_that_of_its_own_object():
    prediction, targets = case((3,))
    terms = CriterionConfig(masks=MaskLoss()).build()(prediction, targets)
    loss = MaskLoss(dice_weight=0.5, mask_weight=3.0, alpha=0.6, gamma=1.0)
    criterion = CriterionConfig(masks=loss)
    other = criterion.build()(prediction, targets)
    queries, objects = next(iter(criterion.build().matcher(prediction.layers[-1], targets)))
    masks = enlarged(prediction.masks[0, queries], (8, 12))
    wanted = targets.masks[0][objects].double()
    assert terms["dice"].item() == pytest.approx(dice_loss(masks, wanted, 3.0).item())
    assert other["dice"].item() == pytest.approx(terms["dice"].item() / 2)
    assert other["mask"].item() == pytest.approx(
        3 * mask_focal_loss(masks, wanted, 3.0, 0.6, 1.0).item()
    )


def test_a_batch_without_objects_costs_nothing_and_has_gradients():
    prediction, targets = case((0, 0))
    terms = CriterionConfig(masks=MaskLoss()).build()(prediction, targets)
    assert terms["mask"] == terms["dice"] == 0
    (terms["mask"] + terms["dice"]).backward()
    assert (prediction.masks.grad == 0).all()


def test_missing_masks_are_named():
    prediction, targets = case((1,))
    without = Targets(targets.labels, targets.boxes)
    with pytest.raises(TargetError, match=r"targets.masks: there are no masks"):
        CriterionConfig(masks=MaskLoss()).build()(prediction, without)
    no_masks = Prediction(prediction.logits, prediction.boxes, prediction.layers)
    with pytest.raises(TargetError, match="the model answers without masks"):
        CriterionConfig(masks=MaskLoss()).build()(no_masks, targets)


def test_weights_below_zero_are_refused():
    with pytest.raises(ConfigError, match=r"criterion\.masks\.dice_weight: is -1\.0"):
        MaskLoss(dice_weight=-1.0)
