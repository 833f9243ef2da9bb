"""Thresholds: precision, recall and F1 by hand, and against COCO's curves."""

import numpy as np
import pytest
import torch
from coco_sets import random_set

from rtdetr_lab.data.batch import Truth
from rtdetr_lab.evaluation.average_precision import AREAS, judge_all
from rtdetr_lab.evaluation.thresholds import GRID, Marks, calibration_of, curves_of
from rtdetr_lab.images.postprocess import Found


def box(at):
    return [at, 0.0, at + 10.0, 20.0]


def truth(objects, crowd=()):
    """Objects as (label, place); `crowd` are indices."""
    labels = torch.tensor([label for label, _ in objects], dtype=torch.int64)
    boxes = torch.tensor([box(at) for _, at in objects]).reshape(-1, 4)
    is_crowd = torch.tensor([n in crowd for n in range(len(objects))], dtype=torch.bool)
    return Truth(1, (40, 900), labels, boxes, torch.full((len(objects),), 200.0), is_crowd)


def found(rows):
    """Detections as (label, place, score)."""
    labels = torch.tensor([row[0] for row in rows], dtype=torch.int64)
    boxes = torch.tensor([box(row[1]) for row in rows]).reshape(-1, 4)
    scores = torch.tensor([row[2] for row in rows], dtype=torch.float32)
    return Found(boxes, scores, labels, torch.arange(len(rows)))


def at(curves, threshold, k):
    place = int(np.searchsorted(GRID, threshold))
    values = (curves.precision[place, k], curves.recall[place, k], curves.F1[place, k])
    return tuple(round(float(value), 4) for value in values)


@pytest.fixture
def curves():
    """Two pictures, three classes; the third has no object."""
    objects = [truth([(0, 0), (0, 100), (1, 200)]), truth([(0, 0), (1, 300)])]
    answers = [
        found([(0, 0, 0.9), (0, 1, 0.85), (1, 200, 0.3), (2, 500, 0.95)]),
        found([(0, 0, 0.4), (0, 700, 0.6), (1, 300, 0.8), (1, 600, 0.25)]),
    ]
    return curves_of([Marks.of(objects, answers, 3)], ["cat", "dog", "elk"])


def test_precision_recall_and_f1_are_those_by_hand(curves):
    assert at(curves, 0.87, 0) == (1.0, 0.3333, 0.5)
    assert at(curves, 0.5, 0) == (0.3333, 0.3333, 0.3333)
    assert at(curves, 0.1, 0) == (0.5, 0.6667, 0.5714)
    assert at(curves, 0.5, 1) == (1.0, 0.5, 0.6667)
    assert at(curves, 0.27, 1) == (1.0, 1.0, 1.0)
    assert at(curves, 0.2, 1) == (0.6667, 1.0, 0.8)
    assert at(curves, 0.99, 0) == (0.0, 0.0, 0.0)


def test_the_best_threshold_is_in_the_middle_of_the_best_ones(curves):
    cat, dog, elk = curves.best
    assert (dog.threshold, dog.F1) == (0.27, 1.0)  # from 0.25 to 0.30
    assert cat.F1 == pytest.approx(4 / 7)
    assert cat.threshold == pytest.approx(0.21)  # from 0.02 to 0.40
    assert (elk.threshold, elk.precision, elk.recall, elk.F1) == (-1, -1, -1, -1)
    assert curves.recommended == pytest.approx(0.27)


def test_calibration_by_hand(curves):
    """Right: .9, .3, .4 (cats and dogs of the first and second picture) and .8."""
    bins = curves.calibration
    assert bins.count.tolist() == [0, 0, 1, 1, 1, 0, 1, 0, 3, 1]  # 0.9 is less in single precision
    np.testing.assert_allclose(bins.score[[2, 8, 9]], [0.25, 0.85, 0.95], atol=1e-7)
    np.testing.assert_allclose(bins.right, [0, 0, 0, 1, 1, 0, 0, 0, 2 / 3, 0])
    gaps = 0.25 + 0.7 + 0.6 + 0.6 + 3 * (0.85 - 2 / 3) + 0.95
    assert bins.error == pytest.approx(gaps / 8, abs=1e-7)


