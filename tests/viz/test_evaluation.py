"""What the pictures of an evaluation show is what was counted."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import same_color
from matplotlib.patches import Rectangle

from rtdetr_lab.viz.evaluation import (
    MANY,
    STYLES,
    draw_bars,
    draw_confusion,
    draw_mistakes,
    draw_precision_recall,
    draw_thresholds,
)


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    yield
    plt.close("all")


def precision(num_classes, unknown=()):
    """IoU thresholds × recalls × classes, falling with recall; −1 where a class never occurs."""
    values = np.random.default_rng(0).random((10, 101, num_classes))
    values = -np.sort(-values, axis=1)
    values[:, :, list(unknown)] = -1
    return values


def line(ax, label):
    return next(drawn for drawn in ax.lines if str(drawn.get_label()).startswith(label))


def test_every_known_class_has_its_curve_at_both_thresholds():
    given = precision(3, unknown=[1])
    ax = draw_precision_recall(given, ["red", "absent", "white"])
    for k, name in ((0, "red"), (2, "white")):
        np.testing.assert_array_equal(line(ax, name).get_ydata(), given[0, :, k])
        np.testing.assert_array_equal(line(ax, name).get_xdata(), np.linspace(0, 1, 101))
    drawn = [curve.get_ydata() for curve in ax.lines]
    assert any((y == given[5, :, 2]).all() for y in drawn)
    assert len(drawn) == 2 * 2 + 2, "the class that never occurs is drawn nowhere"


@pytest.mark.parametrize(("place", "iou"), [(0, "0.5"), (5, "0.75")])
def test_the_mean_is_over_the_classes_that_occur(place, iou):
    given = precision(4, unknown=[0])
    mean = given[place, :, 1:].mean(1)
    drawn = line(draw_precision_recall(given, list("abcd")), f"mean, IoU {iou} ")
    np.testing.assert_allclose(drawn.get_ydata(), mean, atol=1e-12)
    assert f"AP {mean.mean():.3f}" in drawn.get_label()


def test_many_classes_are_a_quiet_crowd_and_only_the_means_are_named():
    ax = draw_precision_recall(precision(MANY + 1), [f"c{i}" for i in range(MANY + 1)])
    named = [text.get_text() for text in ax.get_legend().get_texts()]
    assert [name.split(" (")[0] for name in named] == ["mean, IoU 0.5", "mean, IoU 0.75"]
    assert len(ax.lines) == MANY + 1 + 2


def test_without_a_single_known_class_there_are_axes_and_no_legend():
    ax = draw_precision_recall(precision(2, unknown=[0, 1]), ["a", "b"])
    assert not ax.lines
    assert ax.get_legend() is None


def test_the_confusion_table_holds_the_counts_and_is_shaded_by_row():
    counts = np.array([[6, 2, 0], [0, 5, 5], [1, 0, 0], [0, 3, 0]])
    ax = draw_confusion(counts, ["red", "white"])
    written = {(int(t.get_position()[1]), int(t.get_position()[0])): t for t in ax.texts}
    assert {place: int(t.get_text()) for place, t in written.items()} == {
        (0, 0): 6, (0, 1): 2, (1, 1): 5, (1, 2): 5, (2, 0): 1, (3, 1): 3,
    }  # fmt: skip
    shade = ax.images[0].get_array()
    np.testing.assert_allclose(shade, [[0.75, 0.25, 0], [0, 0.5, 0.5], [1, 0, 0], [0, 1, 0]])
    assert same_color(written[0, 0].get_color(), "white")
    assert same_color(written[0, 1].get_color(), "black")
    assert [t.get_text() for t in ax.get_xticklabels()] == ["red", "white", "not found"]
    rows = [t.get_text() for t in ax.get_yticklabels()]
    assert rows == ["red", "white", "found already", "nothing there"]


def test_the_curves_of_f1_leave_out_classes_without_objects_and_mark_the_recommendation():
    F1 = np.array([[0.2, np.nan, 0.4], [0.6, np.nan, 0.8]])
    ax = draw_thresholds(np.array([0.1, 0.9]), F1, ["a", "b", "c"], 0.9)
    drawn = {line.get_label(): line.get_ydata() for line in ax.lines}
    assert list(drawn) == ["a", "c", "mean", "recommended: 0.90"]
    np.testing.assert_allclose(drawn["mean"], [0.3, 0.7])
    assert "recommended: 0.90" in [t.get_text() for t in ax.get_legend().get_texts()]
    alone = draw_thresholds(np.array([0.1, 0.9]), F1 * np.nan, ["a", "b", "c"], None)
    assert not alone.lines


def test_the_bars_are_as_high_as_the_numbers():
    values = {"1": {"AP": 0.25, "AP50": 0.5}, "2": {"AP": -1.0, "AP50": 0.75}}
    ax = draw_bars(values, "decoder layers")
    heights = {c.get_label(): [bar.get_height() for bar in c] for c in ax.containers}
    assert heights == {"AP": [0.25, 0.0], "AP50": [0.5, 0.75]}
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "2"]


def test_every_mistake_is_framed_in_its_kind_and_only_mistakes_speak():
    image = np.full((40, 60, 3), 90, np.uint8)
    boxes = torch.tensor([[1.0, 2, 20, 30], [5, 5, 50, 35], [30, 0, 59, 12]])
    kinds, texts = ["miss", "right", "duplicate"], ["red", "white 0.9", "red 0.6"]
    ax = draw_mistakes(image, boxes, kinds, texts, "a.jpg")
    frames = {
        (p.get_x(), p.get_y(), p.get_x() + p.get_width(), p.get_y() + p.get_height()): p
        for p in ax.patches
        if isinstance(p, Rectangle)
    }
    for box, kind in zip(boxes.tolist(), kinds, strict=True):
        color, dash, thick = STYLES[kind]
        frame = frames[tuple(box)]
        assert matplotlib.colors.same_color(frame.get_edgecolor(), color)
        assert (frame.get_linestyle(), frame.get_linewidth()) == (dash, thick)
    assert {t.get_text() for t in ax.texts} == {"red", "red 0.6"}
    assert ax.get_title(loc="left") == "a.jpg"
    first, *_ = [p for p in ax.patches if isinstance(p, Rectangle)]
    assert (first.get_x(), first.get_y()) == (5, 5), "what is right lies under what is wrong"
