"""What goes wrong in a picture gets its name; a report holds what an examination found."""

import json
from dataclasses import replace

import matplotlib.pyplot as plt
import pytest
import torch

from rtdetr_lab.commands.evaluate import check_classes
from rtdetr_lab.data.batch import First, Sample, Truth
from rtdetr_lab.data.shapes import VAL, ShapesConfig, ShapesDataset
from rtdetr_lab.errors import DataError
from rtdetr_lab.evaluation import report
from rtdetr_lab.evaluation.coco import coco_truth, scored
from rtdetr_lab.evaluation.examine import Examination, examine
from rtdetr_lab.evaluation.mistakes import confusion_matrix, judge
from rtdetr_lab.evaluation.report import write_report
from rtdetr_lab.evaluation.table import Table
from rtdetr_lab.evaluation.thresholds import Marks, curves_of
from rtdetr_lab.images.postprocess import Found
from rtdetr_lab.model import Metadata
from rtdetr_lab.rtdetr import rtdetr_nano

LEFT, RIGHT, FAR = [0.0, 0, 10, 10], [20.0, 0, 30, 10], [60.0, 60, 70, 70]


def truth(boxes, labels, crowd=()):
    boxes = torch.tensor(boxes).reshape(-1, 4)
    is_crowd = torch.zeros(len(boxes), dtype=torch.bool)
    is_crowd[list(crowd)] = True
    areas = torch.ones(len(boxes))
    return Truth(1, (100, 100), torch.tensor(labels, dtype=torch.int64), boxes, areas, is_crowd)


def found(boxes, labels, scores):
    count = len(labels)
    boxes = torch.tensor(boxes).reshape(-1, 4)
    labels = torch.tensor(labels, dtype=torch.int64)
    return Found(boxes, torch.tensor(scores), labels, torch.arange(count))


def test_every_mistake_gets_its_name():
    answers = found([LEFT, LEFT, RIGHT, FAR], [0, 0, 1, 0], [0.9, 0.8, 0.7, 0.6])
    one = judge(truth([LEFT, RIGHT, [40.0, 0, 50, 10]], [0, 0, 1]), answers)
    assert one.of_found == ("right", "duplicate", "confusion", "background")
    assert one.of_objects == ("right", "confusion", "miss")
    assert one.num_mistakes == 4
    wanted = [[1, 1, 0], [0, 0, 1], [1, 0, 0], [1, 0, 0]]  # then "found already", "nothing there"
    assert confusion_matrix([one], 2).tolist() == wanted


def test_a_wrong_name_does_not_hide_a_right_one_however_sure_it_is():
    one = judge(truth([LEFT], [0]), found([LEFT, LEFT], [1, 0], [0.9, 0.6]))
    assert one.of_found == ("duplicate", "right")


@pytest.mark.parametrize("heights", [(14.0, 18.0), (18.0, 14.0)])
def test_of_two_objects_a_detection_takes_the_one_that_it_overlaps_more(heights):
    objects = truth([FAR, *([0.0, 0, 10, height] for height in heights)], [0, 0, 0])
    one = judge(objects, found([RIGHT, [0.0, 0, 10, 20]], [0, 0], [0.9, 0.8]))
    assert one.pairs == ((1 + heights.index(18), 1),)


def test_in_a_crowd_nothing_is_a_mistake():
    one = judge(truth([[0.0, 0, 90, 90]], [0], crowd=[0]), found([FAR], [0], [0.9]))
    assert one.num_mistakes == 0


def test_a_crowd_is_never_found_and_two_crowds_do_not_add_up():
    crowd, beside = [0.0, 0, 40, 40], [60.0, 0, 90, 40]
    one = judge(truth([crowd], [0], crowd=[0]), found([crowd], [0], [0.9]))
    assert (one.of_found, one.of_objects) == (("in a crowd",), ("in a crowd",))
    across = found([[28.0, 0, 72, 10]], [0], [0.9])  # 12 of its 44 columns in each
    one = judge(truth([crowd, beside], [0, 0], crowd=[0, 1]), across, min_iou=0.3)
    assert one.of_found == ("background",)


