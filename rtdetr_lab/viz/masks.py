r"""# Masks: the pixels of every object, painted under its box

Unlike segments (`panoptic.py`), masks overlap. So we paint them over each other like tinted glass,
the best score on top. Each mask has the colour of its box, and a line of that colour along its
border. The line separates two objects of one class that touch.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool
from torch import Tensor

from rtdetr_lab.config import require
from rtdetr_lab.images.arrays import RGB
from rtdetr_lab.viz.palette import rgb

TINT = 0.45
"""Share of the mask's colour in a pixel inside; on the border it is 1."""


def paint_masks(image: RGB, masks: Bool[Tensor, "n _ _"], colors: Sequence[str]) -> RGB:
    """Paint the masks, best first, over a copy of the picture.

    Raises `ConfigError` for masks of another size.
    """
    from scipy.ndimage import find_objects

    found, size = tuple(masks.shape[1:]), image.shape[:2]
    remedy = "resize the masks to the size of the picture"
    require(found == size, "masks", f"have size {found}, the picture has {size}", remedy)
    painted = image.copy()
    line = max(1, round((size[0] * size[1]) ** 0.5 / 400))
    for mask, color in zip(masks.cpu().numpy()[::-1], colors[::-1], strict=True):
        if mask.any():
            (here,) = find_objects(mask.view(np.uint8))  # so that a small mask costs little
            _paint(painted[here], mask[here], color, line)
    return painted


def _paint(pixels: RGB, mask: Bool[np.ndarray, "h w"], color: str, line: int) -> None:
    border = mask & ~_shrunk(mask, line)
    for channel, value in enumerate(rgb(color)):
        one = pixels[..., channel]
        # We tint 256 values, not twelve million pixels.
        tinted = ((1 - TINT) * np.arange(256) + TINT * value).round().astype(np.uint8)
        np.copyto(one, tinted[one], where=mask)
        np.copyto(one, np.uint8(value), where=border)


def _shrunk(mask: Bool[np.ndarray, "h w"], by: int) -> Bool[np.ndarray, "h w"]:
    """Return pixels of the mask that are `by` pixels inside it: above, below, left and right."""
    wide = np.pad(mask, by)
    rows, columns = wide[:, by:-by], wide[by:-by]
    around = rows[: -2 * by] & rows[2 * by :] & columns[:, : -2 * by] & columns[:, 2 * by :]
    shrunk: Bool[np.ndarray, "h w"] = mask & around
    return shrunk
