"""Figures of a study: what they draw is what the numbers say."""

import matplotlib
import matplotlib.pyplot as plt
import pytest

from rtdetr_lab.errors import ConfigError
from rtdetr_lab.viz.ablation import (
    Interval,
    differences,
    front,
    score_bars,
    score_curves,
    score_iou,
)

matplotlib.use("Agg")
SCORES = {"A": [0.30, 0.32], "B": [0.40], "C": []}


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def texts(ax):
    return [t.get_text() for t in ax.texts]


def test_bars_begin_at_zero_and_a_variant_without_a_result_says_so():
    ax = score_bars(SCORES, reference="B")
    assert [round(p.get_width(), 6) for p in ax.patches] == [31.0, 40.0]
    assert ax.get_xlim()[0] == 0
    assert texts(ax) == ["31.0 ± 1.4", "40.0", "no result"]


def test_only_intervals_that_exclude_zero_are_filled():
    found = {"A": Interval(0.02, 0.01, 0.03), "B": Interval(0.02, -0.01, 0.05)}
    ax = differences(found, "C")
    marks = [line for line in ax.lines if line.get_marker() == "o"]
    filled = [m.get_markerfacecolor() == m.get_color() for m in marks]
    assert filled == [True, False]
    assert texts(ax) == ["+2.0", "+2.0"]


def test_a_curve_is_the_mean_of_its_seeds():
    ax = score_curves({"A": [[[100.0, 0.1], [200.0, 0.3]], [[100.0, 0.2], [200.0, 0.4]]]})
    assert ax.lines[0].get_xydata().tolist() == [[100, pytest.approx(15)], [200, pytest.approx(35)]]
    (band,) = ax.collections
    corners = {tuple(map(round, corner)) for corner in band.get_paths()[0].vertices.tolist()}
    assert corners == {(100, 10), (100, 20), (200, 30), (200, 40)}


def test_the_front_joins_those_that_nobody_beats():
    speed = {n: {"median": t, "low": t - 1, "high": t + 1} for n, t in (("A", 9.0), ("B", 5.0))}
    ax = front({"A": [0.3], "B": [0.4]}, speed)
    assert ax.lines[0].get_xydata().tolist() == [[5.0, pytest.approx(40)]]
    slow = {"A": speed["B"], "B": speed["A"]}
    assert len(front({"A": [0.3], "B": [0.4]}, slow).lines[0].get_xydata()) == 2


def test_the_front_leaves_out_what_is_slower_or_worse_and_nothing_else():
    times = {"slower": 9.0, "worse": 5.0, "best": 12.0, "fast": 5.0}
    scores = {"slower": [0.4], "worse": [0.3], "best": [0.5], "fast": [0.4]}
    ax = front(scores, {n: {"median": t, "low": t - 1, "high": t + 1} for n, t in times.items()})
    assert ax.lines[0].get_xydata().tolist() == [[5, pytest.approx(40)], [12, pytest.approx(50)]]


def test_a_scatter_per_variant():
    panels = score_iou({"A": ([0.1, 0.9], [0.2, 0.8]), "B": ([0.5], [0.5])})
    assert [p.get_title() for p in panels] == ["A", "B"]
    assert len(panels[0].lines[0].get_xydata()) == 2


@pytest.mark.parametrize("draw", [score_bars, score_curves, lambda x: differences(x, "A")])
def test_nothing_to_draw_is_an_error_that_says_so(draw):
    with pytest.raises(ConfigError, match="empty"):
        draw({})
