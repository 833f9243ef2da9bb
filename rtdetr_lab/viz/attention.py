r"""# Attention: which cells and queries attend to which

AIFI's weights are one matrix per head, cells × cells. Row $n$ is the attention of cell $n$ to all
cells, and sums to one. A matrix of 400 × 400 is hard to read. One row of it over the picture shows
where the cell under a pixel attends.

    weights = seen["encoder.aifi.layers.0.self_attn.weights"][0]        # M N N
    attention_of_pixel(weights, image, shape=(20, 20), pixel=(320, 200))

`position_similarity` shows the cells with similar sine embeddings: those of the same row or column.

**The queries themselves avoid duplicates**: no later step removes them. In the self-attention of
every layer, queries exchange information about the same object, and all but one learn a low score.
Row $q$ of the weights is the attention of query $q$ to all queries, and sums to one.

    weights = seen["decoder.layers.2.self_attn.weights"][0]             # M Q Q
    query_links(weights, boxes, image, query=0)
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from rtdetr_lab.notation import Size
from rtdetr_lab.viz import canvas
from rtdetr_lab.viz.canvas import Axes, Picture
from rtdetr_lab.viz.cells import cells_at, centres_of_cells, tokens_of_cells
from rtdetr_lab.viz.marks import centres_of_boxes, frame_box, key_below, line_key, mark_key, matrix
from rtdetr_lab.viz.palette import HEAT, ORANGE, RIM, SKY

Pixel = tuple[float, float]
"""(x, y) in pixels of the picture."""


def attention_of_pixel(
    weights: Float[Tensor, "M N N"],
    image: Picture,
    shape: Size,
    pixel: Pixel,
    head: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw where the cell under a pixel attends: one head, or the mean of all heads."""
    ax, size = canvas.picture_axes(ax, image, quiet=0.8, extra=0.6, across=6.1)
    rows, title = one_head(weights, head)
    cell = cells_at(torch.tensor(pixel), 0, [shape], size)
    drawn = _draw_row(ax, rows[tokens_of_cells(cell, [shape])], shape, cell, size)
    ax.set_title(title, fontsize=9)
    canvas.scale_bar(drawn, ax, "attention weight (all cells sum to 1)")
    key_below(ax, [mark_key(f"cell of pixel ({pixel[0]:g}, {pixel[1]:g})", SKY, "*", 11.0)])
    return ax


def attention_per_head(
    weights: Float[Tensor, "M N N"],
    image: Picture,
    shape: Size,
    pixel: Pixel,
    axes: Sequence[Axes] | None = None,
) -> list[Axes]:
    """Draw where the cell under a pixel attends: one panel per head, with a common scale."""
    heads, columns = len(weights), 4 if len(weights) % 3 else 3
    axes, size = canvas.picture_grid(axes, image, heads, columns, quiet=0.8, extra=0.25)
    cell = cells_at(torch.tensor(pixel), 0, [shape], size)
    rows = weights[:, tokens_of_cells(cell, [shape])]
    for head, ax in enumerate(axes):
        drawn = _draw_row(ax, rows[head], shape, cell, size, vmax=float(rows.max()))
        ax.set_title(f"head {head}", fontsize=9)
    canvas.scale_bar(drawn, axes, "attention weight")
    return axes


def one_head(weights: Float[Tensor, "M N N"], head: int | None) -> tuple[Tensor, str]:
    """Return the weights of a head, or the mean of all heads, and a title."""
    if head is None:
        return weights.mean(0), "mean of all heads"
    return weights[head], f"head {head}"


def _draw_row(
    ax: Axes,
    row: Float[Tensor, "N"],
    shape: Size,
    cell: Int[Tensor, "3"],
    size: Size,
    vmax: float | None = None,
) -> object:
    drawn = canvas.heat(ax, row.unflatten(0, shape), size, vmax=vmax)
    _mark_cell(ax, *centres_of_cells(cell, [shape], size).tolist())
    return drawn


def _mark_cell(ax: Axes, x: float, y: float) -> None:
    star = {"marker": "*", "s": 110, "color": SKY, "edgecolors": RIM, "linewidths": 1.0}
    ax.scatter([x], [y], zorder=4, **star)


def position_similarity(
    positions: Float[Tensor, "N D"], shape: Size, cell: tuple[int, int], ax: Axes | None = None
) -> Axes:
    """Draw the cosine between the embedding of one cell (row, column) and those of all cells."""
    rows, columns = shape
    ax = canvas.new_axes(ax, 4.0 * rows / columns + 0.7, 5.2)
    token = cell[0] * columns + cell[1]
    unit = F.normalize(positions.detach().double(), dim=-1)
    alike = (unit @ unit[token]).unflatten(0, shape).cpu().numpy()
    drawn = matrix(ax, alike, cmap=HEAT, vmax=1.0)
    _mark_cell(ax, float(cell[1]), float(cell[0]))
    ax.set(xlabel="column of S5 (cells)", ylabel="row of S5 (cells)")
    ax.locator_params(integer=True)
    canvas.scale_bar(drawn, ax, f"cosine with cell (row {cell[0]}, column {cell[1]})")
    return ax


def query_links(
    weights: Float[Tensor, "M Q Q"],
    boxes: Float[Tensor, "Q 4"],
    image: Picture,
    query: int,
    count: int = 12,
    ax: Axes | None = None,
) -> Axes:
    """Draw lines from a query to the `count` others with the most weight; width is weight."""
    ax, size = canvas.picture_axes(ax, image, quiet=0.6)
    heard = weights.mean(0)[query].detach().double().clone()
    to_itself = float(heard[query])
    heard[query] = -1
    top = heard.topk(min(count, len(heard) - 1))
    centres = centres_of_boxes(boxes, size)
    for other, weight in zip(top.indices.tolist(), top.values.tolist(), strict=True):
        thick = 0.5 + 5 * weight / max(float(top.values[0]), 1e-12)
        line = {"color": ORANGE, "lw": thick, "gid": f"{other}:{weight!r}", "alpha": 0.9}
        ax.plot(*centres[[query, other]].unbind(-1), **line)
        frame_box(ax, boxes[other], size, ORANGE, "--", 1.0)
    frame_box(ax, boxes[query], size, SKY, width=2.4).set_zorder(5)
    shown = float(top.values.sum())
    ax.set_title(f"{to_itself:.0%} to itself, {shown:.0%} to the boxes shown", fontsize=9)
    rest = line_key(f"the {len(top.values)} it attends to most", ORANGE, "--")
    key_below(ax, [line_key(f"query {query}", SKY), rest])
    return ax
