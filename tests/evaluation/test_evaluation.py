"""COCO's twelve numbers: right by hand on small sets, and from a model's answers."""

import json
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from coco_sets import random_set

from rtdetr_lab.boxes import inverse_sigmoid
from rtdetr_lab.data.batch import Truth
from rtdetr_lab.data.coco import CocoDataset
from rtdetr_lab.data.shapes import VAL, ShapesConfig, ShapesDataset
from rtdetr_lab.errors import DataError, MissingExtraError
from rtdetr_lab.evaluation import table as columns
from rtdetr_lab.evaluation.coco import NAMES, coco_metrics, coco_truth
from rtdetr_lab.evaluation.evaluate import evaluate
from rtdetr_lab.evaluation.table import Table, accumulated
from rtdetr_lab.images.postprocess import Found
from rtdetr_lab.model import DetectionModel
from rtdetr_lab.structures import LayerPrediction, Prediction

SHAPES = ShapesDataset(ShapesConfig(size=96, max_side=40.0, max_objects=5), VAL, 6)


def truth(boxes, labels, crowd=(), image_id=1):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    size = boxes[:, 2:] - boxes[:, :2]
    is_crowd = torch.zeros(len(boxes), dtype=torch.bool)
    is_crowd[list(crowd)] = True
    return Truth(
        image_id, (200, 300), torch.tensor(labels, dtype=torch.int64), boxes, size.prod(1), is_crowd
    )


def found(box_xyxy, score, category=10, image_id=1):
    x0, y0, x1, y1 = box_xyxy
    bbox = [x0, y0, x1 - x0, y1 - y0]
    return {"image_id": image_id, "category_id": category, "bbox": bbox, "score": score}


ONE = coco_truth([truth([[0, 0, 100, 100]], [0])], ["a"], [10])


def test_perfect_detections_score_one():
    metrics = coco_metrics(ONE, [found([0, 0, 100, 100], 0.9)])
    assert metrics.AP == metrics.AP50 == metrics.AR1 == metrics.APl == 1
    assert metrics.APs == metrics.APm == -1, "there is no small and no medium object to find"


def test_nothing_found_scores_zero():
    assert coco_metrics(ONE, []).AP == 0


def test_an_iou_of_0_77_counts_at_six_of_ten_thresholds():
    metrics = coco_metrics(ONE, [found([0, 0, 100, 77], 0.9)])
    assert metrics.AP == pytest.approx(0.6)
    assert (metrics.AP50, metrics.AP75) == (1, 1)


def test_an_iou_of_0_72_is_too_little_for_ap75():
    metrics = coco_metrics(ONE, [found([0, 0, 100, 72], 0.9)])
    assert (metrics.AP50, metrics.AP75) == (1, 0)


def test_of_twenty_objects_one_ten_or_all_may_be_found():
    boxes = [[15 * n, 0, 15 * n + 10, 40] for n in range(20)]
    tree = coco_truth([truth(boxes, [0] * 20)], ["a"], [10])
    metrics = coco_metrics(tree, [found(box, 0.9 - n / 100) for n, box in enumerate(boxes)])
    assert (metrics.AR1, metrics.AR10, metrics.AR100) == (0.05, 0.5, 1)


def test_an_object_behind_a_hundred_better_false_alarms_is_not_found():
    alarms, last = [found([200, 0, 250, 50], 0.9)] * 120, found([0, 0, 100, 100], 0.5)
    assert coco_metrics(ONE, [*alarms, last]).AR100 == 0
    assert coco_metrics(ONE, [*alarms[:99], last]).AR100 == 1


def test_a_false_alarm_before_the_hit_halves_precision():
    alarms = [found([200, 0, 250, 50], 0.95), found([0, 0, 100, 100], 0.9)]
    assert coco_metrics(ONE, alarms).AP50 == pytest.approx(0.5)
    assert coco_metrics(ONE, alarms[::-1]).AP50 == pytest.approx(0.5), "scores rank, not places"


def test_a_duplicate_is_a_false_alarm_but_after_the_hit_costs_nothing():
    twice = [found([0, 0, 100, 100], 0.9), found([0, 0, 100, 99], 0.8)]
    assert coco_metrics(ONE, twice).AP == 1
    assert coco_metrics(ONE, twice).AR1 == 1


def test_in_a_crowd_nothing_is_a_false_alarm():
    boxes = [[0, 0, 100, 100], [150, 0, 300, 200]]
    tree = coco_truth([truth(boxes, [0, 0], crowd=[1])], ["a"], [10])
    inside = found([160, 10, 200, 60], 0.95)
    assert coco_metrics(tree, [inside, found([0, 0, 100, 100], 0.9)]).AP == 1


