r"""# Panoptic: what every pixel belongs to, painted over the picture

Segments are filled half transparent, so that one sees what was segmented, and bordered in black,
so that two of one class stay two. A class has its colour of `palette.py`; further things of the
same class have it lighter and darker. Names stand at the *visible centre* of a segment: the pixel
farthest from its border, which is inside it even where the mean of its pixels is not.

| function           | shows                                            |
|--------------------|--------------------------------------------------|
| `show_segments`    | `Segments`: panoptic and instance answers        |
| `show_semantic`    | a label per pixel                                |
| `paint_segments`   | the same as pixels, for files                    |
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from rtdetr_lab.config import require
from rtdetr_lab.images.arrays import RGB
from rtdetr_lab.images.panoptic import Segments
from rtdetr_lab.viz.boxes import printable, shorten, show_boxes
from rtdetr_lab.viz.canvas import Axes
from rtdetr_lab.viz.marks import rim
from rtdetr_lab.viz.palette import DARK, rgb, shade

AGAIN = (0.0, 0.45, -0.35, 0.25, -0.2)
"""How far the colours of further things of one class move towards white (+) or black (-)."""

FILL = 0.55
"""How much of a pixel is its segment's colour."""

SMALLEST = 0.001
"""Of the picture: what is smaller gets no name, which would hide it."""


def colors_of(found: Segments) -> dict[int, str]:
    """The colour of every segment: its class's, the next of that class a little off."""
    seen: dict[int, int] = {}
    colors = {}
    for segment in found.segments:
        turn = seen.get(segment.label, 0)
        seen[segment.label] = turn + 1
        colors[segment.id] = shade(DARK.color(segment.label), AGAIN[turn % len(AGAIN)])
    return colors


def paint_segments(image: RGB, ids: Int[Tensor, "_ _"], colors: Mapping[int, str]) -> RGB:
    """A copy of the picture, every id in its colour with a black border; others stay as they are.

    Raises `ConfigError` for a map of another size.
    """
    found, size = tuple(ids.shape), image.shape[:2]
    remedy = "ask the post-processing for the picture's size"
    require(found == size, "ids", f"a map of {found} for a picture of {size}", remedy)
    place, painted = ids.cpu().numpy(), image.astype(np.float32)
    for id, color in colors.items():
        here = place == id
        painted[here] = (1 - FILL) * painted[here] + FILL * np.array(rgb(color), np.float32)
    painted[_borders(place)] = 0
    return painted.round().astype(np.uint8)


def show_segments(
    image: RGB, found: Segments, names: Sequence[str], ax: Axes | None = None
) -> Axes:
    """The picture with its segments, each named at its visible centre, with its score."""
    painted = paint_segments(image, found.ids, colors_of(found))
    texts = {s.id: f"{names[s.label]} {s.score:.2f}" for s in found.segments}
    return _shown(painted, found.ids, texts, ax)


def show_semantic(
    image: RGB, labels: Int[Tensor, "H W"], names: Sequence[str], ax: Axes | None = None
) -> Axes:
    """The picture with the class of every pixel."""
    there = labels.unique().tolist()
    painted = paint_segments(image, labels, {label: DARK.color(label) for label in there})
    return _shown(painted, labels, {label: names[label] for label in there}, ax)


def visible_centre(mask: Bool[np.ndarray, "H W"]) -> tuple[int, int]:
    """(x, y) of the pixel of the mask that lies farthest from what is not the mask."""
    from scipy.ndimage import distance_transform_edt

    # The picture's edge is a border, too: a name there would be cut off.
    depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    ys, xs = np.nonzero(depth == depth.max())  # in a strip there are many: the middle one
    y, x = mask.nonzero()[0].mean(), mask.nonzero()[1].mean()
    best = int(np.argmin((ys - y) ** 2 + (xs - x) ** 2))
    return int(xs[best]), int(ys[best])


def _borders(place: Int[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Pixels whose right or lower neighbour belongs to another segment."""
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
        label = ax.text(x, y, shorten(printable(text), 40, len), ha="center", va="center")
        label.set(color="white", fontsize=9, parse_math=False, usetex=False, clip_on=True)
        label.set(in_layout=False, path_effects=rim(2.4))
    return ax
