r"""# Attention: who listens to whom

AIFI's weights are one matrix per head, cells × cells: row $n$ says how cell $n$ spreads its
attention over the map, and sums to one. A matrix of 400 × 400 says little; one row of it, laid over
the picture, says where the cell under a pixel looks.

    weights = seen["encoder.aifi.layers.0.self_attn.weights"][0]        # M N N
    attention_of_pixel(weights, image, shape=(20, 20), pixel=(320, 200))

`position_similarity` shows what the sine embedding alone makes alike: rows and columns of a cell.
Attention between queries, in the decoder, is `query_attention.py`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rtdetr_lab.notation import Size
from rtdetr_lab.viz.canvas import (
    HEAT,
    RIM,
    SKY,
    as_rgb,
    heat,
    key_below,
    mark_key,
    new_axes,
    new_grid,
    scale_bar,
    show_picture,
)
from rtdetr_lab.viz.cells import cells_at, centres_of_cells, tokens_of_cells

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Pixel = tuple[float, float]
"""(x, y) in pixels of the picture."""


def attention_of_pixel(
    weights: Float[Tensor, "M N N"],
    image: np.ndarray | Tensor,
    shape: Size,
    pixel: Pixel,
    head: int | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Where the cell under a pixel looks: one head, or the mean of all."""
    height, width = as_rgb(image).shape[:2]
    ax = new_axes(ax, 6.1 * height / width + 0.6)
    spread = weights.mean(0) if head is None else weights[head]
    drawn = _spread_on_picture(ax, spread, image, shape, pixel)
    ax.set_title("mean of all heads" if head is None else f"head {head}", fontsize=9)
    scale_bar(drawn, ax, "attention weight (all cells sum to 1)")
    key_below(ax, [mark_key(f"cell of pixel ({pixel[0]:g}, {pixel[1]:g})", SKY, "*", 11.0)])
    return ax


def attention_per_head(
    weights: Float[Tensor, "M N N"],
    image: np.ndarray | Tensor,
    shape: Size,
    pixel: Pixel,
    axes: "Sequence[Axes] | None" = None,
) -> "list[Axes]":
    """The same, one panel per head and one common scale."""
    height, width = as_rgb(image).shape[:2]
    heads = len(weights)
    axes = new_grid(axes, heads, min(heads, 4 if heads % 3 else 3), height / width, extra=0.25)
    at = cells_at(torch.tensor(pixel), 0, [shape], (height, width))
    high = float(weights[:, tokens_of_cells(at, [shape])].max())
    for head, (ax, spread) in enumerate(zip(axes, weights, strict=True)):
        drawn = _spread_on_picture(ax, spread, image, shape, pixel, vmax=high)
        ax.set_title(f"head {head}", fontsize=9)
    scale_bar(drawn, axes, "attention weight")
    return axes


def _spread_on_picture(
    ax: "Axes",
    spread: Float[Tensor, "N N"],
    image: np.ndarray | Tensor,
    shape: Size,
    pixel: Pixel,
    vmax: float | None = None,
) -> object:
    size = show_picture(ax, image, quiet=0.8)
    cell = cells_at(torch.tensor(pixel), 0, [shape], size)
    drawn = heat(ax, spread[tokens_of_cells(cell, [shape])].unflatten(0, shape), size, vmax=vmax)
    _mark_cell(ax, *centres_of_cells(cell, [shape], size).tolist())
    return drawn


def _mark_cell(ax: "Axes", x: float, y: float) -> None:
    star = {"marker": "*", "s": 110, "color": SKY, "edgecolors": RIM, "linewidths": 1.0}
    ax.scatter([x], [y], zorder=4, **star)


def position_similarity(
    positions: Float[Tensor, "N D"],
    shape: Size,
    cell: tuple[int, int],
    ax: "Axes | None" = None,
) -> "Axes":
    """Cosine between the embedding of one cell (row, column) and those of all cells."""
    rows, columns = shape
    ax = new_axes(ax, 4.0 * rows / columns + 0.7, 5.2)
    token = cell[0] * columns + cell[1]
    unit = F.normalize(positions.detach().double(), dim=-1)
    alike = (unit @ unit[token]).unflatten(0, shape).cpu().numpy()
    drawn = ax.imshow(alike, cmap=HEAT, vmax=1.0, interpolation="nearest")
    _mark_cell(ax, float(cell[1]), float(cell[0]))
    ax.set(xlabel="column of S5 (cells)", ylabel="row of S5 (cells)")
    ax.locator_params(integer=True)
    scale_bar(drawn, ax, f"cosine with cell (row {cell[0]}, column {cell[1]})")
    return ax