def test_sizes_are_judged_by_the_annotated_area():
    boxes = [[0, 0, 20, 20], [100, 100, 160, 160]]
    tree = coco_truth([truth(boxes, [0, 0])], ["a"], [10])
    metrics = coco_metrics(tree, [found(boxes[1], 0.9)])
    assert (metrics.APs, metrics.APm, metrics.APl) == (0, 1, -1)
    assert metrics.ARm == 1


def test_an_object_without_an_area_has_that_of_its_box():
    tree = coco_truth([truth([[0, 0, 40, 60]], [0])], ["a"], [10])
    del tree["annotations"][0]["area"]
    metrics = coco_metrics(tree, [found([0, 0, 40, 60], 0.9)])
    assert (metrics.APs, metrics.APm, metrics.APl) == (-1, 1, -1)


def test_a_class_without_objects_is_not_in_the_mean():
    tree = coco_truth([truth([[0, 0, 50, 50]], [1])], ["nowhere", "a"], [3, 10])
    metrics = coco_metrics(tree, [found([0, 0, 50, 50], 0.9)])
    assert metrics.AP == metrics.AR100 == 1
    assert [row.AP for row in metrics.classes] == [-1, 1]


def test_names_follow_their_ids_when_categories_are_not_sorted():
    tree = coco_truth([truth([[0, 0, 50, 50], [60, 0, 99, 50]], [0, 1])], ["a", "b"], [10, 3])
    metrics = coco_metrics(tree, [found([0, 0, 50, 50], 0.9, category=10)])
    assert [(row.name, row.AP) for row in metrics.classes] == [("b", 0), ("a", 1)]


def test_the_truth_keeps_height_and_width_apart():
    assert ONE["images"] == [{"id": 1, "height": 200, "width": 300}]


def test_the_table_has_a_row_per_class_in_the_order_of_ids():
    tree = coco_truth([truth([[0, 0, 50, 50], [60, 0, 99, 50]], [0, 1])], ["b", "a"], [3, 10])
    metrics = coco_metrics(tree, [found([0, 0, 50, 50], 0.9, category=3)])
    assert [(row.name, row.AP) for row in metrics.classes] == [("b", 1), ("a", 0)]
    assert metrics.AP == 0.5
    assert "b" in str(metrics).splitlines()[2]


def test_the_first_annotation_counts_like_any_other():
    """An id of 0 would read as "not matched"; so ids start at 1."""
    assert [a["id"] for a in ONE["annotations"]] == [1]


def test_the_numbers_are_a_mapping_that_json_can_keep():
    metrics = coco_metrics(ONE, [])
    assert tuple(metrics) == (*NAMES, "AP_class/a")
    assert len(metrics) == 13
    assert json.loads(json.dumps(dict(metrics)))["AP50"] == metrics["AP50"] == metrics.AP50
    with pytest.raises(KeyError):
        metrics["mAP"]


@pytest.mark.parametrize(
    ("detection", "message"),
    [
        (found([0, 0, 1, 1], 0.5, image_id=2), r"detections\[1\]: is on picture 2"),
        (found([0, 0, 1, 1], 0.5, category=0), r"detections\[1\]: is of category 0"),
        (found([0, 0, 1, 1], math.nan), r"detections\[1\]: has a box or score that is not finite"),
        (found([0, 0, math.inf, 1], 0.5), r"detections\[1\]: has a box or score"),
    ],
)
def test_detections_that_would_count_for_nothing_are_refused(detection, message):
    with pytest.raises(DataError, match=message):
        coco_metrics(ONE, [found([0, 0, 1, 1], 0.5), detection])


def test_without_an_object_to_find_ap_is_undefined_and_said_to_be():
    only_crowd = truth([[0, 0, 9, 9]], [0], crowd=[0], image_id=2)
    nothing = coco_truth([truth([], []), only_crowd], ["a"], [10])
    for detections in ([], [found([0, 0, 50, 50], 0.9)]):
        metrics = coco_metrics(nothing, detections)
        assert metrics.AP == metrics["AP_class/a"] == metrics.AR100 == -1
        assert metrics.num_objects == 0
        assert "AP is not defined" in str(metrics)
        assert "-1" not in str(metrics)


def test_classes_evaluated_a_few_at_a_time_give_the_same_numbers():
    tree, detections = random_set(seed=5, pictures=12, classes=7, each=30)
    table = Table.of(detections, tree)
    together, apart = accumulated(tree, table), accumulated(tree, table, at_once=40)
    assert all(map(np.array_equal, together, apart))


