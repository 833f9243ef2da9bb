"""D-FINE's losses: two bins share an edge, the last layer teaches, and all layers share pairs.

The oracle is transformers' DFineLoss, in fp32 (it fails in fp64), given one set of pairs: it does
not join those of the layers. Naive loops decide in fp64.
"""

import math
from dataclasses import replace

import pytest
import torch
from small import SMALL_DFINE, pictures, shaken, targets

from rtdetr_lab.boxes import iou, xyxy_from_cxcywh
from rtdetr_lab.config import replace_at
from rtdetr_lab.errors import ConfigError
from rtdetr_lab.structures import Assignment, LayerPrediction, Targets
from rtdetr_lab.successors.dfine_losses import (
    DFINECriterionConfig,
    balanced,
    bins_around,
    divergence,
    edge_error,
    edges,
    roots_of,
    union,
)
from rtdetr_lab.successors.fdr import EdgePrediction, FDRConfig, edges_away


def some_layers(rng, count=3, dtype=torch.float64, queries=9, classes=5):
    """Layers of a decoder for two pictures, with distributions that have peaks."""

    def normal(*shape):
        return torch.randn(*shape, generator=rng).to(dtype)

    centre = 0.3 + 0.4 * torch.rand(2, queries, 2, generator=rng)
    size = 0.1 + 0.3 * torch.rand(2, queries, 2, generator=rng)
    boxes = torch.cat([centre, size], -1).to(dtype)
    distances = FDRConfig().distances(boxes)
    start = LayerPrediction(normal(2, queries, classes), boxes)
    layers = []
    for _ in range(count):
        moved = boxes + 0.03 * normal(2, queries, 4)
        scores = (2 * normal(2, queries, 4, 33)).requires_grad_()
        layers.append(EdgePrediction(normal(2, queries, classes), moved, scores, distances, start))
    return layers


WANTED = Targets.of(
    [
        {
            "labels": torch.tensor([1, 4, 0]),
            "boxes": torch.tensor(
                [[0.5, 0.5, 0.3, 0.4], [0.4, 0.6, 0.2, 0.1], [0.55, 0.3, 0.9, 0.5]]
            ),
        },
        {"labels": torch.tensor([2]), "boxes": torch.tensor([[0.35, 0.45, 0.25, 0.35]])},
    ]
)
PAIRS = Assignment(
    (torch.tensor([2, 5, 8]), torch.tensor([4])), (torch.tensor([1, 0, 2]), torch.tensor([0]))
)


# --- FGL ----------------------------------------------------------------------------------------


def test_an_edge_between_two_distances_is_shared_by_their_bins():
    """Eq. 21.7, below, between, on and above the distances of a small table."""
    table = torch.tensor([-1.0, -0.25, 0.0, 0.25, 1.0]).double()
    away = torch.tensor([[-1.5, -0.4, 0.0, 0.1], [0.25, 0.7, 1.0, 7.0]]).double()
    low, share = bins_around(table, away)
    assert low.tolist() == [[0, 0, 2, 2], [3, 3, 3, 3]]
    wanted = torch.tensor([[0.0, 0.8, 0.0, 0.4], [0.0, 0.6, 1.0, 1.0]]).double()
    torch.testing.assert_close(share, wanted)


def test_the_error_is_the_cross_entropy_with_both_bins(rng):
    """Eq. 21.7."""
    table = FDRConfig(num_bins=8).distances(torch.zeros(1).double())
    scores = torch.randn(3, 4, 9, generator=rng).double()
    away = 0.4 * torch.randn(3, 4, generator=rng).double()
    found = edge_error(scores, table, away)
    for t in range(3):
        for e in range(4):
            p = scores[t, e].exp() / scores[t, e].exp().sum()
            below = max(n for n in range(9) if n == 0 or table[n] <= away[t, e])
            below = min(below, 7)
            share = float((away[t, e] - table[below]) / (table[below + 1] - table[below]))
            expected = -(1 - share) * math.log(p[below]) - share * math.log(p[below + 1])
            assert found[t, e].item() == pytest.approx(expected, abs=1e-12)


def test_the_best_distribution_has_the_edge_as_its_mean(rng):
    """Follow the gradient of FGL: the mean of the distribution arrives at the edge."""
    table = FDRConfig().distances(torch.zeros(1).double())
    away = torch.tensor([[-0.3, 0.02, 0.12, 0.45]]).double()
    scores = torch.zeros(1, 4, 33).double().requires_grad_()
    optimiser = torch.optim.Adam([scores], lr=0.3)
    for _ in range(400):
        optimiser.zero_grad()
        edge_error(scores, table, away).sum().backward()
        optimiser.step()
    torch.testing.assert_close(scores.softmax(-1) @ table, away, atol=2e-3, rtol=0)


# --- DDF ----------------------------------------------------------------------------------------


