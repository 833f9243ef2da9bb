r"""# Queries: the selected tokens, and their quality

The paper's Figure 6 is a cloud: one dot per selected token, its class score on x, the IoU of its
box with the best object on y. A dot on the lower right is a confident token with a poor box: a lost
query. A dot on the upper left is a good box that was nearly not selected. Varifocal loss moves the
cloud to the diagonal. The decoder profits from the dots in the upper right corner; we count them.

    score = proposals.logits.sigmoid().amax(-1)[0]
    proposal_scatter({"varifocal": (score, best_iou(proposals.boxes[0], objects))})
    selected_tokens(proposals.index[0], shapes, image)
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rtdetr_lab.boxes import iou, xyxy_from_cxcywh
from rtdetr_lab.notation import Size
from rtdetr_lab.viz.canvas import Axes, Picture, new_plot, panel_width, picture_grid, scale_bar
from rtdetr_lab.viz.cells import DECODER_LEVELS, cells_of_tokens, centres_of_cells
from rtdetr_lab.viz.marks import MARKERS, key_above, mark_key
from rtdetr_lab.viz.palette import DARK, LIGHT, RIM
from rtdetr_lab.writing import figure_text

Cloud = tuple[Float[Tensor, "Q"], Float[Tensor, "Q"]]
"""Class score and IoU of every query."""

GOOD = 0.5
"""Threshold of score and IoU; in the papers a token above both is a good one."""

GROUP_LABELS = {LIGHT: (0, 5, 2, 3), DARK: (4, 5, 6, 3)}
"""Colours of up to four clouds; with their marks they are easy to distinguish."""


def best_iou(boxes: Float[Tensor, "Q 4"], objects: Float[Tensor, "T 4"]) -> Float[Tensor, "Q"]:
    """Compute the IoU of every box with its best object; 0 if there is no object."""
    if not len(objects):
        return boxes.new_zeros(len(boxes))
    return iou(xyxy_from_cxcywh(boxes.detach()), xyxy_from_cxcywh(objects)).amax(1)


def proposal_scatter(clouds: Mapping[str, Cloud], ax: Axes | None = None) -> Axes:
    """Draw score against IoU, one cloud per model, and count the good tokens."""
    ax, page = new_plot(ax, 4.6, 5.0)
    entries, looks = [], zip(GROUP_LABELS[page], MARKERS, strict=False)
    for (name, cloud), (label, marker) in zip(clouds.items(), looks, strict=False):
        x, y = (v.detach().cpu().double().numpy() for v in cloud)
        color = page.color(label)
        ax.scatter(x, y, s=16, color=color, marker=marker, alpha=0.65, linewidths=0, label=name)
        good = f"{((x > GOOD) & (y > GOOD)).sum()} of {len(x)} with both above {GOOD:g}"
        entries.append(mark_key(f"{figure_text(name)}: {good}", color, marker))
    for line in (ax.axvline, ax.axhline):
        line(GOOD, color=page.muted, lw=0.8, ls=":", zorder=0)
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    ax.set(xlabel="class score", ylabel="IoU with the best object")
    key_above(ax, 1, handles=entries)
    return ax


def selected_tokens(
    tokens: Int[Tensor, "Q"],
    shapes: Sequence[Size],
    image: Picture,
    axes: Sequence[Axes] | None = None,
) -> list[Axes]:
    """Draw one panel per level: the cells of the selected tokens, coloured by rank."""
    axes, size = picture_grid(axes, image, len(shapes), 3, quiet=0.75, extra=0.3)
    tokens = tokens.cpu()
    cells, ranks = cells_of_tokens(tokens, shapes), torch.arange(len(tokens))
    for level, (ax, shape) in enumerate(zip(axes, shapes, strict=True)):
        own = cells[:, 0] == level
        # The best on top: a scatter draws in the given order.
        x, y = centres_of_cells(cells[own], shapes, size).flip(0).unbind(-1)
        style = {"cmap": "plasma_r", "vmin": 0, "vmax": max(1, len(tokens) - 1), "marker": "s"}
        style |= {"s": _cell_area(ax, shape), "ec": RIM, "lw": 0.4}
        drawn = ax.scatter(x, y, c=ranks[own].flip(0), **style)
        share = f"{int(own.sum())} of {len(tokens)}"
        ax.set_title(f"{DECODER_LEVELS[level]} · {shape[0]}×{shape[1]} · {share}", fontsize=9)
    scale_bar(drawn, axes, "rank of the token")
    return axes


def _cell_area(ax: Axes, shape: Size) -> float:
    """Return the area in points² of a mark about as large as a cell, but never too small."""
    across = 72 * panel_width(ax) / shape[1]
    return min(90.0, max(9.0, (0.8 * across) ** 2))
