"""Dots are the proposals, squares are the chosen tokens, and both lie where they should."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from rtdetr_lab.viz.canvas import themed
from rtdetr_lab.viz.cells import cells_at, tokens_of_cells
from rtdetr_lab.viz.palette import DARK
from rtdetr_lab.viz.queries import best_iou, proposal_scatter, selected_tokens

SHAPES = [(8, 12), (4, 6), (2, 3)]
IMAGE = np.full((64, 96, 3), 90, dtype=np.uint8)


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    plt.close("all")


def test_every_proposal_is_a_dot_at_its_score_and_iou(rng):
    clouds = {name: (torch.rand(30, generator=rng), torch.rand(30, generator=rng)) for name in "ab"}
    for ax in (proposal_scatter(clouds), proposal_scatter(clouds, plt.subplots()[1])):
        for drawn, (score, overlap) in zip(ax.collections, clouds.values(), strict=True):
            expected = torch.stack([score, overlap], dim=1)
            np.testing.assert_allclose(drawn.get_offsets(), expected, atol=1e-6)


def test_the_good_corner_is_counted():
    score, overlap = torch.tensor([0.9, 0.9, 0.1, 0.6]), torch.tensor([0.8, 0.2, 0.9, 0.7])
    with themed(DARK):
        ax = proposal_scatter({"v": (score, overlap)})
    (text,) = ax.get_legend().get_texts()
    assert text.get_text() == "v: 2 of 4 with both above 0.5"


def test_best_iou_is_that_of_the_nearest_object():
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.1, 0.1, 0.1, 0.1]])
    objects = torch.tensor([[0.5, 0.5, 0.4, 0.2], [0.9, 0.9, 0.1, 0.1]])
    assert best_iou(boxes, objects).tolist() == pytest.approx([0.5, 0.0])
    assert best_iou(boxes, objects[:0]).tolist() == [0, 0]


def test_squares_lie_on_the_cells_of_the_chosen_tokens(rng):
    tokens = torch.randperm(126, generator=rng)[:40]
    axes = selected_tokens(tokens, SHAPES, IMAGE)
    found = {}
    for level, ax in enumerate(axes):
        places = torch.from_numpy(np.asarray(ax.collections[0].get_offsets()))
        back = tokens_of_cells(cells_at(places, level, SHAPES, (64, 96)), SHAPES)
        ranks = np.asarray(ax.collections[0].get_array())
        found |= dict(zip(ranks.astype(int).tolist(), back.tolist(), strict=True))
        assert f"{len(places)} of 40" in ax.get_title()
    assert [found[rank] for rank in range(40)] == tokens.tolist()