def test_the_divergence_and_its_balance_by_hand(rng):
    """Eq. 21.8."""
    mine, last = torch.randn(2, 2, 3, 4, 9, generator=rng).double().unbind(0)
    found = divergence(mine, last, temperature=2.0)
    error = torch.zeros(2, 3).double()
    for b in range(2):
        for q in range(3):
            for e in range(4):
                p, wanted = ((s[b, q, e] / 2).softmax(-1) for s in (mine, last))
                error[b, q] += 4 * float((wanted * (wanted / p).log()).sum()) / 4
    torch.testing.assert_close(found, error)

    matched = (torch.tensor([0, 1]), torch.tensor([2, 0]))
    rest = torch.stack([error[0, 0], error[0, 1], error[1, 1], error[1, 2]])
    chosen = torch.stack([error[0, 2], error[1, 0]])
    roots = (2**0.5, 4**0.5)
    expected = (roots[0] * chosen.mean() + roots[1] * rest.mean()) / sum(roots)
    torch.testing.assert_close(balanced(error, matched, roots), expected)


def test_the_last_layer_teaches_and_does_not_learn_from_it(rng):
    layers = some_layers(rng)
    criterion = DFINECriterionConfig().build()
    roots = roots_of(PAIRS, layers[-1])
    terms = criterion.edge_terms("x", layers[0], layers[-1], WANTED, PAIRS, 4.0, roots)
    terms["ddfx"].backward()
    assert layers[0].corner_logits.grad.abs().sum() > 0
    assert layers[-1].corner_logits.grad is None
    own = criterion.edge_terms("", layers[-1], layers[-1], WANTED, PAIRS, 4.0, roots)
    assert set(own) == {"fgl"}
    same = replace(layers[0], corner_logits=layers[-1].corner_logits)
    again = criterion.edge_terms("x", same, layers[-1], WANTED, PAIRS, 4.0, roots)
    assert again["ddfx"].item() == pytest.approx(0, abs=1e-12)


# --- against transformers -----------------------------------------------------------------------


def their_terms(layer, teacher, dtype=torch.float32):
    from transformers import DFineConfig
    from transformers.loss.loss_d_fine import DFineLoss

    outputs = {
        "pred_corners": layer.corner_logits.to(dtype).flatten(2),
        "ref_points": layer.start.boxes.to(dtype),
        "pred_boxes": layer.boxes.to(dtype),
        "teacher_corners": teacher.corner_logits.to(dtype).flatten(2),
        "teacher_logits": teacher.logits.to(dtype),
    }
    wanted = [{"boxes": boxes.to(dtype)} for boxes in WANTED.boxes]
    loss = DFineLoss(DFineConfig(num_labels=5)).to(dtype)
    return loss.loss_local(outputs, wanted, list(PAIRS), 4.0)


@pytest.mark.parametrize("index", [0, 1])
def test_both_losses_are_theirs_given_the_same_pairs(rng, index):
    pytest.importorskip("transformers", reason="transformers, the oracle, is not installed")
    layers = some_layers(rng)
    layer, teacher = layers[index], layers[-1]
    theirs = their_terms(layer, teacher)
    criterion = DFINECriterionConfig(fgl_weight=1.0, ddf_weight=1.0).build()
    roots = roots_of(PAIRS, teacher)
    ours = criterion.edge_terms("", layer, teacher, WANTED, PAIRS, 4.0, roots)
    assert theirs["loss_fgl"].item() == pytest.approx(ours["fgl"].item(), rel=1e-5)
    assert theirs["loss_ddf"].item() == pytest.approx(ours["ddf"].item(), rel=1e-5)
    for ours_, theirs_ in (("fgl", "loss_fgl"), ("ddf", "loss_ddf")):
        (a,) = torch.autograd.grad(ours[ours_], layer.corner_logits, retain_graph=True)
        (b,) = torch.autograd.grad(theirs[theirs_], layer.corner_logits, retain_graph=True)
        assert b.abs().max() > 1e-4
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)
    wrong = criterion.edge_terms("", layer, teacher, WANTED, PAIRS, 4.04, roots)
    assert wrong["fgl"].item() != pytest.approx(theirs["loss_fgl"].item(), rel=1e-3)


def test_theirs_fails_in_fp64(rng):
    """What the introduction says; when this passes, compare in fp64."""
    pytest.importorskip("transformers", reason="transformers, the oracle, is not installed")
    layers = some_layers(rng)
    with pytest.raises(RuntimeError, match="dtype"):
        their_terms(layers[0], layers[-1], torch.float64)


