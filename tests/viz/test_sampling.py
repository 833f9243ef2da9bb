"""A mark is one read: it lies where the model looked and is as large as the look counts."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from rtdetr_lab.deformable_attention import DeformableAttention
from rtdetr_lab.errors import ConfigError
from rtdetr_lab.samplers import Discrete
from rtdetr_lab.taps import record
from rtdetr_lab.viz.cells import cells_of_tokens, centres_of_cells
from rtdetr_lab.viz.sampling import (
    BEYOND,
    QuerySampling,
    around,
    close_up,
    mark_area,
    sampling_of_query,
    sampling_panels,
    sampling_points,
)

SHAPES, POINTS = [(8, 12), (4, 6), (2, 3)], (4, 2, 1)
IMAGE = np.full((200, 300, 3), 90, dtype=np.uint8)


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    plt.close("all")


@pytest.fixture
def seen(rng):
    """The taps of one deformable attention of 3 heads, named as a decoder's third layer."""
    part = DeformableAttention(24, 3, POINTS)
    torch.nn.init.normal_(part.sampling_offsets.weight, std=0.3, generator=rng)
    torch.nn.init.normal_(part.attention_weights.weight, std=0.3, generator=rng)
    queries = torch.randn(2, 5, 24, generator=rng)
    boxes = 0.3 + 0.4 * torch.rand(2, 5, 4, generator=rng)
    memory = torch.randn(2, 126, 24, generator=rng)
    with torch.no_grad(), record(part) as taps:
        part(queries, boxes, memory, SHAPES)
    where = "decoder.layers.2.cross_attn"
    return {f"{where}.{k}": v for k, v in taps.items()} | {"decoder.reference.2": boxes}


def marks(ax):
    """(places in pixels, areas) by level, read from what is drawn."""
    drawn = [c for c in ax.collections if (c.get_gid() or "").startswith("level")]
    return [(np.asarray(c.get_offsets()), np.asarray(c.get_sizes())) for c in drawn]


def test_marks_are_the_recorded_locations_and_weights(seen):
    ax = sampling_points(sampling_of_query(seen, 2, query=3, points=POINTS, picture=1), IMAGE)
    where = seen["decoder.layers.2.cross_attn.locations"][1, 3].split(POINTS, dim=1)
    weights = seen["decoder.layers.2.cross_attn.weights"][1, 3].split(POINTS, dim=1)
    drawn = marks(ax)
    assert len(drawn) == len(POINTS)
    for (places, areas), at, much in zip(drawn, where, weights, strict=True):
        expected = at.flatten(0, 1).double().numpy() * [300, 200]
        np.testing.assert_allclose(places, expected, atol=1e-6)
        np.testing.assert_allclose(areas / mark_area(ax), much.flatten(), atol=1e-6)


def test_the_ink_of_a_head_is_always_the_same(seen):
    for head in range(3):
        ax = sampling_points(sampling_of_query(seen, 2, 0, POINTS), IMAGE, head)
        total = sum(areas.sum() for _, areas in marks(ax))
        assert total / mark_area(ax) == pytest.approx(1, abs=1e-6)


def test_the_frame_is_the_reference_box(seen):
    (frame,) = sampling_points(sampling_of_query(seen, 2, 1, POINTS), IMAGE).patches
    cx, cy, w, h = seen["decoder.reference.2"][0, 1].double().tolist()
    expected = [(cx - w / 2) * 300, (cy - h / 2) * 200, w * 300, h * 200]
    drawn = [*frame.get_xy(), frame.get_width(), frame.get_height()]
    np.testing.assert_allclose(drawn, expected, atol=1e-6)


def test_a_discrete_sampler_shows_the_cells_it_reads(seen):
    locations = seen["decoder.layers.2.cross_attn.locations"]
    cells = Discrete().cells(locations, SHAPES, POINTS)[0, 0]
    reads = centres_of_cells(cells_of_tokens(cells, SHAPES), SHAPES, (1, 1))
    sampling = sampling_of_query(seen, 2, 0, POINTS)
    ax = sampling_points(
        QuerySampling(sampling.locations, sampling.weights, POINTS, reads=reads), IMAGE
    )
    (crosses,) = [c for c in ax.collections if c.get_gid() == "reads"]
    (lines,) = [c for c in ax.collections if hasattr(c, "get_segments")]
    np.testing.assert_allclose(
        crosses.get_offsets(), reads.flatten(0, 1).numpy() * [300, 200], atol=1e-6
    )
    ends = np.array(lines.get_segments())
    np.testing.assert_allclose(ends[:, 1], crosses.get_offsets(), atol=1e-6)
    expected = locations[0, 0].flatten(0, 1).double().numpy() * [300, 200]
    np.testing.assert_allclose(ends[:, 0], expected, atol=1e-6)


def test_variants_stand_side_by_side_on_given_axes(seen):
    axes = plt.subplots(1, 2)[1]
    sampling = sampling_of_query(seen, 2, 0, POINTS)
    drawn = sampling_panels({"v1": sampling, "v2": sampling}, IMAGE, axes=list(axes))
    assert drawn == list(axes)
    assert [ax.get_title() for ax in drawn] == ["v1", "v2"]
    with pytest.raises(ConfigError, match="3 axes for 2 panels"):
        sampling_panels({"a": sampling, "b": sampling}, IMAGE, axes=list(plt.subplots(1, 3)[1]))


def test_a_close_up_holds_every_point_and_keeps_the_shape_of_the_picture(seen):
    sampling = [sampling_of_query(seen, 2, q, POINTS) for q in range(5)]
    left, top, right, bottom = close_up(sampling, (200, 300))
    assert (right - left) / (bottom - top) == pytest.approx(1.5)
    for one in sampling:
        x, y = (one.locations.flatten(0, 1) * torch.tensor([300, 200])).unbind(-1)
        assert left < x.min()
        assert x.max() < right
        assert top < y.min()
        assert y.max() < bottom


def test_the_view_reaches_as_far_over_each_edge_as_the_points_do():
    places = torch.tensor([[[-0.1, 0.5], [1.05, 0.4], [0.3, 1.9]]])
    sampling = QuerySampling(places, torch.ones(1, 3), (3,))
    wanted = (-20, 0, 210, 100 * (1 + BEYOND))
    assert around([sampling], (100, 200)) == pytest.approx(wanted)


def test_points_that_do_not_fit_the_weights_are_refused(seen):
    with pytest.raises(ConfigError, match="not 7 points"):
        sampling_of_query(seen, 2, 0, (4, 4, 4))
