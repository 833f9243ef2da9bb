"""Figures of speed: what they draw is what was measured."""

import matplotlib
import matplotlib.pyplot as plt
import pytest

from rtdetr_lab.errors import ConfigError
from rtdetr_lab.viz.canvas import themed
from rtdetr_lab.viz.palette import DARK
from rtdetr_lab.viz.speed import part_bars, roofline, time_lines

matplotlib.use("Agg")
FORMS = {"trained": {"see": 6.0, "answer": 2.0}, "deployed": {"see": 3.0, "answer": 0.125}}


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def texts(ax):
    return [t.get_text() for t in ax.texts]


def test_segments_follow_each_other_and_the_sum_stands_behind_them():
    ax = part_bars(FORMS)
    assert [(p.get_x(), p.get_width()) for p in ax.patches] == [(0, 6), (6, 2), (0, 3), (3, 0.125)]
    assert texts(ax) == ["6.0", "2.0", "8.0", "3.0", "3.1"], "an eighth has no room for its number"
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["see", "answer"]
    assert ax.get_xlim()[0] == 0


def test_forms_with_other_parts_cannot_be_compared():
    with pytest.raises(ConfigError, match="different parts"):
        part_bars({"a": {"see": 1.0}, "b": {"hear": 1.0}})


def test_a_line_is_what_was_measured():
    ax = time_lines([10, 100], {"NMS": [1, 9], "top-k": [2, 2]}, "boxes")
    drawn = {line.get_label(): line.get_xydata().tolist() for line in ax.lines}
    assert drawn == {"NMS": [[10, 1], [100, 9]], "top-k": [[10, 2], [100, 2]]}
    assert len({line.get_marker() for line in ax.lines}) == 2
    with pytest.raises(ConfigError, match="have not 2 values"):
        time_lines([1, 2], {"a": [1.0]}, "boxes")


def test_a_part_lies_below_its_limit_and_the_key_says_how_far():
    # 100 GFLOP/s and 10 GB/s: 10 FLOP per byte is where copying stops to be the limit.
    parts = {"dense": (1.0, 5e10, 1e9), "thin": (1.0, 1e9, 2e9)}
    for page in (None, DARK):
        with themed(page) if page else plt.rc_context():
            ax = roofline(parts, flops=1e11, bytes=1e10)
    roof, *rest = ax.lines
    assert roof.get_xydata()[1].tolist() == [10, 100]
    marks = [line.get_xydata().tolist()[0] for line in rest if line.get_marker() != "None"]
    assert marks == [[50, 50], [0.5, 1]]
    said = [t.get_text() for t in ax.get_legend().get_texts()]
    assert said == ["dense: 50% of its limit", "thin: 20% of its limit"]
    assert texts(ax) == ["matrix products: 100 GFLOP/s", "copies:\n10 GB/s"]
    assert ax.get_ylim()[0] < 1


def test_nothing_has_no_roof():
    with pytest.raises(ConfigError, match="empty"):
        roofline({}, 1.0, 1.0)
