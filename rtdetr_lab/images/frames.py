r"""# Frames: where a box stands

A photo lies in its file as the sensor gave it, and its EXIF says how a viewer turns it. So there
are two frames, and a box means nothing without the name of its own:

| frame       | who speaks in it                                                        |
|-------------|-------------------------------------------------------------------------|
| **stored**  | COCO's annotations and results, and what `data/` trains and judges with |
| **upright** | viewers, `decode`, `Detections`, everything that is drawn               |

The upright picture is the stored raster, perhaps transposed, then perhaps flipped along either
side. `Frame` carries boxes and pixels over, both ways and without loss.

| EXIF orientation | transposed | rows flipped | columns flipped | a viewer …                |
|------------------|------------|--------------|-----------------|---------------------------|
| 1                |            |              |                 | does nothing              |
| 2                |            |              | yes             | mirrors it                |
| 3                |            | yes          | yes             | turns it by 180°          |
| 4                |            | yes          |                 | stands it on its head     |
| 5                | yes        |              |                 | transposes it             |
| 6                | yes        |              | yes             | turns it clockwise        |
| 7                | yes        | yes          | yes             | transposes it, upside down |
| 8                | yes        | yes          |                 | turns it counterclockwise |
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from rtdetr_lab.errors import ImageError
from rtdetr_lab.notation import Size

TURNS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
"""EXIF orientation → whether the raster is transposed, then its rows and its columns flipped."""


@dataclass(frozen=True)
class Frame:
    """How a picture lies in its file: the (height, width) there, and the EXIF orientation."""

    stored: Size
    orientation: int = 1

    @property
    def upright(self) -> Size:
        """(height, width) as a viewer shows it."""
        height, width = self.stored
        return (width, height) if TURNS[self.orientation][0] else (height, width)

    def is_stored(self, size: Size | None, where: str) -> bool:
        """Is a picture of this (height, width) the stored raster, and not the upright picture? If
        it could be both, as when nobody gives a size, it is stored, as COCO has it. Raises
        `ImageError` if it is neither."""
        if size in (None, self.stored, self.upright):
            return size in (None, self.stored)
        what = f"is stored with height and width {self.stored}, its annotations say {size}"
        raise ImageError(where or "picture", what, "correct the annotations, or give their picture")

    def pixels_upright(self, stored: Shaped[np.ndarray, "H W *c"]) -> Shaped[np.ndarray, "_ _ *c"]:
        """A raster or a mask as a viewer shows it."""
        transposed, rows, columns = TURNS[self.orientation]
        turned = stored.swapaxes(0, 1) if transposed else stored
        return np.ascontiguousarray(_flipped(turned, rows, columns))

    def pixels_as_stored(
        self, upright: Shaped[np.ndarray, "H W *c"]
    ) -> Shaped[np.ndarray, "_ _ *c"]:
        """An upright picture or mask as it lies in the file."""
        transposed, rows, columns = TURNS[self.orientation]
        turned = _flipped(upright, rows, columns)
        return np.ascontiguousarray(turned.swapaxes(0, 1) if transposed else turned)

    def boxes_upright(self, stored_xyxy: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
        """Corners in pixels of the stored raster → of the upright picture."""
        transposed, rows, columns = TURNS[self.orientation]
        turned = stored_xyxy[:, [1, 0, 3, 2]] if transposed else stored_xyxy
        return _mirrored(turned, self.upright, rows, columns)

    def boxes_as_stored(self, upright_xyxy: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
        """Corners in pixels of the upright picture → of the stored raster."""
        transposed, rows, columns = TURNS[self.orientation]
        turned = _mirrored(upright_xyxy, self.upright, rows, columns)
        return turned[:, [1, 0, 3, 2]] if transposed else turned


def _flipped(pixels: np.ndarray, rows: bool, columns: bool) -> np.ndarray:
    pixels = pixels[::-1] if rows else pixels
    return pixels[:, ::-1] if columns else pixels


def _mirrored(boxes_xyxy: Tensor, size: Size, rows: bool, columns: bool) -> Tensor:
    height, width = size
    x0, y0, x1, y1 = boxes_xyxy.unbind(-1)
    if columns:
        x0, x1 = width - x1, width - x0
    if rows:
        y0, y1 = height - y1, height - y0
    return torch.stack([x0, y0, x1, y1], dim=-1)
