"""Boxes and labels that can be read: colours apart, letters in contrast, nothing hidden."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rtdetr_lab.viz.boxes import (
    annotate,
    draw_boxes,
    place_labels,
    save_annotated,
    show_boxes,
)
from rtdetr_lab.viz.palette import DARK, LIGHT, OKABE_ITO, contrast, luminance, rgb, text_on
from rtdetr_lab.writing import printable, shorten

COLOR = "#0072B2"


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


def boxes(*rows):
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


# --- colours -------------------------------------------------------------------------------------


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_every_class_has_its_own_colour_the_same_one_every_time(palette):
    colors = [palette.color(i) for i in range(91)]
    assert len(set(colors)) == 91
    assert colors == [palette.color(i) for i in range(91)]
    assert min(contrast(c, palette.background) for c in colors) >= 1.9


def test_the_first_colours_are_okabe_and_itos():
    assert [DARK.color(i) for i in range(7)] == list(OKABE_ITO)


def test_the_first_seven_stay_apart_for_the_three_kinds_of_colour_blindness():
    # Machado et al. 2009, severity 1: what a dichromat sees, in linear RGB.
    kinds = {
        "protan": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
        "deutan": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
        "tritan": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
    }
    linear = (np.array([rgb(c) for c in OKABE_ITO]) / 255) ** 2.2
    for kind, matrix in kinds.items():
        seen = (linear @ np.array(matrix).T).clip(0, 1) ** (1 / 2.2) * 255
        nearest = min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2))
        assert nearest > 30, kind


@given(st.integers(0, 5000))
def test_letters_on_any_class_colour_are_readable(label):
    for palette in (LIGHT, DARK):
        color = palette.color(label)
        assert contrast(text_on(color), color) >= 4.5


def test_contrast_is_what_wcag_says():
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert luminance("#777777") == pytest.approx(0.184, abs=1e-3)
    shares = [luminance(colour) for colour in ("#FF0000", "#00FF00", "#0000FF")]
    assert shares == pytest.approx([0.2126, 0.7152, 0.0722])


# --- labels --------------------------------------------------------------------------------------


def test_a_label_sits_on_its_box_or_just_inside_where_there_is_no_room():
    places = place_labels(
        [(10.0, 30.0, 50.0, 60.0), (70.0, 2.0, 90.0, 50.0)], [(20.0, 10.0)] * 2, (100, 100)
    )
    assert places == [(10, 20), (70, 0)]


def test_labels_of_a_pile_do_not_hide_each_other():
    pile = [(40.0, 40.0, 80.0, 80.0)] * 5
    places = place_labels(pile, [(30.0, 8.0)] * 5, (120, 120))
    rects = [(x, y, x + 30, y + 8) for x, y in places]
    for a, b in itertools.combinations(rects, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


@given(st.lists(st.tuples(*[st.floats(0, 200)] * 4), max_size=12))
@settings(max_examples=60)
def test_labels_stay_inside_the_picture(rects):
    rects = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in rects]
    for x, y in place_labels(rects, [(40.0, 12.0)] * len(rects), (150, 250)):
        assert 0 <= x <= 210
        assert 0 <= y <= 138


def test_a_label_may_stand_anywhere_in_a_wide_picture():
    assert place_labels([(170.0, 40.0, 190.0, 60.0)], [(20.0, 10.0)], (80, 200)) == [(170, 30)]
    assert place_labels([(40.0, 170.0, 60.0, 190.0)], [(20.0, 10.0)], (200, 80)) == [(40, 160)]


def test_names_from_files_stay_on_one_line_and_long_ones_keep_their_score():
    assert printable("a\nb\x1b[31m\u202e") == "a\\nb\\x1b[31m\\u202e"
    assert printable("Mädchen 猫") == "Mädchen 猫"
    short = shorten("a very long name indeed 0.97", 15, len)
    assert len(short) <= 15
    assert short.endswith("… 0.97")
    assert shorten("cat 0.97", 15, len) == "cat 0.97"


# --- into the pixels -----------------------------------------------------------------------------


def test_annotating_copies_draws_inside_and_leaves_the_rest():
    picture = np.full((200, 300, 3), 90, np.uint8)
    drawn = annotate(picture, boxes([50, 60, 150, 160]), ["cat"], [COLOR])
    assert (picture == 90).all()
    assert drawn.shape == picture.shape
    assert tuple(drawn[110, 50]) == rgb(COLOR)
    assert (drawn[80:150, 70:130] == 90).all(), "the inside stays visible"
    assert (drawn[170:, 200:] == 90).all()
    right = annotate(picture, boxes([220, 60, 280, 160]), ["cat"], [COLOR])
    assert tuple(right[110, 220]) == tuple(right[110, 280]) == rgb(COLOR)


def test_boxes_beyond_the_edge_inside_out_or_without_area_are_drawn_as_far_as_they_go():
    picture = np.zeros((40, 40, 3), np.uint8)
    wild = boxes([-50, -50, 500, 500], [30, 30, 10, 10], [5, 5, 5, 5], [900, 900, 950, 950])
    drawn = annotate(picture, wild, ["a", "b", "", "d" * 300], [COLOR] * 4)
    assert drawn.shape == picture.shape


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (2000, 1500)])
def test_any_size_can_be_annotated(size):
    picture = np.zeros((*size, 3), np.uint8)
    assert annotate(picture, boxes([0, 0, 9, 9]), ["cat 0.5"], [COLOR]).shape == picture.shape


def test_lines_and_letters_grow_with_the_picture():
    covered = []
    for scale in (2, 6):
        picture = np.zeros((300 * scale, 400 * scale, 3), np.uint8)
        at = boxes([100, 100, 300, 200]) * scale
        drawn = annotate(picture, at, ["cat 0.97"], [COLOR])
        covered.append((drawn.any(-1)).mean())
    assert covered[1] == pytest.approx(covered[0], rel=0.2)


def test_nothing_found_is_the_picture_itself(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    path = save_annotated(tmp_path / "x.png", picture, boxes(), [], [])
    assert np.array_equal(np.asarray(Image.open(path)), picture)


# --- on axes -------------------------------------------------------------------------------------


def test_a_dollar_starts_no_formula_and_a_long_name_does_not_shrink_the_picture():
    picture = np.zeros((60, 90, 3), np.uint8)
    ax = show_boxes(picture, boxes([1, 1, 20, 20]), ["$\\frac{" * 40], [COLOR])
    ax.figure.canvas.draw()
    assert ax.get_window_extent().width == pytest.approx(ax.figure.bbox.width)


def test_given_axes_are_used_and_the_artists_come_back():
    import matplotlib.pyplot as plt

    _, (left, right) = plt.subplots(1, 2)
    ax = show_boxes(np.zeros((60, 90, 3), np.uint8), boxes([1, 1, 20, 20]), ["a"], [COLOR], left)
    assert ax is left
    assert not right.patches
    for artist in draw_boxes(right, boxes([1, 1, 9, 9], [5, 5, 8, 8]), "ab", [COLOR] * 2, (60, 90)):
        artist.remove()
    assert not right.patches
    assert not right.texts
