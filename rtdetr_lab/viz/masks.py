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
    from scipy.ndimage import find_objects

    found, size = tuple(masks.shape[1:]), image.shape[:2]
    remedy = "ask for masks in the picture's size"
    require(found == size, "masks", f"of {found} for a picture of {size}", remedy)
    painted = image.copy()
    line = max(1, round((size[0] * size[1]) ** 0.5 / 400))
    for mask, color in zip(masks.cpu().numpy()[::-1], colors[::-1], strict=True):
        if mask.any():
            (here,) = find_objects(mask.view(np.uint8))  # a small mask costs little
            _paint(painted[here], mask[here], color, line)
    return painted


def _paint(pixels: RGB, mask: Bool[np.ndarray, "h w"], color: str, line: int) -> None:
    border = mask & ~_shrunk(mask, line)
    for channel, value in enumerate(rgb(color)):
        one = pixels[..., channel]
        # 256 values are tinted, and not twelve million pixels.
        tinted = ((1 - TINT) * np.arange(256) + TINT * value).round().astype(np.uint8)
        np.copyto(one, tinted[one], where=mask)
        np.copyto(one, np.uint8(value), where=border)


def _shrunk(mask: Bool[np.ndarray, "h w"], by: int) -> Bool[np.ndarray, "h w"]:
    """Pixels of the mask that lie `by` pixels inside it: above, below, left and right."""
    wide = np.pad(mask, by)
    rows, columns = wide[:, by:-by], wide[by:-by]
    around = rows[: -2 * by] & rows[2 * by :] & columns[:, : -2 * by] & columns[:, 2 * by :]
    shrunk: Bool[np.ndarray, "h w"] = mask & around
    return shrunk
