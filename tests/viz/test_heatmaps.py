"""Heat maps are drawn as they are: one square is one cell, and the scale says how much."""

import numpy as np
import pytest
import torch
from matplotlib.patches import Rectangle
from PIL import Image

from rtdetr_lab.viz.canvas import themed
from rtdetr_lab.viz.heatmaps import Heatmaps, spread
from rtdetr_lab.viz.palette import DARK


@pytest.fixture
def maps(rng):
    sampling, attention, gradient = torch.rand(3, 40, 60, generator=rng, dtype=torch.float64)
    box = torch.tensor([10.0, 5.0, 30.0, 25.0])
    image = np.full((40, 60, 3), 90, np.uint8)
    return Heatmaps(sampling, attention, gradient, box, "a $cat$", 0.875, 12, image)


@pytest.mark.parametrize(
    ("cells", "size"), [((2, 3), (33, 41)), ((7, 5), (4, 3)), ((3, 3), (6, 9))]
)
def test_a_cell_is_divided_among_the_pixels_it_covers(cells, size, rng):
    numbers = torch.rand(cells, generator=rng, dtype=torch.float64)
    fine = numbers.repeat_interleave(size[0], 0).repeat_interleave(size[1], 1)
    fine = fine / (size[0] * size[1])
    by_hand = fine.view(size[0], cells[0], size[1], cells[1]).sum((1, 3))
    torch.testing.assert_close(spread(numbers, size), by_hand)
    assert spread(numbers, size).sum() == pytest.approx(numbers.sum().item())


def test_the_figure_has_three_named_panels_with_the_box_and_their_own_scale(maps):
    axes = maps.plot()
    assert [ax.get_title()[:1] for ax in axes] == ["1", "2", "3"]
    for ax, values in zip(axes, (maps.sampling, maps.attention, maps.gradient), strict=True):
        drawn = ax.images[-1].get_array()
        np.testing.assert_allclose(drawn, values / values.mean())
        (box,) = [p for p in ax.patches if isinstance(p, Rectangle)]
        assert (box.get_x(), box.get_y(), box.get_width(), box.get_height()) == (10, 5, 20, 20)
        (bar,) = ax.child_axes
        assert bar.get_xlabel() == "times the mean of the picture"
    (legend,) = axes[0].figure.legends
    assert legend.get_texts()[0].get_text() == r"a \$cat\$ 0.88, query 12"


def test_it_is_saved_at_twice_the_width_of_a_page_in_the_colours_of_the_page(maps, tmp_path):
    with themed(DARK):
        dark = Image.open(maps.save(tmp_path / "dark.png")).convert("RGB")
    white = Image.open(maps.save(tmp_path / "white.png")).convert("RGB")
    assert dark.size[0] == white.size[0] == 1260
    assert (dark.getpixel((2, 2)), white.getpixel((2, 2))) == ((17, 19, 24), (255, 255, 255))


def test_a_map_of_zeros_is_drawn_without_a_warning(maps, recwarn):
    zeros = torch.zeros(40, 60, dtype=torch.float64)
    Heatmaps(zeros, zeros, zeros, maps.box_xyxy, "cat", 0.5, 0, maps.image).plot()
    assert not recwarn.list
