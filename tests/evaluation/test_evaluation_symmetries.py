"""AP and the table of confusions do not know in which order, or which way up, things were told."""

import copy

import numpy as np
import pytest
import torch
from coco_sets import random_set
from hypothesis import given
from hypothesis import strategies as st
from symmetries import generator, moved_corners, moved_size, moves, quick, seeds, shuffled

from rtdetr_lab.data.batch import Truth
from rtdetr_lab.evaluation.coco import coco_metrics
from rtdetr_lab.evaluation.mistakes import confusion_matrix, judge
from rtdetr_lab.images.postprocess import Found

pytest.importorskip("faster_coco_eval", reason="not installed; runs with the extra [eval]")
KEYS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def a_set(seed):
    """Random truth and detections; no two scores are equal, since ties follow the order."""
    tree, detections = random_set(seed, pictures=4, classes=4, each=9)
    places = np.random.default_rng(seed).permutation(len(detections))
    for row, place in zip(detections, places.tolist(), strict=True):
        row["score"] = (1 + place) / (1 + len(detections))
    return tree, detections


def numbers(tree, detections):
    metrics = coco_metrics(tree, detections)
    rows = {r.name: (r.AP, r.AP50, r.AP75, r.AR100, r.num_objects) for r in metrics.classes}
    return np.array([metrics[key] for key in KEYS]), rows


def same(one, other):
    np.testing.assert_allclose(one[0], other[0], rtol=0, atol=1e-12)
    assert one[1].keys() == other[1].keys()
    for name, row in one[1].items():
        np.testing.assert_allclose(row, other[1][name], rtol=0, atol=1e-12, err_msg=name)


@quick
@given(seeds, seeds)
def test_the_order_of_everything_that_is_listed_changes_no_number(seed, other):
    tree, detections = a_set(seed)
    mixed = {key: [rows[i] for i in shuffled(len(rows), other)] for key, rows in tree.items()}
    same(
        numbers(tree, detections),
        numbers(mixed, [detections[i] for i in shuffled(len(detections), other + 1)]),
    )


@quick
@given(seeds, seeds)
def test_other_ids_for_classes_and_pictures_change_no_number(seed, other):
    tree, detections = a_set(seed)
    changed, found = copy.deepcopy((tree, detections))
    for kind, key in (("categories", "category_id"), ("images", "image_id")):
        ids = [entry["id"] for entry in tree[kind]]
        new = {i: 3 + 7 * place for i, place in zip(ids, shuffled(len(ids), other), strict=True)}
        new = {i: int(place) for i, place in new.items()}
        for entry in changed[kind]:
            entry["id"] = new[entry["id"]]
        for row in [*changed["annotations"], *found]:
            row[key] = new[row[key]]
    same(numbers(tree, detections), numbers(changed, found))


def moved_box(box, size, move):
    left, top, width, height = box
    corners = torch.tensor([[left, top, left + width, top + height]], dtype=torch.float64)
    x, y = moved_corners(corners, size, move)[0, :2].tolist()
    return [x, y, *((height, width) if move[0] else (width, height))]


@quick
@given(seeds, moves)
def test_turned_and_mirrored_pictures_have_the_same_numbers(seed, move):
    tree, detections = a_set(seed)
    turned, found = copy.deepcopy((tree, detections))
    for image in turned["images"]:
        image["height"], image["width"] = moved_size((240, 320), move)
    for row in [*turned["annotations"], *found]:
        row["bbox"] = moved_box(row["bbox"], (240, 320), move)
    same(numbers(tree, detections), numbers(turned, found))


@quick
@given(seeds, st.sampled_from([0.5, 2.0, 4.0]))
def test_larger_pictures_have_the_same_numbers_but_those_by_size(seed, scale):
    tree, detections = a_set(seed)
    scaled, found = copy.deepcopy((tree, detections))
    for row in [*scaled["annotations"], *found]:
        row["bbox"] = [scale * side for side in row["bbox"]]
    for row in scaled["annotations"]:
        row["area"] *= scale**2
    (before, rows), (after, others) = numbers(tree, detections), numbers(scaled, found)
    whole = [KEYS.index(key) for key in ("AP", "AP50", "AP75", "AR1", "AR10", "AR100")]
    np.testing.assert_allclose(before[whole], after[whole], rtol=0, atol=1e-12)
    assert rows == others


# --- confusions ---

SIZE = (60, 90)


def a_picture(seed, classes=5):
    """Objects, two of them crowds, and detections near them, near nothing, and twice."""
    draw = generator(seed)
    corners = torch.rand(7, 2, generator=draw) * torch.tensor([60.0, 30.0])
    boxes = torch.cat([corners, corners + 5 + 25 * torch.rand(7, 2, generator=draw)], 1).double()
    labels = torch.randint(classes, (7,), generator=draw)
    crowd = torch.tensor([True, False, False, True, False, False, False])
    truth = Truth(seed, SIZE, labels, boxes, torch.ones(7), crowd)
    near = boxes[[2, 0, 4, 4, 6, 1, 3, 5]] + torch.randn(8, 4, generator=draw).double()
    near[5:] += 30
    scores = torch.rand(8, generator=draw)
    said = torch.randint(classes, (8,), generator=draw)
    said[:3] = labels[[2, 0, 4]]
    return truth, Found(near, scores, said, torch.arange(8))


def table(pictures, classes=5):
    return confusion_matrix([judge(*picture) for picture in pictures], classes)


def test_the_pictures_hold_every_kind_of_mistake():
    kinds = {kind for seed in range(30) for kind in judge(*a_picture(seed)).of_found}
    assert kinds == {"right", "confusion", "duplicate", "background", "in a crowd"}


@quick
@given(seeds, seeds)
def test_the_order_of_pictures_and_answers_changes_no_confusion(seed, other):
    pictures = [a_picture(seed + i) for i in range(4)]
    mixed = [(truth, found.at(shuffled(len(found), other))) for truth, found in pictures]
    for one, same_one in zip(pictures, mixed, strict=True):
        assert judge(*one).of_found == judge(*same_one).of_found  # by score, the best first
    mixed = [mixed[i] for i in shuffled(4, other)]
    assert (table(pictures) == table(mixed)).all()


@quick
@given(seeds, seeds)
def test_other_labels_exchange_rows_and_columns(seed, other):
    pictures = [a_picture(seed + i) for i in range(4)]
    to = shuffled(5, other)
    renamed = [
        (
            Truth(t.image_id, t.size, to[t.labels], t.boxes_xyxy, t.areas, t.is_crowd),
            Found(f.boxes_xyxy, f.scores, to[f.labels], f.queries),
        )
        for t, f in pictures
    ]
    order = [*to.tolist(), 5]
    rows = [*order, 6]  # behind the classes: "found already" and "nothing there"
    assert (table(renamed)[np.ix_(rows, order)] == table(pictures)).all()


@quick
@given(seeds, moves)
def test_turned_and_mirrored_pictures_have_the_same_confusions(seed, move):
    pictures = [a_picture(seed + i) for i in range(4)]
    turned = []
    for t, f in pictures:
        boxes = moved_corners(t.boxes_xyxy, SIZE, move)
        truth = Truth(t.image_id, moved_size(SIZE, move), t.labels, boxes, t.areas, t.is_crowd)
        found = Found(moved_corners(f.boxes_xyxy, SIZE, move), f.scores, f.labels, f.queries)
        turned.append((truth, found))
    for one, other in zip(pictures, turned, strict=True):
        assert judge(*one).of_found == judge(*other).of_found
    assert (table(pictures) == table(turned)).all()
