"""Matching: the cheapest assignment there is, found on numbers a reader can check."""

from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rtdetr_lab.boxes import paired_giou, xyxy_from_cxcywh
from rtdetr_lab.errors import ConfigError, TrainingError
from rtdetr_lab.matching import FocalCost, MatcherConfig, SoftmaxCost, cheapest
from rtdetr_lab.structures import LayerPrediction, Targets


def random_layer(num_pictures, num_queries, num_classes=4, dtype=torch.float32):
    logits = 2 * torch.randn(num_pictures, num_queries, num_classes, dtype=dtype)
    boxes = torch.rand(num_pictures, num_queries, 4, dtype=dtype) * 0.4 + 0.2
    return LayerPrediction(logits, boxes)


def random_targets(*counts, num_classes=4, dtype=torch.float32):
    return Targets.of(
        {
            "labels": torch.randint(num_classes, (count,)),
            "boxes": torch.rand(count, 4, dtype=dtype) * 0.4 + 0.2,
        }
        for count in counts
    )


def test_two_objects_get_the_pair_of_queries_that_is_cheapest_together():
    """Query 0 is best for both; giving it to object 1 and query 1 to object 0 costs 1 + 3 = 4,
    the greedy choice 0 + 9."""
    queries, objects = cheapest(torch.tensor([[0.0, 1.0], [3.0, 9.0], [8.0, 9.5]]))
    assert list(zip(queries.tolist(), objects.tolist(), strict=True)) == [(0, 1), (1, 0)]


@given(num_queries=st.integers(1, 6), num_objects=st.integers(0, 5), seed=st.integers(0, 10**6))
@settings(max_examples=60)
def test_no_permutation_is_cheaper(num_queries, num_objects, seed):
    """Eq. 03.1"""
    torch.manual_seed(seed)
    layer, targets = random_layer(1, num_queries), random_targets(num_objects)
    matcher = MatcherConfig().build()
    ((queries, objects),) = matcher(layer, targets)
    cost = matcher.cost_matrix(layer.logits[0], layer.boxes[0], targets.labels[0], targets.boxes[0])

    pairs = min(num_queries, num_objects)
    assert len(set(queries.tolist())) == len(set(objects.tolist())) == pairs
    tall = cost if num_queries >= num_objects else cost.T
    chosen = permutations(range(max(cost.shape)), pairs)
    by_hand = min(sum(tall[q, t].item() for t, q in enumerate(some)) for some in chosen)
    assert cost[queries, objects].sum().item() == pytest.approx(by_hand, abs=1e-4)


def test_the_cost_is_the_weighted_sum_of_what_a_loop_computes():
    """Eq. 03.2, and Eq. 03.3 for the class."""
    layer, targets = random_layer(1, 3, dtype=torch.float64), random_targets(2, dtype=torch.float64)
    cfg = MatcherConfig(class_cost=1.5, l1_cost=3.0, giou_cost=0.7)
    (logits,), (boxes,) = layer.logits, layer.boxes
    (labels,), (wanted,) = targets.labels, targets.boxes
    cost = cfg.build().cost_matrix(logits, boxes, labels, wanted)
    for q in range(3):
        for t in range(2):
            p = logits[q, labels[t]].sigmoid()
            yes, no = -0.25 * (1 - p) ** 2 * p.log(), -0.75 * p**2 * (1 - p).log()
            corners, wanted_corners = xyxy_from_cxcywh(boxes[q]), xyxy_from_cxcywh(wanted[t])
            by_hand = 1.5 * (yes - no) + 3.0 * (boxes[q] - wanted[t]).abs().sum()
            by_hand = by_hand - 0.7 * paired_giou(corners, wanted_corners)
            torch.testing.assert_close(cost[q, t], by_hand, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("classification", [FocalCost(), FocalCost(0.5, 1.0), SoftmaxCost()])
def test_a_higher_score_at_the_objects_class_is_always_cheaper(classification):
    logits = torch.zeros(21, 3)
    logits[:, 1] = torch.linspace(-8, 8, 21)
    (cost,) = classification(logits, torch.tensor([1])).T
    assert (cost.diff() < 0).all()
    assert torch.isfinite(classification(torch.tensor([[0.0, 1e4, -1e4]]), torch.arange(3))).all()


def test_softmax_cost_counts_no_object_as_a_class():
    logits = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 9.0]])
    cost = SoftmaxCost()(logits, torch.tensor([0, 1]))
    assert cost[0].tolist() == pytest.approx([-1 / 3] * 2)
    assert cost[1].abs().max() < 1e-3


