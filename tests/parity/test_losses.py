"""The same outputs cost the same: every term, every gradient, every matching cost.

The oracle is transformers' RTDetrForObjectDetectionLoss, in fp64, on random outputs of three
decoder layers with denoising; DETR's is its loss_for_object_detection.
"""

from dataclasses import replace

import pytest
import torch

from rtdetr_lab.config import replace_at
from rtdetr_lab.criterion import CriterionConfig
from rtdetr_lab.denoising import DenoisingConfig
from rtdetr_lab.losses import CrossEntropy
from rtdetr_lab.matching import FocalCost, MatcherConfig, SoftmaxCost
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


def as_theirs(targets):
    pairs = zip(targets.labels, targets.boxes, strict=True)
    return [{"class_labels": labels, "boxes": boxes} for labels, boxes in pairs]


def their_terms(out, batch, targets, **changes):
    """Their loss on the same numbers, in their vocabulary."""
    from transformers.loss.loss_rt_detr import RTDetrForObjectDetectionLoss

    config = transformers.RTDetrConfig(num_labels=NUM_CLASSES, **changes)
    meta = {
        "dn_positive_idx": [row.nonzero()[:, 0] for row in batch.is_positive],
        "dn_num_group": batch.num_groups,
        "dn_num_split": [batch.num_queries, NUM_QUERIES],
    }
    _, terms, _ = RTDetrForObjectDetectionLoss(
        out["logits"][:, -1], as_theirs(targets), "cpu", out["boxes"][:, -1], config,
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


SETTINGS = {
    "class_weight": ("weight_loss_vfl", 1.7),
    "l1_weight": ("weight_loss_bbox", 3.0),
    "giou_weight": ("weight_loss_giou", 0.4),
    "classification.alpha": ("focal_loss_alpha", 0.3),
    "classification.gamma": ("focal_loss_gamma", 1.5),
    "matcher.class_cost": ("matcher_class_cost", 9.0),
    "matcher.l1_cost": ("matcher_bbox_cost", 0.1),
    "matcher.giou_cost": ("matcher_giou_cost", 20.0),
    "matcher.classification.alpha": ("matcher_alpha", 0.9),
    "matcher.classification.gamma": ("matcher_gamma", 0.5),
}
"""Our path, their key, and a value far from the default."""


@usual_case
@pytest.mark.parametrize("path", SETTINGS)
def test_every_setting_means_the_same(case, path):
    out, batch, targets = case
    theirs, value = SETTINGS[path]
    expected = their_terms(out, batch, targets, **{theirs: value})
    cfg = replace_at(CriterionConfig(), path, value)
    mine = cfg.build()(our_prediction(out, batch), targets)
    for name, term in expected.items():
        torch.testing.assert_close(mine[our_name(name)], term, rtol=1e-9, atol=1e-12, msg=name)


@usual_case
@pytest.mark.parametrize("path", [p for p in SETTINGS if not p.startswith("matcher")])
def test_a_setting_that_is_off_by_one_percent_would_be_seen(case, path):
    out, batch, targets = case
    value = 1.01 * SETTINGS[path][1]
    off = replace_at(CriterionConfig(), path, value).build()(our_prediction(out, batch), targets)
    expected = their_terms(out, batch, targets, **{SETTINGS[path][0]: SETTINGS[path][1]})
    wrong = [n for n, t in expected.items() if (off[our_name(n)] / t - 1).abs() > 1e-4]
    assert len(wrong) == 2 * NUM_LAYERS + 1


# --- matching -----------------------------------------------------------------------------------


@pytest.fixture
def their_costs(monkeypatch):
    """Every cost matrix that either of their matchers solves, in order."""
    from transformers.loss import loss_for_object_detection, loss_rt_detr

    seen = []
    for module in (loss_for_object_detection, loss_rt_detr):
        solve = module.linear_sum_assignment

        def remember(cost, solve=solve):
            seen.append(torch.as_tensor(cost).clone())
            return solve(cost)

        monkeypatch.setattr(module, "linear_sum_assignment", remember)
    return seen


def their_matchers():
    from transformers.loss.loss_for_object_detection import HungarianMatcher
    from transformers.loss.loss_rt_detr import RTDetrHungarianMatcher

    settings = {"matcher_class_cost": 1.3, "matcher_alpha": 0.3, "matcher_gamma": 1.5}
    yield (
        RTDetrHungarianMatcher(transformers.RTDetrConfig(**settings)),
        MatcherConfig(class_cost=1.3, classification=FocalCost(0.3, 1.5)),
    )
    yield HungarianMatcher(1.0, 5.0, 2.0), MatcherConfig(1.0, 5.0, 2.0, SoftmaxCost())


@pytest.mark.parametrize(("theirs", "cfg"), list(their_matchers()), ids=["RT-DETR", "DETR"])
@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
def test_costs_and_pairs_are_theirs(theirs, cfg, counts, rng, their_costs):
    targets = random_targets(counts, rng)
    out = random_outputs(len(targets), 0, rng)
    layer = LayerPrediction(out["logits"][:, 0].detach(), out["boxes"][:, 0].detach())
    expected = theirs(
        {"logits": layer.logits, "pred_boxes": layer.boxes},
        as_theirs(targets),
    )
    matcher = cfg.build()
    for (queries, objects), theirs_ in zip(matcher(layer, targets), expected, strict=True):
        assert torch.equal(queries, theirs_[0])
        assert torch.equal(objects, theirs_[1])
    for i, cost in enumerate(their_costs):
        mine = matcher.cost_matrix(
            layer.logits[i], layer.boxes[i], targets.labels[i], targets.boxes[i]
        )
        torch.testing.assert_close(mine, cost, rtol=1e-9, atol=1e-12)
    assert len(their_costs) == len(targets)


# --- DETR ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
def test_detrs_terms_are_theirs_times_their_weights(counts, rng):
    from transformers.loss.loss_for_object_detection import HungarianMatcher, ImageLoss

    targets = random_targets(counts, rng)
    out = random_outputs(len(targets), 0, rng)
    logits, boxes = out["logits"][:, 0], out["boxes"][:, 0]
    # The last class is "no object"; labels stay below it.
    targets = replace(targets, labels=tuple(c.clamp(max=NUM_CLASSES - 2) for c in targets.labels))
    loss = ImageLoss(HungarianMatcher(1, 5, 2), NUM_CLASSES - 1, 0.25, ["labels", "boxes"])
    expected = loss.double()(
        {"logits": logits, "pred_boxes": boxes},
        as_theirs(targets),
    )
    cfg = CriterionConfig(
        MatcherConfig(1.0, 5.0, 2.0, SoftmaxCost()), CrossEntropy(no_object=0.25), 1.0, 5.0, 2.0
    )
    mine = cfg.build()(Prediction(logits, boxes, (LayerPrediction(logits, boxes),)), targets)
    for ours, theirs, weight in (
        ("class", "loss_ce", 1),
        ("l1", "loss_bbox", 5),
        ("giou", "loss_giou", 2),
    ):
        torch.testing.assert_close(mine[ours], weight * expected[theirs], rtol=1e-9, atol=1e-12)
