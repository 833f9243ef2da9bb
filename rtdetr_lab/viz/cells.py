r"""# Cells: from a token to a position in the picture, and back

A token is one cell of one feature map. Its index $n$ counts the cells of all levels, each row by
row. If we stretch the map over the whole picture, the cell covers a rectangle: that is its place in
the picture. Sampling locations and anchors use the same coordinates.

| from → to                 | function           | inverse           |
|---------------------------|--------------------|-------------------|
| token → level, row, column| `cells_of_tokens`  | `tokens_of_cells` |
| cell → its centre (x, y)  | `centres_of_cells` | `cells_at`        |
| cell → its corners        | `corners_of_cells` |                   |

Positions are in units of `size`: pixels if that is the picture's (height, width), fractions with
`size=(1, 1)`. They are float64, so that a conversion and its inverse give the same cell again.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rtdetr_lab.config import require
from rtdetr_lab.notation import LEVEL_NAMES, Size, level_starts, num_tokens, token_grid

DECODER_LEVELS = ("O3", "O4", "O5", "O6", "O7")
"""The maps that the decoder reads: the hybrid encoder's outputs."""


def cells_of_tokens(tokens: Int[Tensor, "*n"], shapes: Sequence[Size]) -> Int[Tensor, "*n 3"]:
    """Return (level, row, column) of tokens; raise `ConfigError` for a token outside all levels."""
    total = num_tokens(shapes)
    inside = bool(((tokens >= 0) & (tokens < total)).all())
    what = f"a token is outside 0 … {total - 1}, the tokens of {list(shapes)}"
    require(inside, "tokens", what, "pass the shapes of the maps that the tokens come from")
    return token_grid(shapes, tokens.device)[tokens]


def tokens_of_cells(cells: Int[Tensor, "*n 3"], shapes: Sequence[Size]) -> Int[Tensor, "*n"]:
    """Return the tokens of cells, the inverse of `cells_of_tokens`."""
    level, row, column = cells.unbind(-1)
    starts = torch.tensor(level_starts(shapes), device=cells.device)
    return starts[level] + row * _sizes(cells, shapes)[..., 1] + column


def centres_of_cells(
    cells: Int[Tensor, "*n 3"], shapes: Sequence[Size], size: Size
) -> Float[Tensor, "*n 2"]:
    """Return (x, y) of the centres of cells."""
    corners = corners_of_cells(cells, shapes, size)
    return (corners[..., :2] + corners[..., 2:]) / 2


def corners_of_cells(
    cells: Int[Tensor, "*n 3"], shapes: Sequence[Size], size: Size
) -> Float[Tensor, "*n 4"]:
    """Return the rectangles of cells as xyxy."""
    height, width = _sizes(cells, shapes).double().unbind(-1)
    _, row, column = cells.double().unbind(-1)
    across, down = size[1] / width, size[0] / height
    edges = [column * across, row * down, (column + 1) * across, (row + 1) * down]
    return torch.stack(edges, dim=-1)


def cells_at(
    points: Float[Tensor, "*n 2"], level: int, shapes: Sequence[Size], size: Size
) -> Int[Tensor, "*n 3"]:
    """Return the cells of a level that contain points (x, y); outside, the nearest cells."""
    height, width = shapes[level]
    column = (points[..., 0].double() / size[1] * width).floor().long().clamp(0, width - 1)
    row = (points[..., 1].double() / size[0] * height).floor().long().clamp(0, height - 1)
    return torch.stack([torch.full_like(row, level), row, column], dim=-1)


def level_name(shape: Size, size: Size) -> str:
    """Name a level S3, S4, … by the stride of its map over a picture of `size` pixels."""
    power = round(math.log2(max(1.0, size[0] / shape[0])))
    return LEVEL_NAMES[power - 2] if 2 <= power < 2 + len(LEVEL_NAMES) else f"stride {2**power}"


def _sizes(cells: Int[Tensor, "*n 3"], shapes: Sequence[Size]) -> Int[Tensor, "*n 2"]:
    return torch.tensor(list(shapes), device=cells.device)[cells[..., 0]]
