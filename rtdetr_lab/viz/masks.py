r"""# Masks: every object's own pixels, painted under its box

Unlike segments (`panoptic.py`) masks overlap, so they are laid over each other like tinted glass,
the best score on top. Each has the colour of its box and a line of that colour along its border: a
tint says what is covered, a line says where it ends, and one sees two of a class that touch.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool
from torch import Tensor

from rtdetr_lab.config import require
from rtdetr_lab.images.arrays import RGB
from rtdetr_lab.viz.palette import rgb

TINT = 0.45
"""How much of a pixel inside is the mask's colour; on the border it is all of it."""


def paint_masks(image: RGB, masks: Bool[Tensor, "n _ _"], colors: Sequence[str]) -> RGB:
    """A copy of the picture with the masks, best first, painted over it.

    Raises `ConfigError` for masks of another size.
    """
    found, size = tuple(masks.shape[1:]), image.shape[:2]
    remedy = "ask for masks in the picture's size"
    require(found == size, "masks", f"of {found} for a picture of {size}", remedy)
    painted = image.astype(np.float32)
    line = max(1, round((size[0] * size[1]) ** 0.5 / 400))
    for mask, color in zip(masks.cpu().numpy()[::-1], colors[::-1], strict=True):
        if mask.any():
            here = _extent(mask)
            _paint(painted[here], mask[here], np.array(rgb(color), np.float32), line)
    return painted.round().astype(np.uint8)


def _extent(mask: Bool[np.ndarray, "H W"]) -> tuple[slice, slice]:
    """Rows and columns of the box around it: a small mask on a large picture costs little."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _paint(pixels: np.ndarray, mask: Bool[np.ndarray, "h w"], color: np.ndarray, line: int) -> None:
    inside = mask
    for _ in range(line):
        inside = _shrunk(inside)
    border = mask & ~inside
    pixels[mask] = (1 - TINT) * pixels[mask] + TINT * color
    pixels[border] = color


def _shrunk(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Without the pixels beside one that is not in it."""
    wide = np.pad(mask, 1)
    inside = wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]
    shrunk: Bool[np.ndarray, "h w"] = mask & inside
    return shrunk