def test_pictures_are_matched_apart():
    """A batch of two is two batches of one: no picture sees the other's objects."""
    layer, targets = random_layer(2, 8), random_targets(3, 5)
    matcher = MatcherConfig().build()
    together = list(matcher(layer, targets))
    for i in range(2):
        alone = LayerPrediction(layer.logits[i : i + 1], layer.boxes[i : i + 1])
        ((queries, objects),) = matcher(
            alone, Targets(targets.labels[i : i + 1], targets.boxes[i : i + 1])
        )
        assert torch.equal(together[i][0], queries)
        assert torch.equal(together[i][1], objects)


def test_the_order_of_objects_does_not_matter():
    layer, targets = random_layer(1, 8), random_targets(5)
    matcher, order = MatcherConfig().build(), torch.randperm(5)
    ((queries, objects),) = matcher(layer, targets)
    shuffled = Targets((targets.labels[0][order],), (targets.boxes[0][order],))
    ((again, places),) = matcher(layer, shuffled)
    assert torch.equal(again, queries)
    assert torch.equal(order[places], objects)


def test_pictures_without_objects_are_matched_with_nothing():
    assignment = MatcherConfig().build()(random_layer(3, 4), random_targets(0, 2, 0))
    assert [len(q) for q, _ in assignment] == [0, 2, 0]
    picture, query = assignment.flat
    assert picture.tolist() == [1, 1]
    assert query.dtype == torch.long


def test_of_more_objects_than_queries_the_cheapest_are_answered():
    ((queries, objects),) = MatcherConfig().build()(random_layer(1, 3), random_targets(7))
    assert queries.tolist() == [0, 1, 2]
    assert len(set(objects.tolist())) == 3


def test_nothing_is_differentiated_through_the_matching():
    layer = random_layer(1, 4)
    layer.logits.requires_grad_()
    ((queries, _),) = MatcherConfig().build()(layer, random_targets(2))
    assert not queries.requires_grad


def test_half_precision_is_matched_in_single():
    layer, targets = random_layer(1, 6), random_targets(3)
    half = LayerPrediction(layer.logits.half(), layer.boxes.half())
    cost = MatcherConfig().build().cost_matrix(
        half.logits[0], half.boxes[0], targets.labels[0], targets.boxes[0]
    )  # fmt: skip
    assert cost.dtype == torch.float32


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", ["logits", "boxes"])
def test_a_prediction_that_is_not_finite_is_named(name, value):
    layer = random_layer(3, 6)
    getattr(layer, name)[1, 4, :] = value
    if name == "logits" and value == torch.inf:
        layer.logits[1, 4, :] = torch.nan
    with pytest.raises(TrainingError, match=f"picture 1 .*{name} of 1 queries, query 4"):
        MatcherConfig().build()(layer, random_targets(1, 2, 3))


@pytest.mark.parametrize("costs", [(0.0, 0.0, 0.0), (-1.0, 5.0, 2.0)])
def test_costs_that_rank_nothing_are_refused(costs):
    with pytest.raises(ConfigError, match="matcher"):
        MatcherConfig(*costs)


@pytest.mark.parametrize("only", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
def test_every_cost_alone_finds_the_perfect_answer(only):
    targets = random_targets(4)
    logits = torch.full((1, 4, 4), -5.0)
    labels = targets.labels[0] if only[0] == 0 else torch.arange(4)
    logits[0, torch.arange(4), labels] = 5.0
    targets = Targets((labels,), targets.boxes)
    layer = LayerPrediction(logits, targets.boxes[0][None])
    ((queries, objects),) = MatcherConfig(*only).build()(layer, targets)
    assert torch.equal(queries, objects)
