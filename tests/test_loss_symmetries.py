"""Costs, matches and losses do not know orders, sides, or how a batch was cut up."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from symmetries import generator, moved_boxes, moves, quick, seeds, shuffled

from rtdetr_lab.criterion import CriterionConfig, matched_layers
from rtdetr_lab.losses import BinaryCrossEntropy, Focal, Varifocal
from rtdetr_lab.matching import MatcherConfig
from rtdetr_lab.structures import LayerPrediction, Prediction, Proposals, Targets, ranks

NUM_CLASSES, NUM_QUERIES, COUNTS = 4, 7, (3, 0, 5, 1)
criteria = st.sampled_from([Varifocal(), Focal(), BinaryCrossEntropy()])


def boxes_of(count, draw):
    return 0.15 + 0.5 * torch.rand(*count, 4, generator=draw, dtype=torch.float64)


def answers(seed, pictures=4):
    """Three layers and proposals, in double precision."""
    draw = generator(seed)
    shape = (pictures, NUM_QUERIES)
    logits = [torch.randn(*shape, NUM_CLASSES, generator=draw).double() for _ in range(4)]
    layers = [LayerPrediction(one, boxes_of(shape, draw)) for one in logits]
    return prediction_of(layers)


def prediction_of(layers):
    """The last of `layers` is that of the proposals."""
    *own, first = layers
    index = torch.zeros(first.logits.shape[:2], dtype=torch.long)
    proposals = Proposals(index, first.logits, first.boxes)
    return Prediction(own[-1].logits, own[-1].boxes, tuple(own), proposals)


def changed(prediction, change):
    """The prediction with every layer changed alike."""
    layers = [*prediction.layers, prediction.proposals.layer]
    return prediction_of([LayerPrediction(*change(one.logits, one.boxes)) for one in layers])


def objects(seed, counts=COUNTS):
    draw = generator(seed + 1)
    return [
        {
            "labels": torch.randint(NUM_CLASSES, (count,), generator=draw),
            "boxes": boxes_of((count,), draw),
        }
        for count in counts
    ]


def loss(prediction, rows, kind):
    return CriterionConfig(classification=kind).build()(prediction, Targets.of(rows))


def same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-10, atol=1e-12, msg=name)


@quick
@given(seeds, seeds, criteria)
def test_the_order_of_queries_objects_pictures_and_classes_costs_nothing(seed, other, kind):
    prediction, rows = answers(seed), objects(seed)
    before = loss(prediction, rows, kind)
    queries, pictures = shuffled(NUM_QUERIES, other), shuffled(len(rows), other)
    to = shuffled(NUM_CLASSES, other)
    back = to.argsort()
    mixed = changed(
        prediction, lambda x, b: (x[pictures][:, queries][..., back], b[pictures][:, queries])
    )
    rows = [rows[i] for i in pictures]
    orders = [shuffled(len(row["labels"]), other) for row in rows]
    rows = [
        {"labels": to[row["labels"][order]], "boxes": row["boxes"][order]}
        for row, order in zip(rows, orders, strict=True)
    ]
    same(before, loss(mixed, rows, kind))


@quick
@given(seeds, moves, criteria)
def test_turned_and_mirrored_pictures_cost_the_same(seed, move, kind):
    prediction, rows = answers(seed), objects(seed)
    turned = changed(prediction, lambda logits, boxes: (logits, moved_boxes(boxes, move)))
    others = [replace_boxes(row, moved_boxes(row["boxes"], move)) for row in rows]
    same(loss(prediction, rows, kind), loss(turned, others, kind))


def replace_boxes(row, boxes):
    return {"labels": row["labels"], "boxes": boxes}


@quick
@given(seeds, criteria)
def test_a_batch_costs_the_sum_of_its_pictures(seed, kind):
    prediction, rows = answers(seed), objects(seed)
    total = sum(len(row["labels"]) for row in rows)
    criterion = CriterionConfig(classification=kind).build()
    whole = criterion(prediction, Targets.of(rows))
    parts = []
    for i, row in enumerate(rows):
        one = changed(prediction, lambda x, b, i=i: (x[i : i + 1], b[i : i + 1]))
        targets = Targets.of([row])
        layers = {name: criterion.matcher(layer, targets) for name, layer in matched_layers(one)}
        parts.append(criterion.terms(one, targets, layers, float(total)))
    same(whole, {name: sum(part[name] for part in parts) for name in whole})


@quick
@given(seeds, st.integers(1, 3), criteria)
def test_the_mean_over_two_ranks_is_what_one_rank_pays_per_half_a_batch(seed, cut, kind):
    """Gradients are averaged over ranks. So the mean of what the ranks pay is half of the sum over
    the whole batch, divided by the mean number of objects of a rank."""
    prediction, rows = answers(seed), objects(seed)
    whole = loss(prediction, rows, kind)
    counts = [len(row["labels"]) for row in rows]
    halves = (slice(0, cut), slice(cut, None))
    paid = []
    for mine in halves:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ranks, "several", lambda: True)
            patch.setattr(torch.distributed, "get_world_size", lambda: 2)
            patch.setattr(torch.distributed, "all_reduce", lambda t: t.fill_(sum(counts)))
            part = changed(prediction, lambda x, b, mine=mine: (x[mine], b[mine]))
            paid.append(loss(part, rows[mine], kind))
    same(whole, {name: (paid[0][name] + paid[1][name]) / 2 for name in whole})


@quick
@given(seeds, seeds, moves)
def test_a_match_follows_its_queries_and_its_objects(seed, other, move):
    prediction, (row, *_) = answers(seed, 1), objects(seed, (5,))
    matcher = MatcherConfig().build()
    layer, queries, order = prediction.layers[0], shuffled(NUM_QUERIES, other), shuffled(5, other)
    cost = matcher.cost_matrix(layer.logits[0], layer.boxes[0], row["labels"], row["boxes"])
    mixed = LayerPrediction(layer.logits[:, queries], moved_boxes(layer.boxes[:, queries], move))
    new = {"labels": row["labels"][order], "boxes": moved_boxes(row["boxes"][order], move)}
    again = matcher.cost_matrix(mixed.logits[0], mixed.boxes[0], new["labels"], new["boxes"])
    torch.testing.assert_close(again, cost[queries][:, order], rtol=1e-10, atol=1e-12)
    before, after = matcher(layer, Targets.of([row])), matcher(mixed, Targets.of([new]))
    pairs = set(zip(before.queries[0].tolist(), before.objects[0].tolist(), strict=True))
    back = zip(queries[after.queries[0]].tolist(), order[after.objects[0]].tolist(), strict=True)
    assert set(back) == pairs
