r"""# Attention: who listens to whom

AIFI's weights are one matrix per head, cells × cells: row $n$ says how cell $n$ spreads its
attention over the map, and sums to one. A matrix of 400 × 400 says little; one row of it, laid over
the picture, says where the cell under a pixel looks.

    weights = seen["encoder.aifi.layers.0.self_attn.weights"][0]        # M N N
    attention_of_pixel(weights, image, shape=(20, 20), pixel=(320, 200))

`position_similarity` shows what the sine embedding alone makes alike: rows and columns of a cell.
`query_matrix` and `query_links` show the decoder's self-attention, between queries, which is where
duplicates are settled without NMS.
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
    ORANGE,
    RIM,
    SKY,
    as_rgb,
    bare,
    frame_box,
    heat,
    key_below,
    new_axes,
    new_grid,
    rim,
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
    ax = new_axes(ax, 6.2 * height / width, 7.0)
    spread = weights.mean(0) if head is None else weights[head]
    drawn = _spread_on_picture(ax, spread, image, shape, pixel)
    ax.set_title("mean of all heads" if head is None else f"head {head}", fontsize=9)
    scale_bar(drawn, ax, "attention weight (all cells sum to 1)")
    key_below(ax)
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
    **limits: float,
) -> object:
    size = show_picture(ax, image, quiet=0.8)
    cell = cells_at(torch.tensor(pixel), 0, [shape], size)
    drawn = heat(ax, spread[tokens_of_cells(cell, [shape])].unflatten(0, shape), size, **limits)
    _mark_cell(ax, centres_of_cells(cell, [shape], size), f"cell ({cell[1]}, {cell[2]})")
    return drawn


def _mark_cell(ax: "Axes", centre: Float[Tensor, "2"], label: str) -> None:
    x, y = centre.tolist()
    star = {"marker": "*", "s": 110, "color": SKY, "edgecolors": RIM, "linewidths": 1.0}
    ax.scatter([x], [y], label=label, zorder=4, **star)


def position_similarity(
    positions: Float[Tensor, "N D"],
    shape: Size,
    cell: tuple[int, int],
    ax: "Axes | None" = None,
) -> "Axes":
    """Cosine between the embedding of one cell (row, column) and those of all cells."""
    rows, columns = shape
    ax = new_axes(ax, 4.2 * rows / columns, 4.6)
    token = cell[0] * columns + cell[1]
    unit = F.normalize(positions.detach().double(), dim=-1)
    alike = (unit @ unit[token]).unflatten(0, shape)
    drawn = heat(ax, alike, shape, False, vmin=float(alike.min()), vmax=1.0)
    _mark_cell(ax, torch.tensor([cell[1] + 0.5, cell[0] + 0.5]), f"cell ({cell[0]}, {cell[1]})")
    ax.set(xlabel="column (cells)", ylabel="row (cells)")
    scale_bar(drawn, ax, "cosine of position embeddings")
    ax.legend(loc="upper right", fontsize=8, framealpha=0.85)
    return ax


def query_matrix(
    weights: Float[Tensor, "M Q Q"], head: int | None = None, ax: "Axes | None" = None
) -> "Axes":
    """Self-attention between queries, best-scored first: each row sums to 1."""
    ax = new_axes(ax, 4.4, 5.0)
    shown = (weights.mean(0) if head is None else weights[head]).detach().double().cpu().numpy()
    drawn = ax.imshow(shown, cmap="inferno", vmin=0, interpolation="nearest")
    bare(ax)
    last = len(shown) - 1
    ax.set(xlabel="is listened to (query, by rank)", ylabel="listens (query, by rank)")
    ax.set(xticks=[0, last // 2, last], yticks=[0, last // 2, last])
    ax.set_title("mean of all heads" if head is None else f"head {head}", fontsize=9)
    scale_bar(drawn, ax, "attention weight (rows sum to 1)")
    return ax


def query_links(
    weights: Float[Tensor, "M Q Q"],
    boxes: Float[Tensor, "Q 4"],
    image: np.ndarray | Tensor,
    query: int,
    count: int = 12,
    ax: "Axes | None" = None,
) -> "Axes":
    """Lines from a query to the `count` others it listens to most, as wide as their weight."""
    height, width = as_rgb(image).shape[:2]
    ax = new_axes(ax, 7.0 * height / width + 0.4)
    size = show_picture(ax, image, quiet=0.6)
    heard = weights.mean(0)[query].detach().double().clone()
    to_itself = float(heard[query])
    heard[query] = -1
    top = heard.topk(min(count, len(heard) - 1))
    centres = boxes[:, :2].detach().double().cpu() * torch.tensor([width, height])
    x, y = centres[query].tolist()
    for other, weight in zip(top.indices.tolist(), top.values.tolist(), strict=True):
        thick = 0.5 + 5 * weight / max(float(top.values[0]), 1e-12)
        line = {"color": ORANGE, "lw": thick, "gid": f"{other}:{weight!r}", "alpha": 0.9}
        ax.plot([x, *centres[other, :1].tolist()], [y, *centres[other, 1:].tolist()], **line)
        frame_box(ax, boxes[other], size, ORANGE, "--", 1.0)
    frame_box(ax, boxes[query], size, SKY).set_label(f"query {query}")
    (label,) = ax.plot([], [], color=ORANGE, lw=2, label=f"the {len(top.values)} it hears most")
    label.set_path_effects(rim(3.5))
    ax.set_title(
        f"query {query}: {to_itself:.0%} to itself, {float(top.values.sum()):.0%} to those shown",
        fontsize=9,
    )
    key_below(ax)
    return ax
