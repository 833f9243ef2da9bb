r"""# Sampling points: where a query samples, and the weight of each point

Every head of a query samples a few points on every level. One mark is one point: its **area** is
the weight, its **colour and shape** the level. The weights of a head sum to one over all its
points. So the total area of the marks is the same in every picture; only their positions change.

    sampling = sampling_of_query(seen, layer=2, query=0, points=(4, 4, 4))
    sampling_points(sampling, image)
    layers = {f"layer {i}": sampling_of_query(seen, i, 0, points) for i in range(3)}
    sampling_panels(layers, image)
    sampling_panels({"v1": a, "v2": b, "discrete": c}, image)      # several side by side

A discrete sampler reads the cell around the point, not the point itself. If you give `reads`, the
centres of those cells, a line connects each point with its cell.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rtdetr_lab.config import require
from rtdetr_lab.notation import Size
from rtdetr_lab.viz.canvas import Axes, Picture, panel_width, picture_axes, picture_grid
from rtdetr_lab.viz.cells import DECODER_LEVELS
from rtdetr_lab.viz.marks import MARKERS, frame_box, key_below, line_key, mark_key
from rtdetr_lab.viz.palette import FRAME, LEVEL_COLORS, RIM
from rtdetr_lab.writing import figure_text

View = tuple[float, float, float, float]
"""Visible part of the picture: left, top, right, bottom in pixels."""

BEYOND = 0.15
"""Largest margin of the view around the picture, to show points outside it."""

AREA_PER_INCH = 60.0
"""Area in points² of a mark with weight 1, per inch of picture: see `mark_area`."""

LIGHT = "#FFFFFF"
"""Colour of the reference box, and of lines to the cells."""


@dataclass(frozen=True, eq=False)
class QuerySampling:
    """Sampling of one query in one decoder layer.

    Locations are (x, y) in [0, 1]; `points` per head on each level sum to P; `box` is the
    reference, cxcywh; `reads` as in the header.
    """

    locations: Float[Tensor, "M P 2"]
    weights: Float[Tensor, "M P"]
    points: tuple[int, ...]
    box: Float[Tensor, "4"] | None = None
    reads: Float[Tensor, "M P 2"] | None = None

    def __post_init__(self) -> None:
        what = f"{self.points} are not {self.weights.shape[1]} points"
        remedy = "pass the points per level of the layer that was recorded"
        require(sum(self.points) == self.weights.shape[1], "sampling.points", what, remedy)


def sampling_of_query(
    seen: Mapping[str, Tensor], layer: int, query: int, points: Sequence[int], picture: int = 0
) -> QuerySampling:
    """Collect the sampling of a query from the taps of a recorded model.

    A negative `query` counts from the end.
    """
    where = f"decoder.layers.{layer}.cross_attn"
    return QuerySampling(
        seen[f"{where}.locations"][picture, query],
        seen[f"{where}.weights"][picture, query],
        tuple(points),
        seen[f"decoder.reference.{layer}"][picture, query],
    )


def close_up(samplings: Sequence[QuerySampling], size: Size, margin: float = 0.15) -> View:
    """Return the part of the picture, with its aspect ratio, that contains all points."""
    height, width = size
    low, high = _reach(samplings)
    half = float((high - low).amax()) * (0.5 + margin)
    x, y = ((low + high) / 2).tolist()
    return ((x - half) * width, (y - half) * height, (x + half) * width, (y + half) * height)


def around(samplings: Sequence[QuerySampling], size: Size) -> View:
    """Return the picture with as much margin as the points need, up to `BEYOND`."""
    height, width = size
    low, high = _reach(samplings)
    left, top = low.clamp(-BEYOND, 0).tolist()
    right, bottom = high.clamp(1, 1 + BEYOND).tolist()
    return left * width, top * height, right * width, bottom * height


def _reach(samplings: Sequence[QuerySampling]) -> tuple[Tensor, Tensor]:
    places = torch.cat([one.locations.detach().cpu().double().flatten(0, 1) for one in samplings])
    return places.amin(0), places.amax(0)


def mark_area(ax: Axes) -> float:
    """Return the area in points² of weight 1 on these axes: small panels get small marks."""
    return AREA_PER_INCH * panel_width(ax)


def sampling_points(
    sampling: QuerySampling,
    image: Picture,
    head: int | None = None,
    view: View | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the points of a query over the picture (or a `close_up`): all heads, or one."""
    ax, size = picture_axes(ax, image, quiet=0.75)
    key_below(ax, _draw_points(ax, sampling, size, head, view), columns=3)
    return ax


def sampling_panels(
    samplings: Mapping[str, QuerySampling],
    image: Picture,
    head: int | None = None,
    view: View | None = None,
    axes: Sequence[Axes] | None = None,
) -> list[Axes]:
    """Draw several side by side: layers, or v1, v2 and discrete; with one legend for all."""
    axes, size = picture_grid(axes, image, len(samplings), 3, quiet=0.75, extra=0.35)
    view = view or around(list(samplings.values()), size)
    for ax, (title, one) in zip(axes, samplings.items(), strict=True):
        handles = _draw_points(ax, one, size, head, view)
        ax.set_title(figure_text(title), fontsize=9)
    key_below(axes, handles)
    return axes


def _draw_points(
    ax: Axes, sampling: QuerySampling, size: Size, head: int | None, view: View | None
) -> list[Any]:
    """Draw one collection of marks per level; return the entries of the legend.

    Colour and shape mean the level, area means the weight.
    """
    from matplotlib.collections import LineCollection

    heads = slice(None) if head is None else slice(head, head + 1)
    to_pixels = torch.tensor([size[1], size[0]], dtype=torch.float64)
    pixels = sampling.locations[heads].detach().cpu().double() * to_pixels
    areas = sampling.weights[heads].detach().cpu().double() * mark_area(ax)
    levels = zip(pixels.split(sampling.points, 1), areas.split(sampling.points, 1), strict=True)
    entries = []
    for level, (points, weights) in enumerate(levels):
        if points.numel():
            style = {"color": LEVEL_COLORS[level], "marker": MARKERS[level], "alpha": 0.9}
            style |= {"edgecolors": RIM, "linewidths": 0.5, "zorder": 4, "gid": f"level {level}"}
            ax.scatter(*points.flatten(0, 1).unbind(-1), s=weights.flatten(), **style)
            entries.append(mark_key(DECODER_LEVELS[level], LEVEL_COLORS[level], MARKERS[level]))
    if sampling.box is not None:
        frame_box(ax, sampling.box, size, LIGHT, "--", 1.2)
        entries.append(line_key("reference box", LIGHT, "--"))
    if sampling.reads is not None:
        reads = sampling.reads[heads].detach().cpu().double() * to_pixels
        ends = torch.stack([pixels, reads], dim=2).flatten(0, 1)
        ax.add_collection(LineCollection(ends.numpy(), colors=LIGHT, linewidths=0.7, zorder=3))
        cross = {"marker": "x", "color": LIGHT, "linewidths": 1.0, "zorder": 5, "gid": "reads"}
        ax.scatter(*reads.flatten(0, 1).unbind(-1), s=areas.flatten(), **cross)
        entries.append(mark_key("cell read", FRAME, "x", 5.0))
    left, top, right, bottom = view or around([sampling], size)
    ax.set(xlim=(left, right), ylim=(bottom, top))
    for weight in (0.05, 0.2):
        entries.append(mark_key(f"weight {weight:g}", FRAME, "o", (weight * mark_area(ax)) ** 0.5))
    return entries
