r"""# Frames: the two coordinate systems of a photo

A camera stores a photo as the sensor saw it. The EXIF data tell a viewer how to turn it. So there
are two frames, and a box has a meaning only together with the name of its frame:

| frame       | who uses it                                                                |
|-------------|----------------------------------------------------------------------------|
| **stored**  | COCO's annotations and results; training and evaluation with `data/`       |
| **upright** | viewers, `decode`, `Detections`, everything that is drawn                  |

The upright picture is the stored raster, transposed or not, then flipped along one side, both or
none. `Frame` converts boxes and pixels in both directions without loss.

| EXIF orientation | transposed | rows flipped | columns flipped | a viewer …                |
|------------------|------------|--------------|-----------------|---------------------------|
| 1                |            |              |                 | does nothing              |
| 2                |            |              | yes             | mirrors it                |
| 3                |            | yes          | yes             | rotates it by 180°        |
| 4                |            | yes          |                 | flips it upside down      |
| 5                | yes        |              |                 | transposes it             |
| 6                | yes        |              | yes             | rotates it clockwise      |
| 7                | yes        | yes          | yes             | transposes, rotates by 180° |
| 8                | yes        | yes          |                 | rotates it counterclockwise |
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from rtdetr_lab.errors import ImageError
from rtdetr_lab.notation import Size

Pixels = Shaped[np.ndarray, "_ _ *c"]
"""A raster or a mask."""

TURNS = {n: (n >= 5, n in (3, 4, 7, 8), n in (2, 3, 6, 7)) for n in range(1, 9)}
"""EXIF orientation → whether the raster is transposed, then its rows and its columns flipped."""


@dataclass(frozen=True)
class Frame:
    """Layout of a picture in its file: (height, width) as stored, and the EXIF orientation."""

    stored: Size
    orientation: int = 1

    @property
    def upright(self) -> Size:
        """Return (height, width) as a viewer shows it."""
        height, width = self.stored
        return (width, height) if TURNS[self.orientation][0] else (height, width)

    @property
    def back(self) -> "Frame":
        """Return the frame that leads from the upright picture to the stored raster.

        Only the orientations 6 and 8 differ from their inverse.
        """
        undone = {6: 8, 8: 6}.get(self.orientation, self.orientation)
        return Frame(self.upright, undone)

    def pixels_upright(self, stored: Pixels) -> Pixels:
        """Transpose and flip a stored raster or mask as a viewer does."""
        transposed, rows, columns = TURNS[self.orientation]
        turned = stored.swapaxes(0, 1) if transposed else stored
        turned = turned[:: -1 if rows else 1, :: -1 if columns else 1]
        return np.ascontiguousarray(turned)

    def boxes_upright(self, stored_xyxy: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
        """Convert corners in pixels of the stored raster to the upright picture."""
        transposed, rows, columns = TURNS[self.orientation]
        height, width = self.upright
        turned = stored_xyxy[:, [1, 0, 3, 2]] if transposed else stored_xyxy
        x0, y0, x1, y1 = turned.unbind(-1)
        if columns:
            x0, x1 = width - x1, width - x0
        if rows:
            y0, y1 = height - y1, height - y0
        return torch.stack([x0, y0, x1, y1], dim=-1)

    def pixels_as_stored(self, upright: Pixels) -> Pixels:
        """Transpose and flip an upright picture or mask back to the stored raster."""
        return self.back.pixels_upright(upright)

    def boxes_as_stored(self, upright_xyxy: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
        """Convert corners in pixels of the upright picture to the stored raster."""
        return self.back.boxes_upright(upright_xyxy)

    def of_annotations(self, size: Size | None, where: str) -> "Frame":
        """Return the frame of annotations that give this (height, width).

        Without a size they refer to the stored raster, as COCO's do. They refer to the upright
        picture only if their size is the upright one and not the stored one. Raises `ImageError` if
        it is neither.
        """
        if size in (None, self.stored):
            return self
        what = f"is stored with height and width {self.stored}, its annotations have {size}"
        if size != self.upright:
            raise ImageError(where, what, "correct the annotations, or give their picture")
        return Frame(self.upright)
