"""Panoptic quality: cases with an answer known by hand, and the definition word by word."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rtdetr_lab.data.segment_map import SegmentMap, TrueSegment
from rtdetr_lab.errors import DataError
from rtdetr_lab.evaluation.panoptic import PanopticQuality

CAT, DOG, SKY = 1, 2, 9


def drawn(rows, **segments):
    """A map of letters: `drawn(["aab"], a=CAT, b=SKY)`; `.` is nobody's, capitals are crowds."""
    letters = sorted(segments)
    number = {letter: 10 * i for i, letter in enumerate(letters, 1)} | {".": 0}
    ids = torch.tensor([[number[c] for c in row] for row in rows])
    listed = (TrueSegment(number[c], segments[c], c.isupper()) for c in letters)
    return SegmentMap(ids, tuple(listed))


def quality(*pairs):
    tally = PanopticQuality({SKY})
    for truth, found in pairs:
        tally.add(truth, found)
    return tally


def test_the_truth_itself_scores_one():
    truth = drawn(["aabb", "ssss"], a=CAT, b=CAT, s=SKY)
    scores = quality((truth, truth)).scores()
    assert set(scores.values()) == {1.0}


def test_a_cat_found_by_three_quarters_and_a_dog_invented():
    """Eq. 18.2"""
    truth = drawn(["aaaa", "ssss"], a=CAT, s=SKY)
    found = drawn(["aaab", "ssss"], a=CAT, b=DOG, s=SKY)
    tally = quality((truth, found))
    assert tally.counts[CAT].pq == tally.counts[CAT].sq == 0.75
    assert (tally.counts[DOG].fp, tally.counts[DOG].pq) == (1, 0.0)
    scores = tally.scores()
    assert scores["PQ"] == pytest.approx((0.75 + 0 + 1) / 3)
    assert scores["PQ_th"] == pytest.approx(0.375)
    assert scores["PQ_st"] == 1.0


def test_an_overlap_of_one_half_is_no_match_but_both_a_miss_and_an_invention():
    tally = quality((drawn(["aa.."], a=CAT), drawn(["a..."], a=CAT)))
    count = tally.counts[CAT]
    assert (count.tp, count.fp, count.fn, count.pq) == (0, 1, 1, 0.0)


def test_one_hit_one_miss_and_one_invention_halve_the_recognition():
    truth = drawn(["aab..", "....."], a=CAT, b=CAT)
    found = drawn(["aa...", "ss..."], a=CAT, s=CAT)
    truth = SegmentMap(truth.ids.where(truth.ids != 0, 30), (*truth.segments, TrueSegment(30, SKY)))
    count = quality((truth, found)).counts[CAT]
    assert (count.tp, count.fp, count.fn) == (1, 1, 1)
    assert count.sq == 1.0
    assert count.rq == count.pq == 0.5


def test_what_nobody_annotated_counts_in_no_union_and_excuses_inventions():
    # Half of what is called a cat lies on the cat, half on void: the union is the cat alone.
    count = quality((drawn(["aa.."], a=CAT), drawn(["aaaa"], a=CAT))).counts[CAT]
    assert (count.tp, count.sq) == (1, 1.0)
    sky = drawn(["s..."], s=SKY)
    assert quality((sky, drawn([".ddd"], d=DOG))).counts[DOG].fp == 0
    # Exactly half on void is not more than half.
    assert quality((drawn(["ss.."], s=SKY), drawn([".dd."], d=DOG))).counts[DOG].fp == 1


def test_a_crowd_is_never_missed_and_excuses_its_own_category_only():
    truth = drawn(["AAAs"], A=CAT, s=SKY)
    assert quality((truth, drawn(["...s"], s=SKY))).counts[CAT].occurs is False
    assert quality((truth, drawn(["ccds"], c=CAT, d=CAT, s=SKY))).counts[CAT].fp == 0
    assert quality((truth, drawn(["cc.s"], c=DOG, s=SKY))).counts[DOG].fp == 1


def test_pictures_add_up_before_they_are_divided():
    good = (drawn(["aa"], a=CAT), drawn(["aa"], a=CAT))
    missed = (drawn(["aa"], a=CAT), drawn([".."]))
    count = quality(good, missed).counts[CAT]
    assert (count.sq, count.rq) == (1.0, pytest.approx(2 / 3))


def test_nothing_has_no_score():
    assert math.isnan(PanopticQuality().scores()["PQ"])


def test_maps_that_cannot_be_compared_are_refused_with_numbers():
    with pytest.raises(DataError, match=r"\(1, 2\).*\(1, 3\)"):
        quality((drawn(["aa"], a=CAT), drawn(["aaa"], a=CAT)))
    unlisted = SegmentMap(torch.tensor([[0, 7]]), ())
    with pytest.raises(DataError, match=r"1 of 2 ids .*7"):
        quality((unlisted, unlisted))


def naive(truth, found):
    """Category → (sum of IoU, TP, FP, FN), by sets of pixels."""

    def pixels(one, id):
        return {tuple(p) for p in (one.ids == id).nonzero().tolist()}

    void = pixels(truth, 0)
    crowd = {s.category_id: set() for s in truth.segments}
    for s in truth.segments:
        if s.is_crowd:
            crowd[s.category_id] |= pixels(truth, s.id)
    real = [(s.category_id, pixels(truth, s.id)) for s in truth.segments if not s.is_crowd]
    said = [(s.category_id, pixels(found, s.id)) for s in found.segments]
    said = [(c, p) for c, p in said if p]
    result = {c: [0.0, 0, 0, 0] for c, _ in real + said}
    used, missed = set(), set(range(len(real)))
    for i, (category, g) in enumerate(real):
        for j, (other, p) in enumerate(said):
            if category == other and len(g & p) / len((g | p) - (void & p)) > 0.5:
                result[category][0] += len(g & p) / len((g | p) - (void & p))
                result[category][1] += 1
                used.add(j)
                missed.discard(i)
    for i in missed:
        result[real[i][0]][3] += 1
    for j, (category, p) in enumerate(said):
        if j not in used and len(p & (void | crowd.get(category, set()))) <= len(p) / 2:
            result[category][2] += 1
    return result


def random_map(seed, crowds):
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 6, (3, 3), generator=rng)
    ids = coarse.repeat_interleave(3, 0).repeat_interleave(3, 1)
    noise = torch.rand(ids.shape, generator=rng) < 0.15
    ids = ids.where(~noise, torch.randint(0, 6, ids.shape, generator=rng))
    there = [i for i in ids.unique().tolist() if i]
    segments = (TrueSegment(i, i % 3, crowds and i == 5) for i in there)
    return SegmentMap(ids, tuple(segments))


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.booleans())
def test_random_maps_score_what_the_definition_says(seed, other, alike):
    truth = random_map(seed, crowds=True)
    found = random_map(other, crowds=False)
    if alike:  # mostly the truth, so that something matches
        keep = torch.rand(truth.ids.shape, generator=torch.Generator().manual_seed(other)) < 0.85
        ids = truth.ids.where(keep, 0)
        left = set(ids.unique().tolist())
        segments = (TrueSegment(s.id, s.category_id) for s in truth.segments if s.id in left)
        found = SegmentMap(ids, tuple(segments))
    counts = quality((truth, found)).counts
    counted = {c: [n.iou, n.tp, n.fp, n.fn] for c, n in counts.items() if n.occurs}
    expected = {c: v for c, v in naive(truth, found).items() if any(v)}
    assert {c: v[1:] for c, v in counted.items()} == {c: v[1:] for c, v in expected.items()}
    for category, values in expected.items():
        assert counted[category][0] == pytest.approx(values[0])
