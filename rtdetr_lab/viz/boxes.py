r"""# Boxes: detections, drawn so that they are easy to read

There are two functions for the same picture. `draw_boxes` draws on matplotlib axes, for notebooks
and figures. `annotate` draws into the pixels with Pillow; it is twenty times faster, for ten
thousand photographs. Both take corners in pixels, one text and one colour per box, best first, and
share `place_labels`.

Boxes on a photograph can be hard to read. So every line has a dark rim. A label takes the first
free place around its box, so that labels do not hide each other. It has a background, and black or
white letters by contrast. Letters grow with the picture. Names come from files: characters that
cannot be printed are escaped, and `$` does not start a formula.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from rtdetr_lab.images.arrays import RGB
from rtdetr_lab.notation import Size
from rtdetr_lab.viz.canvas import Axes
from rtdetr_lab.viz.palette import text_on
from rtdetr_lab.writing import printable, shorten

Rect = tuple[float, float, float, float]
Pair = tuple[float, float]
RIM = "#000000"
PAD_POINTS = 1.5


def place_labels(boxes: Sequence[Rect], label_sizes: Sequence[Pair], size: Size) -> list[Pair]:
    """Find the top-left corner of every label.

    It is the first place around its box, inside the picture, that no earlier label covers. If all
    places are taken, it is the one with the least overlap.
    """
    taken: list[Rect] = []
    for (x0, y0, x1, y1), (w, h) in zip(boxes, label_sizes, strict=True):
        top, bottom = (x0, y0 - h), (x0, y1)
        inside_top, inside_bottom, right = (x0, y0), (x0, y1 - h), (x1 - w, y0 - h)
        # Above the box a label does not hide the object. Inside is better than far away.
        wishes = [top, inside_top, right, inside_bottom, bottom, (x1 - w, y0), (x1 - w, y1 - h)]
        wishes += [(x0, y0 + k * h) for k in range(1, 6)]  # a pile of labels becomes a list
        places = [_inside(x, y, w, h, size) for x, y in wishes]
        taken.append(min(places, key=lambda place: sum(_shared(place, t) for t in taken)))
    return [(x0, y0) for x0, y0, _, _ in taken]


def _inside(x: float, y: float, w: float, h: float, size: Size) -> Rect:
    x, y = max(0.0, min(x, size[1] - w)), max(0.0, min(y, size[0] - h))
    return x, y, x + w, y + h


def _shared(a: Rect, b: Rect) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, width) * max(0.0, height)


def _clipped(boxes_xyxy: Float[Tensor, "n 4"], size: Size) -> list[Rect]:
    last = boxes_xyxy.new_tensor([size[1] - 1, size[0] - 1] * 2)
    inside = boxes_xyxy.detach().clamp(torch.zeros_like(last), last).tolist()
    return [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in inside]


def annotate(
    image: RGB, boxes_xyxy: Float[Tensor, "n 4"], texts: Sequence[str], colors: Sequence[str]
) -> RGB:
    """Draw boxes into a copy of the picture."""
    height, width = image.shape[:2]
    unit = (height * width) ** 0.5
    crowd = min(1.0, max(0.7, (12 / max(1, len(texts))) ** 0.5))  # many labels, smaller letters
    font = _font(max(11, round(unit / 40 * crowd)))
    line, rim, pad = max(2, round(unit / 220)), max(1, round(unit / 700)), max(2, round(unit / 220))
    canvas = Image.fromarray(image)  # copies
    draw = ImageDraw.Draw(canvas)

    widest = max(width / 2, 12 * font.size) - 2 * pad
    shown = [shorten(printable(t), widest, font.getlength) for t in texts]
    rise, fall = font.getmetrics()
    label_sizes = [(font.getlength(t) + 2 * pad, float(rise + fall + pad)) for t in shown]
    boxes = _clipped(boxes_xyxy, (height, width))
    places = place_labels(boxes, label_sizes, (height, width))

    # Worst first, so that the best is on top; all labels over all lines.
    rows = list(zip(boxes, places, label_sizes, shown, colors, strict=True))[::-1]
    for (x0, y0, x1, y1), _, _, _, color in rows:
        draw.rectangle((x0 - rim, y0 - rim, x1 + rim, y1 + rim), outline=RIM, width=line + 2 * rim)
        draw.rectangle((x0, y0, x1, y1), outline=color, width=line)
    for _, (x, y), (w, h), text, color in rows:
        draw.rectangle((x, y, x + w - 1, y + h - 1), fill=color)
        draw.text((x + pad, y + pad / 2), text, fill=text_on(color), font=font)
    return np.array(canvas)


def save_annotated(
    path: Path,
    image: RGB,
    boxes_xyxy: Float[Tensor, "n 4"],
    texts: Sequence[str],
    colors: Sequence[str],
) -> Path:
    """Write `annotate(…)` to a file; the suffix of its name chooses the format."""
    picture = Image.fromarray(annotate(image, boxes_xyxy, texts, colors))
    # 4:4:4 and a high quality: JPEG's defaults blur thin coloured lines.
    options: dict[str, Any] = {"quality": 92, "subsampling": 0}
    picture.save(path, **(options if path.suffix in (".jpg", ".jpeg") else {}))
    return path


@lru_cache(maxsize=16)
def _font(pixels: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    # matplotlib contains DejaVu Sans: Latin, Greek, Cyrillic and many symbols, on every machine.
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), pixels)


def draw_boxes(
    ax: Axes,
    boxes_xyxy: Float[Tensor, "n 4"],
    texts: Sequence[str],
    colors: Sequence[str],
    size: Size,
    font_points: float = 9,
) -> list[Any]:
    """Draw boxes and labels on `ax`; its data units are the pixels of a picture of `size`.

    Returns the artists, so that a caller can restyle or remove them.
    """
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    boxes, artists, labels = _clipped(boxes_xyxy, size), [], []
    rim = [withStroke(linewidth=3.6, foreground=RIM, alpha=0.8)]
    ranks = range(len(boxes), 0, -1)  # the best on top
    for (x0, y0, x1, y1), text, color, z in zip(boxes, texts, colors, ranks, strict=True):
        frame = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=color, lw=2, path_effects=rim)
        frame.set_zorder(2 + z / 1000)
        artists.append(ax.add_patch(frame))
        label = ax.text(x0, y0, shorten(printable(text), 40), fontsize=font_points, va="top")
        label.set(color=text_on(color), zorder=3 + z / 1000, parse_math=False, usetex=False)
        label.set(clip_on=True, in_layout=False)  # a long name must not shrink the picture
        label.set_bbox({"facecolor": color, "edgecolor": "none", "pad": PAD_POINTS})
        labels.append(label)
    sizes, (pad_x, pad_y) = _extents(ax, labels)
    for label, (x, y) in zip(labels, place_labels(boxes, sizes, size), strict=True):
        label.set_position((x + pad_x, y + pad_y))
    return [*artists, *labels]


def _extents(ax: Axes, labels: Sequence[Any]) -> tuple[list[Pair], Pair]:
    """Measure (width, height) of every label and the margin of its text, in data units."""
    pixels = PAD_POINTS * ax.figure.dpi / 72
    (x0, y0), (x1, y1) = ax.transData.inverted().transform([(0, 0), (1, 1)])
    unit_x, unit_y = abs(x1 - x0), abs(y1 - y0)
    boxes = [label.get_window_extent() for label in labels]
    sizes = [((b.width + 2 * pixels) * unit_x, (b.height + 2 * pixels) * unit_y) for b in boxes]
    return sizes, (pixels * unit_x, pixels * unit_y)


def show_boxes(
    image: RGB,
    boxes_xyxy: Float[Tensor, "n 4"],
    texts: Sequence[str],
    colors: Sequence[str],
    ax: Axes | None = None,
) -> Axes:
    """Draw the picture with its boxes on `ax`, or on a new figure of the same shape."""
    height, width = image.shape[:2]
    if ax is None:
        import matplotlib.pyplot as plt

        across = 7.0 if width >= height else max(3.0, 7.0 * width / height)
        figure = plt.figure(figsize=(across, across * height / width))
        ax = figure.add_axes((0, 0, 1, 1))
    ax.imshow(image)
    ax.set_axis_off()
    draw_boxes(ax, boxes_xyxy, texts, colors, (height, width))
    return ax
