"""The same outputs cost the same: every term, every gradient, every matching cost.

The oracle is transformers' RTDetrForObjectDetectionLoss, in fp64, on random outputs of three
decoder layers with denoising; DETR's is its loss_for_object_detection.
"""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import Buffer

from rtdetr_lab.config import replace_at
from rtdetr_lab.criterion import CriterionConfig
from rtdetr_lab.denoising import DenoisingConfig
from rtdetr_lab.losses import CrossEntropy
from rtdetr_lab.matching import MatcherConfig, SoftmaxCost
from rtdetr_lab.structures import (
    Denoised,
    LayerPrediction,
    Prediction,
    Proposals,
    Targets,
)

transformers = pytest.importorskip(
    "transformers", reason="transformers, the oracle, is not installed; runs with the extra [dev]"
)

NUM_CLASSES, NUM_QUERIES, NUM_LAYERS = 7, 12, 3
COUNTS = {"usual": (2, 0, 5), "one picture": (1,), "more objects than queries": (15, 3)}


def random_targets(counts, rng):
    pictures = []
    for count in counts:
        centre = 0.2 + 0.6 * torch.rand(count, 2, generator=rng)
        size = 0.02 + 0.35 * torch.rand(count, 2, generator=rng)
        labels = torch.randint(NUM_CLASSES, (count,), generator=rng)
        pictures.append({"labels": labels, "boxes": torch.cat([centre, size], 1).double()})
    return Targets.of(pictures)


def random_outputs(num_pictures, num_denoising, rng):
    """Leaves of a graph: logits and boxes of all layers, and of the proposals."""

    def normal(*shape):
        return torch.randn(*shape, generator=rng).double()

    both = num_denoising + NUM_QUERIES
    return {
        "logits": (2 * normal(num_pictures, NUM_LAYERS, both, NUM_CLASSES)).requires_grad_(),
        "boxes": normal(num_pictures, NUM_LAYERS, both, 4).sigmoid().requires_grad_(),
        "enc_logits": (2 * normal(num_pictures, NUM_QUERIES, NUM_CLASSES)).requires_grad_(),
        "enc_boxes": normal(num_pictures, NUM_QUERIES, 4).sigmoid().requires_grad_(),
    }


def our_prediction(out, batch):
    """The same numbers as our record."""
    count = batch.num_queries
    pairs = list(zip(out["logits"].unbind(1), out["boxes"].unbind(1), strict=True))
    noised = tuple(LayerPrediction(c[:, :count], b[:, :count]) for c, b in pairs)
    layers = tuple(LayerPrediction(c[:, count:], b[:, count:]) for c, b in pairs)
    index = torch.zeros(out["enc_logits"].shape[:2], dtype=torch.long)
    proposals = Proposals(index, out["enc_logits"], out["enc_boxes"])
    last = layers[-1]
    return Prediction(last.logits, last.boxes, layers, proposals, Denoised(noised, batch))


def their_terms(out, batch, targets, **changes):
    """Their loss on the same numbers, in their vocabulary."""
    from transformers.loss.loss_rt_detr import RTDetrForObjectDetectionLoss

    config = transformers.RTDetrConfig(num_labels=NUM_CLASSES, **changes)
    meta = {
        "dn_positive_idx": [row.nonzero()[:, 0] for row in batch.is_positive],
        "dn_num_group": batch.num_groups,
        "dn_num_split": [batch.num_queries, NUM_QUERIES],
    }
    labels = [
        {"class_labels": c, "boxes": b} for c, b in zip(targets.labels, targets.boxes, strict=True)
    ]
    _, terms, _ = RTDetrForObjectDetectionLoss(
        out["logits"][:, -1], labels, "cpu", out["boxes"][:, -1], config,
        out["logits"], out["boxes"], out["enc_logits"], out["enc_boxes"], meta,
    )  # fmt: skip
    return terms


def our_name(theirs):
    """`loss_bbox_aux_1` → `l1.layer1`; the last `_aux_` is the proposals."""
    kind, _, rest = theirs.removeprefix("loss_").partition("_")
    kind = {"vfl": "class", "bbox": "l1", "giou": "giou"}[kind]
    if rest == f"aux_{NUM_LAYERS - 1}":
        return f"{kind}.proposals"
    where = rest.replace("aux_", ".layer").replace("dn_", ".denoising")
    return kind + where


@pytest.fixture
def case(request, rng):
    targets = random_targets(COUNTS[request.param], rng)
    noise = DenoisingConfig(num_queries=20).build(NUM_CLASSES, dim=4)
    batch = noise(targets, NUM_QUERIES)
    return random_outputs(len(targets), batch.num_queries, rng), batch, targets


every_case = pytest.mark.parametrize("case", COUNTS, indirect=True)
usual_case = pytest.mark.parametrize("case", ["usual"], indirect=True)


@every_case
def test_every_term_is_theirs(case):
    out, batch, targets = case
    expected = {our_name(n): v for n, v in their_terms(out, batch, targets).items()}
    mine = CriterionConfig().build()(our_prediction(out, batch), targets)
    assert set(mine) == set(expected)
    assert len(mine) == 3 * (NUM_LAYERS + 1 + NUM_LAYERS)
    for name, term in mine.items():
        torch.testing.assert_close(term, expected[name], rtol=1e-9, atol=1e-12, msg=name)


@every_case
def test_every_gradient_is_theirs(case):
    out, batch, targets = case
    theirs = sum(their_terms(out, batch, targets).values())
    expected = torch.autograd.grad(theirs, list(out.values()))
    ours = sum(CriterionConfig().build()(our_prediction(out, batch), targets).values())
    mine = torch.autograd.grad(ours, list(out.values()))
    for name, a, b in zip(out, mine, expected, strict=True):
        assert b.abs().max() > 1e-3
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12, msg=name)
