"""A token, its cell and its place in the picture are three names of one thing."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rtdetr_lab.errors import ConfigError
from rtdetr_lab.notation import num_tokens, token_grid
from rtdetr_lab.query_selection import anchors
from rtdetr_lab.viz.cells import (
    cells_at,
    cells_of_tokens,
    centres_of_cells,
    corners_of_cells,
    level_name,
    tokens_of_cells,
)

side = st.integers(1, 40)
sizes = st.tuples(side, side)
levels = st.lists(sizes, min_size=1, max_size=4)
pictures = st.tuples(st.integers(1, 2000), st.integers(1, 2000))


@given(levels)
def test_token_to_cell_and_back_is_the_same_token(shapes):
    tokens = torch.arange(num_tokens(shapes))
    cells = cells_of_tokens(tokens, shapes)
    assert torch.equal(tokens_of_cells(cells, shapes), tokens)
    assert torch.equal(cells, token_grid(shapes))


@given(levels, pictures)
def test_the_cell_at_the_centre_of_a_cell_is_that_cell(shapes, size):
    for level, cells in enumerate(token_grid(shapes).split([h * w for h, w in shapes])):
        centres = centres_of_cells(cells, shapes, size)
        assert torch.equal(cells_at(centres, level, shapes, size), cells)


@given(levels, pictures)
def test_the_cells_of_a_level_cover_the_picture_once(shapes, size):
    corners = corners_of_cells(token_grid(shapes), shapes, size)
    area = (corners[:, 2:] - corners[:, :2]).prod(-1)
    for part in area.split([h * w for h, w in shapes]):
        assert part.sum().item() == pytest.approx(size[0] * size[1])
    assert corners.min() >= 0
    assert corners[:, [2, 3]].amax(0).tolist() == pytest.approx([size[1], size[0]])


def test_the_middle_of_a_cell_is_where_the_model_puts_its_anchor():
    shapes = ((20, 24), (10, 12), (5, 6))
    logits, valid = anchors(shapes)
    centres = centres_of_cells(token_grid(shapes), shapes, (1, 1))
    inside = valid.squeeze(-1)
    assert inside.any()
    torch.testing.assert_close(
        logits.double().sigmoid()[inside, :2], centres[inside], atol=1e-6, rtol=0
    )


def test_by_hand():
    shapes = [(4, 6), (2, 3)]
    assert cells_of_tokens(torch.tensor([0, 7, 24, 29]), shapes).tolist() == [
        [0, 0, 0],
        [0, 1, 1],
        [1, 0, 0],
        [1, 1, 2],
    ]
    assert centres_of_cells(torch.tensor([1, 1, 2]), shapes, (40, 60)).tolist() == [50.0, 30.0]
    far = torch.tensor([[-5.0, 1e4]])
    assert cells_at(far, 0, shapes, (40, 60)).tolist() == [[0, 3, 0]]


def test_a_token_that_no_level_has_is_refused():
    for token in (-1, 30):
        with pytest.raises(ConfigError, match="outside 0 … 29"):
            cells_of_tokens(torch.tensor([token]), [(4, 6), (2, 3)])


def test_levels_are_called_by_their_stride():
    assert [level_name((s, s), (640, 640)) for s in (160, 80, 40, 20, 10)] == [
        "S2",
        "S3",
        "S4",
        "S5",
        "S6",
    ]
    assert level_name((10, 15), (300, 451)) == "S5"
    assert level_name((1, 1), (512, 512)) == "stride 512"