def test_a_few_classes_at_a_time_are_in_the_order_of_ids_whatever_the_file_says():
    tree, detections = random_set(seed=5, pictures=12, classes=7, each=30)
    shuffled = {**tree, "categories": [tree["categories"][k] for k in (4, 0, 6, 2, 5, 1, 3)]}
    table = Table.of(detections, tree)
    together, apart = accumulated(tree, table), accumulated(shuffled, table, at_once=40)
    assert all(map(np.array_equal, together, apart))


def test_several_classes_at_a_time_have_no_more_detections_than_allowed(monkeypatch):
    tree, detections = random_set(seed=5, pictures=12, classes=7, each=30)
    seen, count = [], columns.accumulated_of
    monkeypatch.setattr(
        columns, "accumulated_of", lambda *given: seen.append(given[2]) or count(*given)
    )
    accumulated(tree, Table.of(detections, tree), at_once=120)
    sizes = [sum(d["category_id"] in ids for d in detections) for ids in seen]
    assert any(len(ids) > 1 for ids in seen)
    assert all(len(ids) == 1 or size <= 120 for ids, size in zip(seen, sizes, strict=True))


def test_the_best_keep_their_order():
    table = Table(np.array([2, 1, 2]), np.array([7, 7, 7]), np.ones((3, 4)), np.array([3, 4, 5.0]))
    assert table.best(1).scores.tolist() == [4, 5]
    assert table.best(2).image_ids.tolist() == [2, 1, 2]


def test_labels_become_the_ids_of_the_data():
    one = Found(torch.ones(3, 4), torch.ones(3), torch.tensor([1, 0, 1]), torch.arange(3))
    assert Table.of_found([(7, one)], (40, 3)).category_ids.tolist() == [3, 40, 3]


def test_only_the_best_hundred_of_a_class_in_a_picture_are_kept():
    tree, detections = random_set(seed=6, pictures=2, classes=2, each=400)
    table = Table.of(detections, tree)
    kept = table.best(100)
    assert len(kept) == 400
    for image in (0, 1):
        for category in (1, 2):
            of = (table.image_ids == image) & (table.category_ids == category)
            mine = (kept.image_ids == image) & (kept.category_ids == category)
            assert sorted(kept.scores[mine]) == sorted(table.scores[of])[-100:]


def test_a_mask_is_as_large_as_its_pixels_and_a_box_as_its_sides():
    masks = torch.zeros(2, 9, 12, dtype=torch.bool)
    masks[0, 2:5, 1:8] = True
    masks[1, range(6), range(6)] = True  # a thin line across its box
    boxes = torch.tensor([[1.0, 2, 8, 5], [0, 0, 6, 6]])
    both = Found(boxes, torch.tensor([0.9, 0.8]), torch.tensor([1, 0]), torch.arange(2), masks)
    table = Table.of_found([(7, both)], (3, 5))
    assert [row["area"] for row in table.rows("segm")] == [21, 6]
    assert [row["area"] for row in table.rows()] == [21, 36]


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'rtdetr_lab\[eval\]'"):
        coco_metrics(ONE, [])


class Oracle(DetectionModel):
    """Answers with the truth of the pictures it is shown, in batches, in order."""

    num_classes, num_queries = 0, 20

    def __init__(self, dataset, shift=0.0, confused=False):
        super().__init__(dataset)
        self.samples = iter([dataset[i] for i in range(len(dataset))])
        self.shift, self.confused = shift, confused
        self.num_classes = len(dataset.names)
        self.was_training = None

    def forward(self, images):
        self.was_training = self.training
        assert not torch.is_grad_enabled()
        assert images.max() <= 1
        logits = torch.full((len(images), 20, self.num_classes), -9.0)
        boxes = torch.full((len(images), 20, 4), 0.5)
        for b in range(len(images)):
            sample = next(self.samples)
            n = len(sample.labels)
            labels = (sample.labels + self.confused) % self.num_classes
            logits[b, range(n), labels] = inverse_sigmoid(torch.tensor(0.9))
            boxes[b, :n] = sample.boxes
            boxes[b, :n, 0] += self.shift * sample.boxes[:, 2]
        return Prediction(logits, boxes, (LayerPrediction(logits, boxes),))


def test_a_model_that_knows_the_truth_scores_one():
    metrics = evaluate(Oracle(SHAPES), SHAPES, batch_size=4)
    assert metrics.AP == pytest.approx(1)


