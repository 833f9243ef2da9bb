"""AP from scratch: equal to the library on random sets, and right by hand."""

import numpy as np
import pytest
from coco_sets import random_set

from rtdetr_lab.evaluation.average_precision import (
    AREAS,
    Judged,
    average_precision,
    choose,
    overlap,
    precision_curve,
)
from rtdetr_lab.evaluation.coco import coco_metrics


@pytest.mark.parametrize("seed", range(8))
def test_all_six_numbers_equal_the_librarys(seed):
    tree, found = random_set(seed, pictures=4 + seed, each=(5, 25, 60)[seed % 3])
    wanted = coco_metrics(tree, found)
    size = {"small": "s", "medium": "m", "large": "l"}
    assert average_precision(tree, found) == pytest.approx(wanted.AP, abs=1e-12)
    for threshold, name in ((0.5, "AP50"), (0.75, "AP75")):
        ours = average_precision(tree, found, thresholds=[threshold])
        assert ours == pytest.approx(wanted[name], abs=1e-12)
    for area, letter in size.items():
        assert average_precision(tree, found, AREAS[area]) == pytest.approx(
            wanted[f"AP{letter}"], abs=1e-12
        )


def test_the_random_sets_hold_what_makes_ap_hard():
    tree, found = random_set(3)
    pictures = {i["id"] for i in tree["images"]}
    assert any(a["iscrowd"] for a in tree["annotations"])
    assert len({d["score"] for d in found}) < len(found), "ties"
    assert 0 < coco_metrics(tree, found).AP < 1
    assert any(pictures - {d["image_id"] for d in random_set(s)[1]} for s in range(8)), "empty"


def test_the_curve_by_hand():
    """Right, wrong, right of two objects: precision 1, ½, ⅔; recall ½, ½, 1."""
    right, none = np.array([True, False, True]), np.zeros(3, dtype=bool)
    curve = precision_curve([Judged(np.array([0.9, 0.8, 0.7]), right, none, 2)])
    assert np.allclose(curve[:51], 1)
    assert np.allclose(curve[51:], 2 / 3)


def test_without_objects_there_is_no_curve():
    nothing = Judged(np.zeros(0), np.zeros(0, bool), np.zeros(0, bool), 0)
    assert precision_curve([nothing]) is None
    tree = {"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    assert average_precision(tree, []) == -1


def test_in_a_crowd_the_overlap_is_a_part_of_the_detection():
    box, crowd = [0, 0, 10, 10], {"bbox": [0, 0, 100, 100], "iscrowd": 1}
    assert overlap(box, crowd) == 1
    assert overlap(box, {**crowd, "iscrowd": 0}) == 0.01


def test_an_iou_at_the_threshold_is_enough_and_of_equals_the_last_is_taken():
    twins, half = [{"bbox": [0, 0, 10, 10]}] * 2, {"bbox": [0, 0, 10, 5]}
    free, seen = [False, False], [False, False]
    assert choose(half, twins, seen, free, threshold=0.5) == 1
    assert choose(half, twins, seen, [False, True], threshold=0.5) == 0
    assert choose(half, twins, seen, free, threshold=0.51) is None
