"""The frame is the assignment, the number is the cost, and a line that jumps has changed."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from rtdetr_lab.errors import ConfigError
from rtdetr_lab.matching import MatcherConfig
from rtdetr_lab.structures import LayerPrediction, Targets
from rtdetr_lab.viz.matching import (
    cost_matrix,
    instability,
    matched_boxes,
    matches_of,
    matches_over_steps,
    rows_to_show,
)
from rtdetr_lab.viz.training import layer_losses

IMAGE = np.full((100, 200, 3), 90, dtype=np.uint8)


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    plt.close("all")


@pytest.fixture
def matched(rng):
    """Boxes, objects, the cost of every pair and who got whom."""
    boxes = 0.2 + 0.6 * torch.rand(30, 4, generator=rng)
    logits = torch.randn(30, 4, generator=rng)
    objects = 0.2 + 0.6 * torch.rand(3, 4, generator=rng)
    labels = torch.tensor([0, 1, 3])
    matcher = MatcherConfig().build()
    found = matcher(LayerPrediction(logits[None], boxes[None]), Targets((labels,), (objects,)))
    cost = matcher.cost_matrix(logits, boxes, labels, objects)
    return boxes, objects, cost, found.queries[0], found.objects[0]


def test_the_matrix_shows_the_cost_and_frames_the_assignment(matched):
    _, _, cost, queries, objects = matched
    ax = cost_matrix(cost, queries, objects, count=10)
    rows = rows_to_show(cost, queries, 10)
    assert len(rows) == 10
    np.testing.assert_allclose(ax.images[0].get_array(), cost[rows], atol=1e-6)
    assert [int(t.get_text()) for t in ax.get_yticklabels()] == rows
    total = 0.0
    for frame in ax.patches:
        column, row = np.array(frame.get_xy()) + 0.5
        total += float(ax.images[0].get_array()[int(row), int(column)])
    assert total == pytest.approx(float(cost[queries, objects].sum()), abs=1e-5)
    assert [t.get_text() for t in ax.texts][:2] == [f"{c:.1f}" for c in cost[rows[0], :2].tolist()]


def test_beside_the_matched_queries_stand_those_that_are_cheap_for_any_object():
    cost = torch.tensor([[9.0, 1.0], [4.0, 4.0], [2.0, 9.0], [3.0, 3.0], [8.0, 8.0]])
    assert rows_to_show(cost, torch.tensor([4]), 3) == [0, 2, 4]
    assert rows_to_show(cost, torch.tensor([4, 1]), 1) == [1, 4]


def test_lines_join_each_object_to_its_query(matched):
    boxes, targets, _, queries, objects = matched
    ax = matched_boxes(boxes, targets, queries, objects, IMAGE)
    lines = [line for line in ax.lines if "→" in (line.get_gid() or "")]
    for line, q, t in zip(lines, queries, objects, strict=True):
        ends = torch.stack([boxes[q, :2], targets[t, :2]]).double().numpy() * [200, 100]
        np.testing.assert_allclose(line.get_xydata(), ends, atol=1e-6)
    assert sum(p.get_gid() == "object" for p in ax.patches) == 3


def test_one_line_per_object_over_the_steps():
    matches = torch.tensor([[4, 9], [4, 2], [4, 2]])
    ax = matches_over_steps(matches, names=["cat", "dog"])
    assert [list(line.get_ydata()) for line in ax.lines] == [[4, 4, 4], [9, 2, 2]]
    assert "25% of the matches change" in ax.get_title()
    with pytest.raises(ConfigError, match="1 names for 3 steps"):
        matches_over_steps(matches, ["epoch 0"])


def test_instability_counts_changes():
    assert instability(torch.tensor([[1, 2], [2, 1]])) == 1
    assert instability(torch.tensor([[1, 2]])) == 0


def test_assignments_become_a_table_of_queries_by_object():
    queries = [torch.tensor([3, 8]), torch.tensor([5])]
    objects = [torch.tensor([1, 0]), torch.tensor([1])]
    assert matches_of(queries, objects).tolist() == [[8, 3], [-1, 5]]


def test_bars_are_the_losses_and_carry_their_sum():
    ax = layer_losses({"class": [1.0, 0.5], "L1": [2.0, 0.25]}, ["layer 0", "layer 1"])
    assert [bar.get_height() for bar in ax.patches] == [1.0, 0.5, 2.0, 0.25]
    assert [bar.get_y() for bar in ax.patches] == [0, 0, 1.0, 0.5]
    assert [t.get_text() for t in ax.texts] == ["3.00", "0.75"]
    with pytest.raises(ConfigError, match="one value per layer"):
        layer_losses({"a": [1.0], "b": [1.0, 2.0]})