def test_fgl_is_weighted_by_the_iou_and_divided_by_the_pairs(rng):
    layer = some_layers(rng)[0]
    criterion = DFINECriterionConfig(fgl_weight=1.0).build()
    found = criterion.edge_terms("", layer, layer, WANTED, PAIRS, 4.0, (2.0, 3.0))["fgl"]
    expected = 0.0
    for picture, (queries, objects) in enumerate(PAIRS):
        for q, t in zip(queries.tolist(), objects.tolist(), strict=True):
            wanted = WANTED.boxes[picture][t].double()
            corners = (xyxy_from_cxcywh(b)[None] for b in (layer.boxes[picture, q], wanted))
            away = edges_away(layer.start.boxes[picture, q], wanted)
            error = edge_error(layer.corner_logits[picture, q][None], layer.distances, away[None])
            expected += float(iou(*corners) * error.sum()) / 4
    assert found.item() == pytest.approx(expected, rel=1e-12)


# --- one matching for all boxes -----------------------------------------------------------------


def assignment(*pictures):
    """Each picture: {query: object}."""
    queries = tuple(torch.tensor(list(p), dtype=torch.long) for p in pictures)
    objects = tuple(torch.tensor(list(p.values()), dtype=torch.long) for p in pictures)
    return Assignment(queries, objects)


def as_dicts(pairs):
    return [dict(zip(q.tolist(), t.tolist(), strict=True)) for q, t in pairs]


def test_a_query_keeps_its_most_frequent_object():
    """Eq. 21.9."""
    layers = [
        assignment({1: 0, 5: 1}, {}),
        assignment({1: 0, 7: 1}, {2: 0}),
        assignment({1: 1, 5: 0}, {3: 0}),
        assignment({5: 1, 4: 0}, {2: 0}),
    ]
    assert as_dicts(union(layers)) == [{1: 0, 5: 1, 7: 1, 4: 0}, {2: 0, 3: 0}]


def test_a_tie_goes_to_the_lower_object():
    layers = [assignment({3: 2}), assignment({3: 1})]
    assert as_dicts(union(layers)) == as_dicts(union(layers[::-1])) == [{3: 1}]


def test_pictures_without_objects_have_an_empty_union():
    assert as_dicts(union([assignment({}, {}), assignment({}, {})])) == [{}, {}]


# --- the whole criterion ------------------------------------------------------------------------


def trained(cfg=SMALL_DFINE, found=None):
    torch.manual_seed(5)
    model = shaken(cfg.build()).double().train()
    found = targets(3, 2) if found is None else found
    prediction = model(pictures().double(), found)
    return model, prediction, cfg.criterion.build()(prediction, found)


def test_the_terms_are_those_of_the_chapters_table():
    _, _, terms = trained()
    everywhere = ["", ".layer0", ".layer1", ".start", ".proposals"]
    denoising = [f".denoising{i}" for i in range(3)]
    names = {k + s for k in ("class", "l1", "giou") for s in everywhere + denoising}
    names |= {k + ".denoising_start" for k in ("class", "l1", "giou")}
    names |= {f"fgl{s}" for s in ["", ".layer0", ".layer1", *denoising]}
    names |= {f"ddf{s}" for s in [".layer0", ".layer1", *denoising[:2]]}
    assert set(terms) == names
    assert all(t.isfinite() and t > 0 for t in terms.values())


def test_scores_keep_their_own_matching_and_boxes_share_one():
    torch.manual_seed(5)
    model = shaken(SMALL_DFINE.build()).double().train()
    found = targets(3, 2)
    prediction = model(pictures().double(), found)
    joint = SMALL_DFINE.criterion.build()(prediction, found)
    alone = replace_at(SMALL_DFINE, "criterion.one_matching", False).criterion.build()
    apart = alone(prediction, found)
    assert all(torch.equal(joint[n], apart[n]) for n in joint if n.startswith("class"))
    boxes = [n for n in joint if n.startswith(("l1", "giou", "fgl")) and "denoising" not in n]
    assert any(not torch.equal(joint[n], apart[n]) for n in boxes)
    assert all(torch.equal(joint[n], apart[n]) for n in joint if n.startswith("fgl.denoising"))


def test_everything_that_learns_gets_a_gradient():
    model, _, terms = trained()
    sum(terms.values()).backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None]
    assert silent == []


def test_a_batch_without_objects_trains_scores_and_nothing_else_is_nan():
    model, _, terms = trained(found=targets(0, 0))
    assert all(t.isfinite() for t in terms.values())
    assert all(t == 0 for n, t in terms.items() if n.startswith(("l1", "giou", "fgl")))
    assert all(t == 0 for n, t in terms.items() if "denoising" in n)
    sum(terms.values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_a_decoder_without_distributions_is_refused():
    plain = LayerPrediction(torch.zeros(1, 2, 3), torch.rand(1, 2, 4))
    with pytest.raises(TypeError, match="FDRConfig"):
        edges((plain,))


@pytest.mark.parametrize("changes", [{"fgl_weight": -1.0}, {"temperature": 0.0}], ids=str)
def test_impossible_weights_are_refused(changes):
    with pytest.raises(ConfigError, match="criterion"):
        DFINECriterionConfig(**changes)
