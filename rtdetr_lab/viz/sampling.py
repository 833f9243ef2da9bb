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
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from rtdetr_lab.config import require
from rtdetr_lab.viz.canvas import (
    FRAME,
    LEVEL_COLORS,
    LEVEL_MARKERS,
    RIM,
    as_rgb,
    frame_box,
    new_axes,
    new_grid,
    show_picture,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AREA_PER_INCH = 60.0
"""Area in points² of a mark with weight 1, for every inch of picture: see `mark_area`."""

BEYOND = 0.15
"""How far around the picture the view may reach to show points that lie outside."""


@dataclass(frozen=True, eq=False)
class Looks:
    """What one query looks at in one decoder layer. Locations are (x, y) in [0, 1]; `points` per
    head on each level sum to P; `box` is the reference, cxcywh; `reads` as in the header."""

    locations: Float[Tensor, "M P 2"]
    weights: Float[Tensor, "M P"]
    points: tuple[int, ...]
    box: Float[Tensor, "4"] | None = None
    reads: Float[Tensor, "M P 2"] | None = None

    def __post_init__(self) -> None:
        require(
            sum(self.points) == self.weights.shape[1],
            "looks.points",
            f"{self.points} are not {self.weights.shape[1]} points",
            "pass the points per level of the layer that was recorded",
        )

    @property
    def levels(self) -> Int[Tensor, "P"]:
        """The level of every point."""
        counts = torch.tensor(self.points)
        return torch.arange(len(self.points)).repeat_interleave(counts)


def looks_of(
    seen: Mapping[str, Tensor], layer: int, query: int, points: Sequence[int], picture: int = 0
) -> Looks:
    """From the taps of a recorded model. `query` counts from the last end if negative."""
    where = f"decoder.layers.{layer}.cross_attn"
    return Looks(
        seen[f"{where}.locations"][picture, query],
        seen[f"{where}.weights"][picture, query],
        tuple(points),
        seen[f"decoder.reference.{layer}"][picture, query],
    )


def mark_area(ax: "Axes") -> float:
    """Area in points² of weight 1 on these axes: small panels get small marks."""
    inches = ax.get_position().width * ax.figure.get_size_inches()[0]
    return AREA_PER_INCH * float(inches)


def sampling_points(
    looks: Looks,
    image: np.ndarray | Tensor,
    head: int | None = None,
    level_names: Sequence[str] = ("S3", "S4", "S5", "S6", "S7"),
    legend: bool = True,
    ax: "Axes | None" = None,
) -> "Axes":
    """All points of a query over the picture, or those of one head."""
    height, width = as_rgb(image).shape[:2]
    ax = new_axes(ax, 7.0 * height / width + 0.5)
    size = show_picture(ax, image, quiet=0.75)
    heads = slice(None) if head is None else slice(head, head + 1)
    to_pixels = torch.tensor([width, height], dtype=torch.float64)
    pixels = looks.locations[heads].detach().double().cpu() * to_pixels
    weights = looks.weights[heads].detach().double().cpu()
    if looks.reads is not None:
        _lead_to(ax, pixels, looks.reads[heads].double().cpu() * to_pixels)
    if looks.box is not None:
        frame_box(ax, looks.box, size, "#FFFFFF", "--", 1.2).set_label("reference box")
    for level in sorted(set(looks.levels.tolist())):
        own = looks.levels == level
        where, much = pixels[:, own].flatten(0, 1), weights[:, own].flatten()
        style = {"color": LEVEL_COLORS[level], "marker": LEVEL_MARKERS[level], "alpha": 0.9}
        style |= {"edgecolors": RIM, "linewidths": 0.5, "label": level_names[level], "zorder": 4}
        ax.scatter(where[:, 0], where[:, 1], s=much * mark_area(ax), gid=f"level {level}", **style)
    _fit_view(ax, pixels.flatten(0, 1), (height, width))
    if legend:
        _key(ax)
    return ax


def sampling_panels(
    looks: Mapping[str, Looks],
    image: np.ndarray | Tensor,
    head: int | None = None,
    level_names: Sequence[str] = ("S3", "S4", "S5", "S6", "S7"),
    axes: "Sequence[Axes] | None" = None,
) -> "list[Axes]":
    """Several looks side by side: layers, or v1 beside v2 beside discrete; one legend for all."""
    height, width = as_rgb(image).shape[:2]
    axes = new_grid(axes, len(looks), min(3, len(looks)), height / width, extra=0.45)
    for ax, (title, one) in zip(axes, looks.items(), strict=True):
        sampling_points(one, image, head, level_names, legend=False, ax=ax)
        ax.set_title(title, fontsize=9)
    _key(axes[len(axes) // 2])
    return axes


def sampling_heads(
    looks: Looks,
    image: np.ndarray | Tensor,
    level_names: Sequence[str] = ("S3", "S4", "S5", "S6", "S7"),
    axes: "Sequence[Axes] | None" = None,
) -> "list[Axes]":
    """One panel per head: each has its own direction to look in."""
    height, width = as_rgb(image).shape[:2]
    heads = len(looks.weights)
    axes = new_grid(axes, heads, 4 if heads % 3 else 3, height / width, extra=0.3)
    for head, ax in enumerate(axes):
        sampling_points(looks, image, head, level_names, legend=False, ax=ax)
        ax.set_title(f"head {head}", fontsize=9)
    _key(axes[-1])
    return axes


def _lead_to(
    ax: "Axes", points: Float[Tensor, "M P 2"], reads: Float[Tensor, "M P 2"]
) -> None:
    from matplotlib.collections import LineCollection

    ends = torch.stack([points.flatten(0, 1), reads.flatten(0, 1)], dim=1)
    ax.add_collection(LineCollection(ends.numpy(), colors="#FFFFFF", linewidths=0.8, zorder=3))


def _fit_view(ax: "Axes", pixels: Float[Tensor, "n 2"], size: tuple[int, int]) -> None:
    """The picture, and around it as much as the points need, up to `BEYOND`."""
    height, width = size
    low, high = pixels.amin(0).tolist(), pixels.amax(0).tolist()
    ax.set_xlim(max(min(0.0, low[0]), -BEYOND * width), min(max(width, high[0]), (1 + BEYOND) * width))
    ax.set_ylim(
        min(max(height, high[1]), (1 + BEYOND) * height), max(min(0.0, low[1]), -BEYOND * height)
    )


def _key(ax: "Axes") -> None:
    """Levels by colour and shape, weights by area."""
    from matplotlib.lines import Line2D

    handles = [c for c in ax.collections if (c.get_gid() or "").startswith("level")]
    handles += [p for p in ax.patches if p.get_label() == "reference box"]
    for weight in (0.05, 0.2):
        across = (weight * mark_area(ax)) ** 0.5
        style = {"marker": "o", "ls": "", "color": FRAME, "markersize": across}
        handles.append(Line2D([], [], label=f"weight {weight:g}", **style))
    ax.legend(
        handles=handles, ncols=len(handles), fontsize=8, frameon=False, loc="upper center",
        bbox_to_anchor=(0.5, -0.02), columnspacing=1.2, handletextpad=0.4,
    )
