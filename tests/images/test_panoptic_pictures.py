"""Panoptic pictures: every pixel in the colour of its segment, every name inside its own."""

import numpy as np
import pytest
import torch

from rtdetr_lab.errors import ConfigError
from rtdetr_lab.images.panoptic import Segment, Segments
from rtdetr_lab.viz.palette import DARK, rgb
from rtdetr_lab.viz.panoptic import (
    FILL,
    colors_of,
    paint_segments,
    show_segments,
    show_semantic,
    visible_centre,
)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.fixture
def found():
    """Two cats before a sky, and a strip that is nobody's."""
    ids = torch.full((40, 60), 3)
    ids[10:30, 5:20], ids[10:30, 25:50], ids[38:] = 1, 2, 0
    segments = (Segment(1, 17, 0.9, 0), Segment(2, 17, 0.8, 1), Segment(3, 18, 0.7, 2))
    return Segments(ids, segments)


NAMES = [f"class {i}" for i in range(17)] + ["cat", "sky"]
GREY = np.full((40, 60, 3), 100, np.uint8)


def test_a_pixel_has_the_colour_of_its_segment_and_nobodys_stays(found):
    painted, colors = paint_segments(GREY, found.ids, colors_of(found)), colors_of(found)
    for id, (y, x) in {1: (20, 10), 2: (20, 35), 3: (3, 3)}.items():
        expected = (1 - FILL) * 100 + FILL * np.array(rgb(colors[id]))
        assert np.abs(painted[y, x] - expected).max() <= 0.51
    assert (painted[39, 30] == 100).all()
    assert (GREY == 100).all()


def test_things_of_one_class_differ_in_colour_and_are_divided_by_a_black_line(found):
    colors = colors_of(found)
    assert colors[1] == DARK.color(17)
    assert len(set(colors.values())) == 3
    touching = torch.ones(4, 6, dtype=torch.long)
    touching[:, 3:] = 2
    painted = paint_segments(np.full((4, 6, 3), 200, np.uint8), touching, {1: "#FFFFFF"})
    assert (painted[:, 2] == 0).all()
    assert (painted[:, [0, 1, 3, 4, 5]] > 0).all()


def test_a_name_stands_inside_its_segment_even_where_the_mean_does_not():
    ring = np.zeros((31, 31), bool)
    ring[3:28, 3:28], ring[8:28, 8:23] = True, False
    x, y = visible_centre(ring)
    assert ring[y, x]
    ys, xs = ring.nonzero()
    assert not ring[int(ys.mean()), int(xs.mean())]
    assert visible_centre(np.ones((5, 9), bool))[1] == 2


def test_a_name_stands_where_its_segment_is_widest():
    """A pin: its head is in the upper left, and most of its pixels are in the long needle."""
    pin = np.zeros((40, 90), bool)
    pin[2:13, 3:14] = pin[7, 14:88] = pin[8:10, 14:88] = True
    x, y = visible_centre(pin)
    assert (x, y) == (8, 7)


def test_every_segment_is_named_once_with_its_score(found):
    ax = show_segments(GREY, found, NAMES)
    texts = {t.get_text(): tuple(map(int, t.get_position())) for t in ax.texts}
    assert set(texts) == {"cat 0.90", "cat 0.80", "sky 0.70"}
    for text, id in (("cat 0.90", 1), ("cat 0.80", 2), ("sky 0.70", 3)):
        x, y = texts[text]
        assert found.ids[y, x] == id


def test_a_semantic_map_names_every_class_once(found):
    labels = found.ids.new_tensor([16, 17, 17, 18])[found.ids]
    ax = show_semantic(GREY, labels, NAMES)
    assert sorted(t.get_text() for t in ax.texts) == ["cat", "class 16", "sky"]


def test_a_map_of_another_size_is_refused(found):
    with pytest.raises(ConfigError, match=r"\(40, 60\), the picture has \(41, 60\)"):
        paint_segments(np.zeros((41, 60, 3), np.uint8), found.ids, {})