def test_the_pictures_with_most_mistakes_come_first_and_ties_keep_their_order():
    nothing = found([], [], [])
    missed = [judge(truth([LEFT, RIGHT, FAR][:n], [0] * n), nothing) for n in (1, 0, 3, 1)]
    tree = coco_truth([missed[0].truth], ["a"], [1])
    numbers = scored(tree, Table.of([], tree))
    curves = curves_of([Marks.of([missed[0].truth], [nothing], 1)], ["a"])
    exam = Examination(("a",), numbers, {}, {}, tuple(missed), 0.5, curves)
    assert exam.worst == [2, 0, 3]


@pytest.mark.parametrize("objects", [0, 2])
def test_a_picture_without_answers_has_only_misses(objects):
    one = judge(truth([LEFT, RIGHT][:objects], [0] * objects), found([], [], []))
    assert one.num_mistakes == objects


def test_a_report_shows_layers_queries_and_the_worst_pictures(tmp_path):
    data = ShapesDataset(ShapesConfig(size=64, max_side=40.0, max_objects=3), VAL, 3)
    torch.manual_seed(0)
    model = rtdetr_nano(num_classes=len(data.names)).build()
    model.num_queries = 20
    exam = examine(model, data, queries=(5, 20), threshold=0.0)
    record = write_report(tmp_path, exam, data, worst=2)
    assert list(exam.layers) == ["proposals", "layer 1", "layer 2", "layer 3"]
    assert list(exam.queries) == [5, 20]
    assert exam.queries[20] is exam.layers["layer 3"] is exam.scored.metrics
    assert model.num_queries == 20
    assert model.training
    assert sum(record["calibration"]["count"]) == 60
    assert 0 < record["calibration_error"] < 1
    assert json.loads((tmp_path / "report.json").read_text()) == json.loads(json.dumps(record))
    assert len(list((tmp_path / "worst").iterdir())) == 2
    unsure = examine(model, First(data, 1), queries=(), threshold=0.99)
    assert [one.of_found for one in unsure.judgements] == [()]
    text = (tmp_path / "report.md").read_text()
    for name in ("precision_recall", "calibration", "confusion", "layers", "queries"):
        assert (tmp_path / f"{name}.png").stat().st_size > 1000
        assert f"({name}.png)" in text


class Wide:
    """A data set of one picture that is too wide for a report."""

    names, category_ids = ("cat", "dog"), (1, 2)

    def __len__(self):
        return 1

    def __getitem__(self, index):
        known = replace(truth([LEFT, RIGHT, FAR], [0, 1, 0]), size=(600, 1800))
        return Sample.of(torch.zeros(3, 600, 1800, dtype=torch.uint8), known)


def test_a_large_picture_shrinks_with_its_boxes_and_shows_what_was_lost(monkeypatch, tmp_path):
    shown = []
    monkeypatch.setattr(report, "draw_mistakes", lambda *given: shown.append(given))
    monkeypatch.setattr(report, "_save", lambda ax, path: plt.close("all"))
    known = Wide()[0].truth
    one = judge(known, found([LEFT, RIGHT], [0, 0], [0.9, 0.7]))
    tree = coco_truth([known], Wide.names, Wide.category_ids)
    numbers = scored(tree, Table.of([], tree))
    curves = curves_of([Marks.of([known], [one.found], len(Wide.names))], Wide.names)
    exam = Examination(Wide.names, numbers, {"last": numbers.metrics}, {}, (one,), 0.5, curves)
    write_report(tmp_path, exam, Wide(), worst=1)
    ((image, boxes, kinds, texts, _),) = shown
    assert image.shape == (300, 900, 3)
    assert boxes.tolist() == (torch.tensor([LEFT, RIGHT, FAR]) / 2).tolist()
    assert kinds == ["right", "confusion", "miss"]
    assert texts == ["cat 0.90", "cat 0.70, is dog", "cat"]


def test_classes_that_do_not_fit_the_data_are_refused_with_both_lists():
    with pytest.raises(DataError, match=r"\(2\) cat, dog; the data has \(2\) dog, cat"):
        model = rtdetr_nano(2).build()
        model.metadata = Metadata(("cat", "dog"))
        check_classes(model, ("dog", "cat"), "model")
