r"""# Panoptic: segments, painted over the picture

Segments are half transparent, so that the objects stay visible. They have black borders, which
separate two segments of one class. A class has its colour of `palette.py`; further things of the
same class have it lighter or darker. A name is at the *visible centre* of its segment: the pixel
farthest from the border. It is always inside the segment, unlike the mean of the pixels.

| function           | shows                                            |
|--------------------|--------------------------------------------------|
| `show_segments`    | `Segments`: panoptic and instance segmentation   |
| `show_semantic`    | a label per pixel                                |
| `paint_segments`   | segments painted into the pixels, for files      |
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from rtdetr_lab.config import require
from rtdetr_lab.images.arrays import RGB
from rtdetr_lab.images.panoptic import Segments
from rtdetr_lab.viz.boxes import show_boxes
from rtdetr_lab.viz.canvas import Axes
from rtdetr_lab.viz.marks import rim
from rtdetr_lab.viz.palette import DARK, rgb, shade
from rtdetr_lab.writing import printable, shorten

AGAIN = (0.0, 0.45, -0.35, 0.25, -0.2)
"""Shifts of the colours of further things of one class towards white (+) or black (-)."""

FILL = 0.55
"""Share of the segment's colour in a pixel."""

SMALLEST = 0.001
"""Share of the picture; a smaller segment gets no name, because the name would hide it."""


def colors_of(found: Segments) -> dict[int, str]:
    """Return the colour of every segment: that of its class, shifted for the next of that class."""
    seen: dict[int, int] = {}
    colors = {}
    for segment in found.segments:
        turn = seen.get(segment.label, 0)
        seen[segment.label] = turn + 1
        colors[segment.id] = shade(DARK.color(segment.label), AGAIN[turn % len(AGAIN)])
    return colors


def paint_segments(image: RGB, ids: Int[Tensor, "_ _"], colors: Mapping[int, str]) -> RGB:
    """Paint every id of `colors` over a copy of the picture, with black borders.

    Raises `ConfigError` for a map of another size.
    """
    found, size = tuple(ids.shape), image.shape[:2]
    remedy = "give the size of the picture to the post-processing"
    require(found == size, "ids", f"have size {found}, the picture has {size}", remedy)
    place, painted = ids.cpu().numpy(), image.astype(np.float32)
    for id, color in colors.items():
        here = place == id
        painted[here] = (1 - FILL) * painted[here] + FILL * np.array(rgb(color), np.float32)
    painted[_borders(place)] = 0
    return painted.round().astype(np.uint8)


def show_segments(
    image: RGB, found: Segments, names: Sequence[str], ax: Axes | None = None
) -> Axes:
    """Draw the picture with its segments; names and scores are at the visible centres."""
    painted = paint_segments(image, found.ids, colors_of(found))
    texts = {s.id: f"{names[s.label]} {s.score:.2f}" for s in found.segments}
    return _shown(painted, found.ids, texts, ax)


def show_semantic(
    image: RGB, labels: Int[Tensor, "H W"], names: Sequence[str], ax: Axes | None = None
) -> Axes:
    """Draw the picture with the class of every pixel."""
    there = labels.unique().tolist()
    painted = paint_segments(image, labels, {label: DARK.color(label) for label in there})
    return _shown(painted, labels, {label: names[label] for label in there}, ax)


def visible_centre(mask: Bool[np.ndarray, "H W"]) -> tuple[int, int]:
    """Return (x, y) of the pixel of the mask with the largest distance to its border."""
    from scipy.ndimage import distance_transform_edt

    # The picture's edge is a border, too: a name there would be cut off.
    depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    ys, xs = np.nonzero(depth == depth.max())  # in a strip there are many: take the middle one
    y, x = mask.nonzero()[0].mean(), mask.nonzero()[1].mean()
    best = int(np.argmin((ys - y) ** 2 + (xs - x) ** 2))
    return int(xs[best]), int(ys[best])


def _borders(place: Int[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Mark pixels with a right or lower neighbour in another segment."""
    borders = np.zeros(place.shape, dtype=bool)
    borders[:, :-1] |= place[:, :-1] != place[:, 1:]
    borders[:-1] |= place[:-1] != place[1:]
    return borders


def _shown(
    painted: RGB, ids: Int[Tensor, "H W"], texts: Mapping[int, str], ax: Axes | None
) -> Axes:
    ax = show_boxes(painted, torch.zeros(0, 4), [], [], ax)
    place = ids.cpu().numpy()
    for id, text in texts.items():
        mask = place == id
        if mask.mean() < SMALLEST:
            continue
        x, y = visible_centre(mask)
        inward = ("left", "center", "right")[round(2 * x / mask.shape[1])]
        aligned = inward if not 0.1 < x / mask.shape[1] < 0.9 else "center"
        label = ax.text(x, y, shorten(printable(text), 40), ha=aligned, va="center")
        label.set(color="white", fontsize=9, parse_math=False, usetex=False, clip_on=True)
        label.set(in_layout=False, path_effects=rim(2.4))
    return ax
