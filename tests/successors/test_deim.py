"""DEIM's class loss: every match counts, and the quality of its box is the target."""

from types import SimpleNamespace

import pytest
import torch
from small import SMALL, SMALL_DFINE, pictures, shaken, targets

from rtdetr_lab.boxes import iou as iou_of
from rtdetr_lab.boxes import xyxy_from_cxcywh
from rtdetr_lab.config import diff
from rtdetr_lab.config_json import from_json, to_json
from rtdetr_lab.errors import ConfigError
from rtdetr_lab.losses import Varifocal
from rtdetr_lab.successors.deim import MatchabilityAware, matchability_aware


@pytest.fixture
def batch(rng):
    """Two pictures, seven queries, five classes; three matches, one of which misses its object."""
    logits = (2 * torch.randn(2, 7, 5, generator=rng).double()).requires_grad_()
    is_class = torch.zeros(2, 7, 5, dtype=torch.bool)
    iou = torch.zeros(2, 7).double()
    for picture, query, label, overlap in ((0, 4, 2, 0.85), (0, 1, 0, 0.15), (1, 6, 3, 0.0)):
        is_class[picture, query, label] = True
        iou[picture, query] = overlap
    return logits, is_class, iou


@pytest.mark.parametrize("gamma", [1.5, 1.0, 2.3])
def test_the_loss_is_the_equation(batch, gamma):
    """Eq. 22.1, one number at a time."""
    logits, is_class, iou = batch
    expected = 0.0
    for b in range(2):
        for q in range(7):
            for c in range(5):
                p = logits[b, q, c].detach().sigmoid()
                wanted = iou[b, q] ** gamma
                matched = -(wanted * p.log() + (1 - wanted) * (1 - p).log())
                rest = -(p**gamma) * (1 - p).log()
                expected += float(matched if is_class[b, q, c] else rest)
    found = MatchabilityAware(gamma)(logits, is_class, iou, 3.0)
    assert found.item() == pytest.approx(expected / 3, rel=1e-12)


SLOPES = {0.0: (0.0, 0.5), 0.1: (0.04, 0.47), 0.3: (0.06, 0.34), 0.6: (-0.06, 0.04)}
SLOPES[0.9] = (-0.36, -0.35)


@pytest.mark.parametrize("q", SLOPES)
def test_the_table_of_slopes_is_true(q):
    """A query that says ½."""
    for loss, slope in zip((Varifocal(), MatchabilityAware()), SLOPES[q], strict=True):
        logits = torch.zeros(1, 1, 1).double().requires_grad_()
        iou = torch.tensor([[q]]).double()
        loss(logits, torch.ones(1, 1, 1, dtype=torch.bool), iou, 1.0).backward()
        assert round(logits.grad.item(), 2) == slope


def test_the_weight_of_the_background_has_no_gradient(batch):
    logits, is_class, iou = batch
    MatchabilityAware()(logits, is_class, iou, 1.0).backward()
    p = logits.detach().sigmoid()
    expected = torch.where(is_class, p - (iou**1.5)[..., None], p**1.5 * p)
    torch.testing.assert_close(logits.grad, expected)


def test_it_is_transformers_loss(rng):
    """Oracle: `loss_labels_mal` of transformers' DEIMv2, in fp64."""
    pytest.importorskip("transformers", reason="transformers, the oracle, is not installed")
    from transformers.loss.loss_deimv2 import Deimv2Loss

    logits = torch.randn(2, 7, 5, generator=rng).double()
    boxes = 0.2 + 0.4 * torch.rand(2, 7, 4, generator=rng).double()
    wanted = 0.3 + 0.3 * torch.rand(3, 4, generator=rng).double()
    pairs = [(torch.tensor([5, 2]), torch.tensor([1, 0])), (torch.tensor([3]), torch.tensor([0]))]
    found = [
        {"class_labels": torch.tensor([4, 1]), "boxes": wanted[:2]},
        {"class_labels": torch.tensor([2]), "boxes": wanted[2:]},
    ]
    themselves = SimpleNamespace(num_classes=5, gamma=1.5, mal_alpha=None)
    themselves._get_source_permutation_idx = lambda p: Deimv2Loss._get_source_permutation_idx(
        themselves, p
    )
    outputs = {"logits": logits, "pred_boxes": boxes}
    theirs = Deimv2Loss.loss_labels_mal(themselves, outputs, found, pairs, 3.0)["loss_mal"]

    is_class, iou = torch.zeros(2, 7, 5, dtype=torch.bool), torch.zeros(2, 7).double()
    for picture, (queries, objects) in enumerate(pairs):
        for q, t in zip(queries.tolist(), objects.tolist(), strict=True):
            target = found[picture]
            is_class[picture, q, target["class_labels"][t]] = True
            pair = (boxes[picture, q], target["boxes"][t])
            iou[picture, q] = iou_of(*(xyxy_from_cxcywh(b)[None] for b in pair))[0, 0]
    ours = MatchabilityAware()(logits, is_class, iou, 3.0)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-9)
    off = MatchabilityAware(1.515)(logits, is_class, iou, 3.0)
    assert off.item() != pytest.approx(theirs.item(), rel=1e-4)


@pytest.mark.parametrize("cfg", [SMALL, SMALL_DFINE], ids=["RT-DETR", "D-FINE"])
def test_any_model_of_the_line_trains_with_it(cfg):
    changed = matchability_aware(cfg)
    assert set(diff(cfg, changed)) == {"criterion.classification"}
    assert from_json(to_json(changed)) == changed
    model, found = shaken(changed.build()).train(), targets(3, 1)
    terms = changed.criterion.build()(model(pictures(), found), found)
    sum(terms.values()).backward()
    assert all(t.isfinite() for t in terms.values())


def test_a_power_of_zero_is_refused():
    with pytest.raises(ConfigError, match="gamma"):
        MatchabilityAware(0.0)