class Draws(Oracle):
    """An oracle that draws the true masks, without their first `missing` rows."""

    draws_masks = True

    def __init__(self, dataset, missing=0):
        super().__init__(dataset)
        self.drawn = iter([dataset[i].masks for i in range(len(dataset))])
        self.missing = missing

    def forward(self, images):
        found = super().forward(images)
        masks = torch.full((len(images), 20, *images.shape[-2:]), -9.0)
        for b in range(len(images)):
            true = next(self.drawn)
            top = true.flatten(1).long().argmax(1) // true.shape[2] + self.missing
            kept = true & (torch.arange(true.shape[1])[:, None] >= top[:, None, None])
            masks[b, : len(true)] = 18.0 * kept - 9.0
        return replace(found, masks=masks)


def test_masks_are_measured_by_their_own_overlap():
    """A cut mask lowers only the AP of masks; only truth with masks is compared."""
    data = replace(SHAPES, with_masks=True)
    perfect, cut = evaluate(Draws(data), data), evaluate(Draws(data, missing=10), data)
    assert perfect["mask_AP"] == perfect.masks.AP == pytest.approx(1)
    assert perfect["mask_AP_class/star"] == perfect.masks.by_name["AP_class/star"]
    assert perfect.AP == cut.AP == pytest.approx(1)
    assert 0 < cut["mask_AP"] < 0.8
    assert "by the IoU of masks:" in str(cut)
    assert evaluate(Draws(data), SHAPES).masks is None
    assert evaluate(Oracle(data), data).masks is None


def test_boxes_that_are_a_little_off_lose_the_strict_thresholds():
    """Moved by a fifth of its width a box has an IoU of 0.8 / 1.2 = 0.67."""
    metrics = evaluate(Oracle(SHAPES, shift=0.2), SHAPES, batch_size=4)
    assert metrics.AP50 == pytest.approx(1)
    assert metrics.AP75 < 0.01
    assert metrics.AP == pytest.approx(0.4, abs=0.01)


def test_the_right_box_with_the_wrong_label_is_a_miss():
    assert evaluate(Oracle(SHAPES, confused=True), SHAPES).AP < 0.1


def test_the_model_is_left_in_the_mode_it_came_in():
    for training in (True, False):
        model = Oracle(SHAPES).train(training)
        evaluate(model, SHAPES)
        assert model.was_training is False
        assert model.training is training


def test_a_frozen_part_of_a_model_that_learns_stays_in_eval_mode():
    model = Oracle(SHAPES).train()
    model.norm = torch.nn.BatchNorm2d(3).eval()
    evaluate(model, SHAPES)
    assert (model.training, model.norm.training) == (True, False)


def test_labels_the_data_does_not_know_are_refused():
    class Other(Oracle):
        def forward(self, images):
            out = super().forward(images)
            return replace(out, logits=torch.cat([out.logits, out.logits], dim=-1))

    with pytest.raises(DataError, match="but the data has 10 classes"):
        evaluate(Other(SHAPES), SHAPES)


def test_an_empty_data_set_is_refused():
    with pytest.raises(DataError, match="holds no pictures"):
        evaluate(Oracle(SHAPES), ShapesDataset(SHAPES.config, VAL, 0))


def test_photographs_are_scored_in_their_own_pixels_and_ids(shared):
    """A model at another size, ids with gaps, and crowds: the truth must still score one."""
    from rtdetr_lab.data.batch import Mapped
    from rtdetr_lab.data.transforms import Resize

    photos = CocoDataset.from_folder(shared("data/coco_ccby"), "val")
    few = CocoDataset(first_pictures(photos.annotations, 8), photos.folder)
    data = Mapped(few, Resize((64, 64)))
    metrics = evaluate(Oracle(data), data)
    assert metrics.AP > 0.95, "boxes clipped at the border cost a little"


def first_pictures(annotations, count):
    return replace(annotations, pictures=annotations.pictures[:count])


def test_a_few_classes_at_a_time_give_the_numbers_of_all_at_once():
    rng = np.random.default_rng(0)
    boxes = np.concatenate([rng.uniform(0, 60, (200, 2)), rng.uniform(5, 40, (200, 2))], axis=1)
    truth = {
        "images": [{"id": i, "height": 100, "width": 100} for i in range(20)],
        "categories": [{"id": 1 + i, "name": str(i)} for i in range(5)],
        "annotations": [
            {"id": 1 + k, "image_id": k % 20, "category_id": 1 + k % 5, "bbox": boxes[k].tolist()}
            for k in range(100)
        ],
    }
    shifted = boxes + rng.normal(0, 2, boxes.shape)
    numbers = np.arange(200)
    table = Table(numbers % 20, 1 + numbers % 5, shifted.clip(1), rng.random(200))
    whole = columns.accumulated(truth, table, at_once=1000)
    parts = columns.accumulated(truth, table, at_once=50)
    assert (whole[0] > 0).any()
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(a, b)
