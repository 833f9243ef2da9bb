"""Tokens are level by level, row by row, and everybody agrees on it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rtdetr_lab.notation import (
    LEVEL_NAMES,
    level_starts,
    maps_from_tokens,
    num_tokens,
    token_grid,
    tokens_from_maps,
)

sizes = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=4)


def test_a_640_picture_has_8400_tokens():
    shapes = [(80, 80), (40, 40), (20, 20)]
    assert num_tokens(shapes) == 8400
    assert level_starts(shapes) == [0, 6400, 8000]


def test_the_grid_counts_columns_first_then_rows_then_levels():
    assert token_grid([(2, 3), (1, 2)]).tolist() == [
        [0, 0, 0], [0, 0, 1], [0, 0, 2],
        [0, 1, 0], [0, 1, 1], [0, 1, 2],
        [1, 0, 0], [1, 0, 1],
    ]  # fmt: skip


@given(sizes)
def test_token_n_of_a_level_lies_in_row_n_over_w_and_column_n_mod_w(shapes):
    grid = token_grid(shapes)
    assert len(grid) == num_tokens(shapes)
    for level, (start, (height, width)) in enumerate(
        zip(level_starts(shapes), shapes, strict=True)
    ):
        for n in range(height * width):
            assert grid[start + n].tolist() == [level, n // width, n % width]


@given(sizes)
def test_tokens_and_maps_are_each_others_inverse(shapes):
    maps = [torch.randn(2, 3, *shape) for shape in shapes]
    tokens = tokens_from_maps(maps)
    assert tokens.shape == (2, num_tokens(shapes), 3)
    back = maps_from_tokens(tokens, shapes)
    assert all(torch.equal(a, b) for a, b in zip(maps, back, strict=True))


@given(sizes)
def test_the_grid_says_where_a_token_came_from(shapes):
    maps = [torch.randn(1, 2, *shape) for shape in shapes]
    tokens = tokens_from_maps(maps)
    for n, (level, row, column) in enumerate(token_grid(shapes).tolist()):
        assert torch.equal(tokens[0, n], maps[level][0, :, row, column])


@pytest.mark.parametrize(("name", "stride"), [("S2", 4), ("S3", 8), ("S5", 32), ("S6", 64)])
def test_a_levels_name_is_the_logarithm_of_its_stride(name, stride):
    assert LEVEL_NAMES[stride.bit_length() - 3] == name
