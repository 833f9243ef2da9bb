"""What is laid over the picture is the row of the matrix that was recorded."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from rtdetr_lab.aifi import AIFIConfig
from rtdetr_lab.layers import sine_2d
from rtdetr_lab.taps import record
from rtdetr_lab.viz.attention import (
    attention_of_pixel,
    attention_per_head,
    position_similarity,
    query_links,
)

SHAPE = (4, 6)
IMAGE = np.full((120, 180, 3), 90, dtype=np.uint8)


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    plt.close("all")


@pytest.fixture
def weights(rng):
    """AIFI's weights on a 4×6 map: 2 heads, 24 × 24 cells."""
    aifi = AIFIConfig(num_heads=2, ffn_dim=16).build(16)
    with torch.no_grad(), record(aifi, keep="layers.0.self_attn.weights") as seen:
        aifi(3 * torch.randn(1, 16, *SHAPE, generator=rng))
    return seen["layers.0.self_attn.weights"][0]


def overlay(ax):
    """The numbers of the last image on the axes: the first one is the picture."""
    return np.asarray(ax.images[-1].get_array())


def test_a_pixel_shows_the_row_of_its_cell(weights):
    # Pixel (100, 70) of 180 × 120 lies in column 3 and row 2 of 6 × 4 cells of 30 pixels.
    for head, row in [(None, weights.mean(0)[15]), (1, weights[1, 15])]:
        ax = attention_of_pixel(weights, IMAGE, SHAPE, (100.0, 70.0), head)
        np.testing.assert_allclose(overlay(ax), row.view(SHAPE).double(), atol=1e-6)
        assert overlay(ax).sum() == pytest.approx(1, abs=1e-6)
        assert ax.images[-1].get_extent() == [0, 180, 120, 0]
        np.testing.assert_allclose(ax.collections[0].get_offsets(), [[105, 75]], atol=1e-6)


def test_heads_stand_side_by_side_on_one_scale(weights):
    axes = attention_per_head(weights, IMAGE, SHAPE, (5.0, 5.0))
    for head, ax in enumerate(axes):
        np.testing.assert_allclose(overlay(ax), weights[head, 0].view(SHAPE), atol=1e-6)
        assert overlay(ax).sum() == pytest.approx(1, abs=1e-6)
    assert len({ax.images[-1].get_clim() for ax in axes}) == 1


def test_embeddings_are_alike_along_the_row_and_the_column_of_a_cell():
    positions = sine_2d(8, 10, 64)[0]
    ax = position_similarity(positions, (8, 10), (2, 7))
    drawn = overlay(ax)
    by_hand = torch.cosine_similarity(positions[27], positions, dim=-1).view(8, 10)
    np.testing.assert_allclose(drawn, by_hand, atol=1e-6)
    assert drawn[2, 7] == pytest.approx(1)
    assert drawn[2, 0] > drawn[6, 0]
    np.testing.assert_allclose(ax.collections[0].get_offsets(), [[7, 2]])


def test_links_lead_to_the_queries_listened_to_most(rng):
    weights = (3 * torch.randn(2, 9, 9, generator=rng)).softmax(-1)
    boxes = 0.2 + 0.6 * torch.rand(9, 4, generator=rng)
    ax = query_links(weights, boxes, IMAGE, query=4, count=3)
    row = weights.mean(0)[4].double()
    others = [q for q in row.argsort(descending=True).tolist() if q != 4][:3]
    lines = [line for line in ax.lines if ":" in (line.get_gid() or "")]
    assert [int(line.get_gid().split(":")[0]) for line in lines] == others
    for line, other in zip(lines, others, strict=True):
        assert float(line.get_gid().split(":")[1]) == pytest.approx(float(row[other]), abs=1e-6)
        ends = boxes[[4, other], :2].double().numpy() * [180, 120]
        np.testing.assert_allclose(line.get_xydata(), ends, atol=1e-6)
    assert f"{float(row[4]):.0%} to itself" in ax.get_title()
