r"""# Marks: frames, notes and legends, the same in all figures

Lines and texts on a picture have a dark rim, so they are readable on any background. A word on a
square of a matrix is black or white, depending on the contrast. A legend is outside the panels:
below, above or beside them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from rtdetr_lab.boxes import scale_boxes, xyxy_from_cxcywh
from rtdetr_lab.notation import Size
from rtdetr_lab.viz.canvas import Axes
from rtdetr_lab.viz.palette import ORANGE, RIM, VERMILLION, YELLOW, Palette, mix, text_on
from rtdetr_lab.writing import figure_text

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
"""Markers of the series, a second difference beside the colour."""

Point = tuple[float | int, float | int]


def series_style(page: Palette, i: int, points: float | int = 5.0) -> dict[str, Any]:
    """Return colour and marker of the i-th line of a plot."""
    return {"color": page.color(i), "marker": MARKERS[i % len(MARKERS)], "markersize": points}


def note(
    ax: Axes, text: str, at: Point, shift: Point, color: str | None = None, align: str = "left"
) -> Any:
    """Write a small text beside a point of the data, `shift` points away."""
    place = {"xytext": shift, "textcoords": "offset points"}
    return ax.annotate(text, at, **place, fontsize=8, color=color, ha=align)


def matrix(ax: Axes, values: np.ndarray, words: Any = (), points: int = 8, **style: Any) -> Any:
    """Draw a square per number, with a readable word on each if there are `words`."""
    from matplotlib.colors import to_hex

    drawn = ax.imshow(values, interpolation="nearest", **style)
    said = np.array(words, dtype=object)
    for row, column in np.argwhere(said != ""):
        ink, word = text_on(to_hex(drawn.to_rgba(values[row, column]))), said[row, column]
        ax.text(column, row, word, ha="center", va="center", fontsize=points, color=ink)
    return drawn


def frame_box(
    ax: Axes, box: Float[Tensor, "4"], size: Size, color: str, dash: str = "-", width: float = 1.8
) -> Any:
    """Draw a box (cxcywh in [0, 1]) as a rectangle in pixels."""
    corners = scale_boxes(xyxy_from_cxcywh(box.detach().cpu().double()), size)
    return frame_corners(ax, corners, color, dash, width)


def frame_corners(
    ax: Axes, corners: Float[Tensor, "4"], color: str, dash: str, width: float, edge: float = 1.6
) -> Any:
    """Draw a rectangle from corners in pixels; its rim is `edge` points wider than its line."""
    from matplotlib.patches import Rectangle

    x0, y0, x1, y1 = corners.tolist()
    drawn = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=color, lw=width, ls=dash)
    drawn.set_path_effects(rim(width + edge))
    return ax.add_patch(drawn)


def centres_of_boxes(boxes: Float[Tensor, "*n 4"], size: Size) -> Float[Tensor, "*n 2"]:
    """Return the centres (x, y) of boxes (cxcywh in [0, 1]) in pixels."""
    return scale_boxes(boxes.detach().cpu().double(), size)[..., :2]


def rim(width: float) -> list[Any]:
    """Return path effects with a dark line of `width` points below the mark."""
    from matplotlib.patheffects import Normal, Stroke

    return [Stroke(linewidth=width, foreground=RIM, alpha=0.75), Normal()]


def steps(count: int) -> list[str]:
    """Return colours of successive steps, from yellow to orange to vermillion: darker is later."""
    where = [2 * i / max(1, count - 1) for i in range(count)]
    return [mix(YELLOW, ORANGE, w) if w <= 1 else mix(ORANGE, VERMILLION, w - 1) for w in where]


def line_key(label: str, color: str, dash: str = "-") -> Any:
    """Make a legend entry for a line or the frame of a box."""
    from matplotlib.lines import Line2D

    entry = Line2D([], [], color=color, ls=dash, lw=1.8, label=label)
    entry.set_path_effects(rim(3.2))
    return entry


def mark_key(label: str, color: str, marker: str, points: float = 7.0) -> Any:
    """Make a legend entry for a mark of the given size in points."""
    from matplotlib.lines import Line2D

    edge = {"markeredgecolor": RIM, "markeredgewidth": 0.6}
    return Line2D([], [], ls="", color=color, marker=marker, markersize=points, label=label, **edge)


def key_below(axes: Axes | Sequence[Axes], handles: Sequence[Any], columns: int = 7) -> None:
    """Put the legend below one panel or below the whole figure."""
    style = {"handles": list(handles), "ncols": min(columns, len(handles)), "fontsize": 8}
    style |= {"frameon": False, "handletextpad": 0.5, "columnspacing": 1.4}
    if not isinstance(axes, Sequence):
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), **style)
        return
    figure = axes[0].figure
    arranged = figure.get_layout_engine() is not None  # then it gets its own space
    figure.legend(loc="outside lower center" if arranged else "lower center", **style)


def key_beside(ax: Axes) -> None:
    """Put the legend of `ax` to its right."""
    open_frame(ax)
    ax.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def key_above(
    ax: Axes, columns: int, middle: float = 0.5, handles: Sequence[Any] | None = None
) -> None:
    """Put the legend of `ax`, or of these `handles`, above it."""
    place = {"loc": "lower center", "bbox_to_anchor": (middle, 1)}
    ax.legend(handles=handles, fontsize=8, frameon=False, ncols=columns, **place)


def name_rows(ax: Axes, names: Sequence[str]) -> None:
    """Write names at the left side, the first on top."""
    ax.set_yticks(range(len(names)), [figure_text(n) for n in names], fontsize=8)
    ax.invert_yaxis()
    open_frame(ax)


def open_frame(ax: Axes) -> None:
    """Hide the top and right lines around the data."""
    ax.spines[["top", "right"]].set_visible(False)