def test_scores_that_are_chances_have_no_error_and_others_have_theirs():
    rng = np.random.default_rng(4)
    scores = rng.uniform(0.03, 1, 40_000)
    labels, objects = np.zeros(len(scores), np.int64), np.array([9])
    for power, low, high in ((1.0, 0.0, 0.01), (2.0, 0.14, 0.19)):
        right = rng.random(len(scores)) < scores**power
        halves = [Marks(scores[i::2], labels[i::2], right[i::2], objects) for i in (0, 1)]
        assert low <= calibration_of(halves).error <= high
    full = Marks(np.ones(3), labels[:3], np.array([True, False, True]), objects)
    assert calibration_of([full]).count[-1] == 3
    assert calibration_of([full]).error == pytest.approx(1 / 3)
    assert calibration_of([]).error is None


def test_a_threshold_is_recommended_only_where_something_is_found():
    nothing = [Marks.of([truth([(0, 0)])], [found([])], 2)]
    assert curves_of(nothing, ["cat", "dog"]).recommended is None
    assert [point.F1 for point in curves_of(nothing, ["cat", "dog"]).best] == [0, -1]
    empty = [Marks.of([truth([])], [found([(0, 0, 0.9)])], 2)]
    assert curves_of(empty, ["cat", "dog"]).recommended is None
    assert curves_of([], ["cat"]).recommended is None


def test_detections_in_a_crowd_do_not_count():
    one = Marks.of([truth([(0, 0), (0, 100)], crowd=[1])], [found([(0, 0, 0.7), (0, 100, 0.9)])], 1)
    assert at(curves_of([one], ["cat"]), 0.5, 0) == (1.0, 1.0, 1.0)


def test_pictures_may_come_in_any_batches_and_order():
    objects = [truth([(0, 0), (1, 90)]), truth([(1, 0)]), truth([])]
    answers = [
        found([(0, 0, 0.31), (1, 90, 0.77)]),
        found([(1, 0, 0.55), (1, 50, 0.6)]),
        found([(0, 9, 0.2)]),
    ]
    whole = curves_of([Marks.of(objects, answers, 2)], "ab")
    singles = [Marks.of([objects[i]], [answers[i]], 2) for i in (2, 0, 1)]
    for name in ("precision", "recall", "F1"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(curves_of(singles, "ab"), name))


@pytest.mark.parametrize("seed", range(4))
def test_hits_are_those_of_average_precision(seed):
    """On random sets with ties and crowds; areas do not matter here."""
    tree, rows = random_set(seed, pictures=8)
    truths, answers = [], []
    for image in tree["images"]:
        mine = [a for a in tree["annotations"] if a["image_id"] == image["id"]]
        theirs = [r for r in rows if r["image_id"] == image["id"]]
        wanted = torch.tensor([a["bbox"] for a in mine], dtype=torch.float64).reshape(-1, 4)
        boxes = torch.tensor([r["bbox"] for r in theirs], dtype=torch.float64).reshape(-1, 4)
        for each in (wanted, boxes):
            each[:, 2:] += each[:, :2]
        labels = [torch.tensor([r["category_id"] - 1 for r in e]) for e in (mine, theirs)]
        crowd = torch.tensor([bool(a["iscrowd"]) for a in mine], dtype=torch.bool)
        areas = torch.tensor([a["area"] for a in mine])
        truths.append(Truth(image["id"], (240, 320), labels[0].long(), wanted, areas, crowd))
        scores = torch.tensor([r["score"] for r in theirs], dtype=torch.float64)
        answers.append(Found(boxes, scores, labels[1].long(), torch.arange(len(theirs))))
    curves = curves_of([Marks.of(truths, answers, 3)], "abc")
    for k in range(3):
        pictures = judge_all(tree, rows, k + 1, 0.5, AREAS["all"], 100)
        right = np.concatenate([p.scores[p.is_right] for p in pictures])
        objects = sum(p.num_objects for p in pictures)
        expected = (right[:, None] > GRID).sum(0) / objects
        np.testing.assert_allclose(curves.recall[:, k], expected, atol=1e-12)
