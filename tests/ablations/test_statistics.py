"""Numbers of a study against cases whose answer is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import t

from rtdetr_lab.ablations.resample import average_precision, judge, picture_weights, ranked_by_class
from rtdetr_lab.ablations.shipped import names, shipped
from rtdetr_lab.ablations.statistics import half_width, holm, paired_difference, verdict
from rtdetr_lab.data.batch import Sample, Truth
from rtdetr_lab.errors import ConfigError
from rtdetr_lab.evaluation.coco import coco_metrics, coco_truth
from rtdetr_lab.evaluation.evaluate import coco_detections
from rtdetr_lab.images.postprocess import Found

CLASSES = 3


def scene(rng, image_id, with_crowd=False):
    """Some objects, and detections that find most of them more or less well."""
    count = int(rng.integers(0, 5))
    corners = rng.uniform(0, 60, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(8, 40, (count, 2))], axis=1)
    labels = rng.integers(0, CLASSES, count)
    crowd = rng.random(count) < (0.3 if with_crowd else 0)
    truth = Truth(
        image_id,
        (100, 100),
        torch.tensor(labels),
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.full((count,), 500.0),
        torch.tensor(crowd),
    )
    guess = np.concatenate([boxes + rng.normal(0, 3, boxes.shape), rng.uniform(0, 90, (4, 4))])
    guess[:, 2:] = np.maximum(guess[:, 2:], guess[:, :2] + 1)
    said = np.concatenate([labels, rng.integers(0, CLASSES, 4)])
    order = np.argsort(-rng.random(len(said)))
    found = Found(
        torch.tensor(guess[order], dtype=torch.float32),
        torch.linspace(0.99, 0.01, len(said)),
        torch.tensor(said[order]),
        torch.arange(len(said)),
    )
    return truth, found


def coco_ap(truths, founds):
    ids = tuple(range(1, CLASSES + 1))
    detections = [
        d
        for truth, found in zip(truths, founds, strict=True)
        for d in coco_detections(found, truth.image_id, ids)
    ]
    return coco_metrics(coco_truth(truths, ["a", "b", "c"], ids), detections).AP


def nested_interval(per_seed, replicates, rng, level=0.95):
    """Percentiles of seeds resampled within resampled pictures: with few seeds it is too narrow.

    `replicates` are differences per seed on the picture replicates."""
    n, count = replicates.shape
    seeds = rng.integers(n, size=(count, n))
    means = np.array([replicates[chosen, r].mean() for r, chosen in enumerate(seeds)])
    means += np.mean(per_seed) - replicates.mean()
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@pytest.mark.parametrize("with_crowd", [False, True])
def test_with_every_picture_once_it_is_cocos_ap(with_crowd):
    rng = np.random.default_rng(3)
    truths, founds = zip(*(scene(rng, i, with_crowd) for i in range(30)), strict=True)
    ours = average_precision(ranked_by_class(truths, founds, CLASSES), np.ones((1, 30), int))
    assert ours[0] == pytest.approx(coco_ap(truths, founds), abs=1e-9)


def test_a_weight_is_how_often_a_picture_is_there():
    rng = np.random.default_rng(4)
    truths, founds = zip(*(scene(rng, i) for i in range(12)), strict=True)
    weights = np.array([[0, 3, 1, 2, 0, 1, 1, 0, 2, 1, 0, 1]])
    ours = average_precision(ranked_by_class(truths, founds, CLASSES), weights)
    chosen = [i for i, w in enumerate(weights[0]) for _ in range(w)]
    copies = [
        (Truth(n, *[getattr(truths[i], f) for f in FIELDS]), founds[i])
        for n, i in enumerate(chosen)
    ]
    assert ours[0] == pytest.approx(coco_ap(*zip(*copies, strict=True)), abs=5e-3)


def boxed(boxes):
    """The truth of a picture with these objects, or what was found in it, best first."""
    boxes, count = torch.tensor(boxes).float(), len(boxes)
    labels = torch.zeros(count).long()
    truth = Truth(0, (100, 100), labels, boxes, torch.full((count,), 500.0), labels > 0)
    return truth, Found(boxes, torch.linspace(0.9, 0.1, count), labels, torch.arange(count))


def test_an_object_behind_a_hundred_better_false_alarms_is_not_found():
    (truth, _), (_, found) = boxed([[0, 0, 9, 9]]), boxed([[50, 50, 90, 90]] * 120 + [[0, 0, 9, 9]])
    ours = average_precision(ranked_by_class([truth], [found], CLASSES), np.ones((1, 1), int))
    assert ours[0] == coco_ap([truth], [found]) == 0


def test_false_alarms_of_another_class_take_no_place_among_the_hundred():
    (truth, _), (_, found) = boxed([[0, 0, 9, 9]]), boxed([[50, 50, 90, 90]] * 120 + [[0, 0, 9, 9]])
    found = replace(found, labels=(torch.arange(121) < 120).long())
    ours = average_precision(ranked_by_class([truth], [found], CLASSES), np.ones((1, 1), int))
    assert ours[0] == coco_ap([truth], [found]) == pytest.approx(1)


def test_of_two_objects_that_overlap_equally_the_last_is_taken_as_in_coco():
    """The first detection fits both by 0.6, the second only the first."""
    truth, _ = boxed([[0, 0, 10, 6], [0, 4, 10, 10]])
    _, found = boxed([[0, 0, 10, 10], [0, 0, 10, 6]])
    ours = average_precision(ranked_by_class([truth], [found], CLASSES), np.ones((1, 1), int))
    assert ours[0] == pytest.approx(coco_ap([truth], [found]), abs=1e-9)


class Scenes:
    """A data set of scenes that were drawn before."""

    names, category_ids = ("a", "b", "c"), (2, 5, 9)

    def __init__(self, truths):
        self.truths = truths

    def __len__(self):
        return len(self.truths)

    def __getitem__(self, index):
        return Sample.of(torch.zeros(3, 100, 100, dtype=torch.uint8), self.truths[index])


def test_a_run_is_judged_on_all_pictures_and_all_classes(monkeypatch):
    """Batches hold 16 pictures, so the last of 21 is short."""
    rng = np.random.default_rng(6)
    truths, founds = zip(*(scene(rng, 100 - i) for i in range(21)), strict=True)
    by_id = {truth.image_id: found for truth, found in zip(truths, founds, strict=True)}
    answer = lambda model, samples: [by_id[s.image_id] for s in samples]  # noqa: E731
    monkeypatch.setattr("rtdetr_lab.ablations.resample.detect", answer)
    scores = judge(torch.nn.Identity(), Scenes(truths))
    weights = picture_weights(21, len(scores["resampled"]))
    redrawn = average_precision(ranked_by_class(truths, founds, CLASSES), weights)
    assert scores["resampled"] == pytest.approx(redrawn.tolist(), abs=1e-6)
    assert scores["AP"] == pytest.approx(coco_ap(truths, founds), abs=1e-6)


FIELDS = ("size", "labels", "boxes_xyxy", "areas", "is_crowd")


def test_all_runs_are_judged_on_the_same_draws():
    weights = picture_weights(50, 20)
    assert (weights == picture_weights(50, 20)).all()
    assert (weights.sum(1) == 50).all()
    assert len({tuple(w) for w in weights}) == 20


def simulated(rng, seeds=3, pictures=60, replicates=200, by_seed=0.02, by_picture=0.15):
    """Differences whose truth is 0: a part of each seed, a part of each picture."""
    of_seed = rng.normal(0, by_seed, seeds)
    of_picture = rng.normal(0, by_picture, pictures) + rng.normal(0, 0.02, (seeds, pictures))
    per_seed = of_seed + of_picture.mean(1)
    weights = rng.multinomial(pictures, np.full(pictures, 1 / pictures), replicates) / pictures
    return per_seed, of_seed[:, None] + of_picture @ weights.T


def welch_interval(per_seed, replicates, pictures):
    """One quantile for the sum, degrees of freedom after Welch and Satterthwaite."""
    n = len(per_seed)
    seeds, alone = per_seed.var(ddof=1) / n, replicates.mean(0).var(ddof=1)
    freedom = (seeds + alone) ** 2 / (seeds**2 / (n - 1) + alone**2 / (pictures - 1))
    half = t.ppf(0.975, freedom) * (seeds + alone) ** 0.5
    return per_seed.mean() - half, per_seed.mean() + half


@pytest.mark.parametrize("seeds", [2, 3])
@pytest.mark.parametrize("by_seed", [0.005, 0.02, 0.05])
def test_the_interval_covers_the_truth_as_often_as_it_says_and_others_do_not(seeds, by_seed):
    rng, rounds = np.random.default_rng(5), 400
    covers = {"ours": 0, "welch": 0, "nested": 0}
    for _ in range(rounds):
        per_seed, replicates = simulated(rng, seeds=seeds, by_seed=by_seed)
        zeros = np.zeros_like(replicates)
        d = paired_difference(list(per_seed), [0.0] * seeds, replicates, zeros, num_pictures=60)
        found = {"ours": (d.low, d.high), "welch": welch_interval(per_seed, replicates, 60)}
        found["nested"] = nested_interval(list(per_seed), replicates, rng)
        for name, (low, high) in found.items():
            covers[name] += low <= 0 <= high
    assert 0.94 <= covers["ours"] / rounds <= 0.995
    if by_seed > 0.02:
        assert covers["nested"] / rounds < 0.9, "a few seeds cannot be resampled"
    if (seeds, by_seed) == (2, 0.05):
        assert covers["welch"] / rounds < 0.92, "two seeds that agree by chance are not certain"


@pytest.mark.parametrize("seeds", [2, 3])
def test_the_components_of_the_shipped_studies_are_covered_too(seeds):
    """Spread of seeds and of pictures as these studies found them."""
    rng, rounds, covered = np.random.default_rng(8), 200, []
    found = [e.difference for name in names() for e in shipped(name).entries if e.difference]
    for each in found:
        (of_seeds, freedom), (of_pictures, pictures) = each.parts
        spread = (of_seeds * (freedom + 1)) ** 0.5
        shift = rng.normal(0, of_pictures**0.5, rounds)
        drawn = rng.normal(0, spread, (rounds, seeds)) + shift[:, None]
        other = of_pictures * rng.chisquare(pictures, rounds) / pictures
        for d, variance in zip(drawn, other, strict=True):
            parts = ((d.var(ddof=1) / seeds, seeds - 1), (variance, pictures))
            covered.append(abs(d.mean()) <= half_width(parts, 0.95))
        assert each.half_width >= t.ppf(0.975, freedom) * of_seeds**0.5, "never narrower than seeds"
    assert len(found) >= 16
    assert np.mean(covered) >= 0.95


def test_each_part_has_its_own_degrees_of_freedom():
    """Two seeds: t of one degree is 12.7. Six pictures: t of five is 2.57."""
    rng = np.random.default_rng(9)
    zeros = np.zeros((2, 300))
    seeds = paired_difference([0.3, 0.1], [0.0, 0.0], zeros, zeros, 200)
    assert seeds.half_width == pytest.approx(12.7062047 * 0.1, rel=1e-6)
    draws = rng.normal(0.2, 0.03, (1, 300)).repeat(2, 0)
    pictures = paired_difference([0.2, 0.2], [0.0, 0.0], draws, zeros, 6)
    spread = draws[0].std(ddof=1)
    assert pictures.half_width == pytest.approx(2.57058184 * spread, rel=1e-6)
    both = paired_difference([0.3, 0.1], [0.0, 0.0], draws, zeros, 6)
    assert both.half_width == pytest.approx(np.hypot(1.27062047, 2.57058184 * spread), rel=1e-6)
    few = paired_difference([0.2, 0.2], [0.0, 0.0], draws[:, :4], zeros[:, :4], 200)
    assert few.parts[1][1] == 3, "four replicates estimate a variance like four pictures"


def test_the_p_value_is_where_the_interval_touches_zero():
    noise = np.random.default_rng(6).normal(0, 0.01, (3, 100))
    values = ([0.36, 0.33, 0.34], [0.30, 0.31, 0.29], 0.02 + noise, 0 * noise, 50)
    p = paired_difference(*values).p_value
    assert 0 < p < 1
    at = paired_difference(*values, level=1 - p)
    assert at.low == pytest.approx(0, abs=1e-7)
    assert paired_difference(*values, level=1 - 0.9 * p).low < 0
    zeros = np.zeros((3, 10))
    assert paired_difference([0.2] * 3, [0.2] * 3, zeros, zeros, 50).p_value == 1
    assert paired_difference([0.3] * 3, [0.2] * 3, zeros, zeros, 50).p_value < 1e-8


def test_holm_multiplies_the_smallest_by_the_number_of_comparisons_and_keeps_the_order():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.7, 0.6, 0.0001]) == pytest.approx([1.0, 1.0, 0.0003])
    assert holm([]) == []


def test_a_known_difference_is_found_and_said():
    noise = np.random.default_rng(6).normal(0, 0.001, (3, 100))
    d = paired_difference([0.32, 0.33, 0.31], [0.30, 0.31, 0.29], 0.02 + noise, 0 * noise, 200)
    assert d.mean == pytest.approx(0.02)
    assert d.is_clear
    assert d.agreeing == 3
    assert verdict(d).startswith("better by 2.0 ± ")
    assert verdict(d).endswith("3 of 3 seeds")


def test_seeds_that_agree_with_a_worse_mean_are_counted_too():
    zeros = np.zeros((4, 10))
    d = paired_difference([0.1, 0.1, 0.1, 0.3], [0.3, 0.2, 0.4, 0.2], zeros, zeros, 50)
    assert d.mean < 0
    assert d.agreeing == 3


def test_the_t_distribution_is_that_of_two_degrees_where_only_seeds_vary():
    same = np.zeros((3, 50))
    d = paired_difference([0.1, 0.2, 0.3], [0.0] * 3, same, same, 200)
    by_hand = 4.302652729 * 0.1 / 3**0.5
    assert d.half_width == pytest.approx(by_hand, rel=1e-6)
    assert not d.is_clear


def test_nothing_is_no_difference_and_one_seed_is_said_to_be_one():
    zeros = np.zeros((3, 10))
    d = paired_difference([0.2] * 3, [0.2] * 3, zeros, zeros, 50)
    assert (d.mean, d.half_width, d.is_clear) == (0, 0, False)
    one = paired_difference([0.3], [0.2], np.full((1, 5), 0.1), np.zeros((1, 5)), 50)
    assert "one seed: pictures only" in verdict(one)


def test_unpaired_seeds_are_refused():
    with pytest.raises(ConfigError, match="pair"):
        paired_difference([0.1], [0.1, 0.2], np.zeros((1, 2)), np.zeros((1, 2)), 9)
