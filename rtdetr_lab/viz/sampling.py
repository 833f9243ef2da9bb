r"""# Sampling points: where a query looks, and how much each look counts

Every head of a query reads a few points on every level. One mark is one read: its **area** is its
weight, its **colour and shape** the level. The weights of a head sum to one over all its points, so
a picture of M heads always holds the same ink; what changes is where it lies.

    looks = looks_of(seen, layer=2, query=0, points=(4, 4, 4))
    sampling_points(looks, image)
    sampling_panels({f"layer {i}": looks_of(seen, i, 0, points) for i in range(3)}, image)
    sampling_panels({"v1": a, "v2": b, "discrete": c}, image)      # any looks side by side

A discrete sampler does not read at the point but in the cell around it. Give `reads`, the centres
of those cells, and a line leads from each point to what is really read.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rtdetr_lab.notation import LEVEL_NAMES
from rtdetr_lab.viz.canvas import (
    FRAME,
    LEVEL_COLORS,
    LEVEL_MARKERS,
    RIM,
    as_rgb,
    frame_box,
    key_below,
    line_key,
    mark_key,
    new_axes,
    new_grid,
    show_picture,
)
from rtdetr_lab.viz.looks import Looks, View, around

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AREA_PER_INCH = 60.0
"""Area in points² of a mark with weight 1, for every inch of picture: see `mark_area`."""

BOX_COLOR = "#FFFFFF"
LEVEL_LABELS = (*LEVEL_NAMES[1:], "S7")
"""Level 0 of the decoder is S3."""


def mark_area(ax: "Axes") -> float:
    """Area in points² of weight 1 on these axes: small panels get small marks."""
    # Not the present position: the layout moves it, and areas must not depend on when one asks.
    cell = ax.get_subplotspec()
    share = 1.0 if cell is None else len(cell.colspan) / cell.get_gridspec().ncols
    return AREA_PER_INCH * share * float(ax.figure.get_figwidth())


def sampling_points(
    looks: Looks,
    image: np.ndarray | Tensor,
    head: int | None = None,
    view: View | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """All points of a query over the picture (or a `close_up`), or those of one head."""
    height, width = as_rgb(image).shape[:2]
    ax = new_axes(ax, 7.0 * height / width + 0.4)
    key_below(ax, _draw_looks(ax, looks, image, head, view))
    return ax


def sampling_panels(
    looks: Mapping[str, Looks],
    image: np.ndarray | Tensor,
    head: int | None = None,
    view: View | None = None,
    axes: "Sequence[Axes] | None" = None,
) -> "list[Axes]":
    """Several looks side by side: layers, or v1 beside v2 beside discrete; one legend for all."""
    height, width = as_rgb(image).shape[:2]
    axes = new_grid(axes, len(looks), min(3, len(looks)), height / width, extra=0.35)
    view = view or around(list(looks.values()), (height, width))
    for ax, (title, one) in zip(axes, looks.items(), strict=True):
        handles = _draw_looks(ax, one, image, head, view)
        ax.set_title(title, fontsize=9)
    key_below(axes, handles)
    return axes


def sampling_heads(
    looks: Looks,
    image: np.ndarray | Tensor,
    view: View | None = None,
    axes: "Sequence[Axes] | None" = None,
) -> "list[Axes]":
    """One panel per head: each has its own direction to look in."""
    height, width = as_rgb(image).shape[:2]
    heads = len(looks.weights)
    axes = new_grid(axes, heads, 4 if heads % 3 else 3, height / width, extra=0.35)
    for head, ax in enumerate(axes):
        handles = _draw_looks(ax, looks, image, head, view)
        ax.set_title(f"head {head}", fontsize=9)
    key_below(axes, handles)
    return axes


def _draw_looks(
    ax: "Axes", looks: Looks, image: np.ndarray | Tensor, head: int | None, view: View | None
) -> list[Any]:
    """One collection of marks per level; returns the legend's entries."""
    height, width = size = show_picture(ax, image, quiet=0.75)
    heads = slice(None) if head is None else slice(head, head + 1)
    to_pixels = torch.tensor([width, height], dtype=torch.float64)
    pixels = looks.locations[heads].detach().cpu().double() * to_pixels
    weights = looks.weights[heads].detach().cpu().double()
    if looks.reads is not None:
        _lead_to(ax, pixels, looks.reads[heads].detach().cpu().double() * to_pixels, weights)
    if looks.box is not None:
        frame_box(ax, looks.box, size, BOX_COLOR, "--", 1.2)
    for level in sorted(set(looks.levels.tolist())):
        own = looks.levels == level
        x, y = pixels[:, own].flatten(0, 1).unbind(-1)
        style = {"color": LEVEL_COLORS[level], "marker": LEVEL_MARKERS[level], "alpha": 0.9}
        style |= {"edgecolors": RIM, "linewidths": 0.5, "zorder": 4, "gid": f"level {level}"}
        ax.scatter(x, y, s=weights[:, own].flatten() * mark_area(ax), **style)
    left, top, right, bottom = view or around([looks], size)
    ax.set(xlim=(left, right), ylim=(bottom, top))
    return _key(ax, looks)


def _lead_to(
    ax: "Axes",
    points: Float[Tensor, "M P 2"],
    reads: Float[Tensor, "M P 2"],
    weights: Float[Tensor, "M P"],
) -> None:
    from matplotlib.collections import LineCollection

    ends = torch.stack([points.flatten(0, 1), reads.flatten(0, 1)], dim=1)
    ax.add_collection(LineCollection(ends.numpy(), colors="#FFFFFF", linewidths=0.7, zorder=3))
    x, y = reads.flatten(0, 1).unbind(-1)
    cross = {"marker": "x", "color": "#FFFFFF", "linewidths": 1.0, "zorder": 5, "gid": "reads"}
    ax.scatter(x, y, s=weights.flatten() * mark_area(ax), **cross)


def _key(ax: "Axes", looks: Looks) -> list[Any]:
    """Levels by colour and shape, weights by area."""
    names = [LEVEL_LABELS[level] for level in range(len(looks.points))]
    entries = [
        mark_key(name, color, marker)
        for name, color, marker, count in zip(
            names, LEVEL_COLORS, LEVEL_MARKERS, looks.points, strict=False
        )
        if count
    ]
    if looks.box is not None:
        entries.append(line_key("reference box", BOX_COLOR, "--"))
    if looks.reads is not None:
        entries.append(mark_key("cell read", FRAME, "x", 5.0))
    for weight in (0.05, 0.2):
        entries.append(mark_key(f"weight {weight:g}", FRAME, "o", (weight * mark_area(ax)) ** 0.5))
    return entries
