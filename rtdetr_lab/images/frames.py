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

Pixels = Shaped[np.ndarray, "_ _ *c"]
"""A raster or a mask."""

TURNS = {n: (n >= 5, n in (3, 4, 7, 8), n in (2, 3, 6, 7)) for n in range(1, 9)}
"""EXIF orientation → whether the raster is transposed, then its rows and its columns flipped."""


@dataclass(frozen=True)
class Frame:
    """How a picture is stored: the (height, width) in the file, and the EXIF orientation."""

    stored: Size
    orientation: int = 1

    @property
    def upright(self) -> Size:
        """(height, width) as a viewer shows it."""
        height, width = self.stored
        return (width, height) if TURNS[self.orientation][0] else (height, width)

    @property
    def back(self) -> "Frame":
        """The way from the upright picture to the stored raster: only quarter turns differ."""
        undone = {6: 8, 8: 6}.get(self.orientation, self.orientation)
        return Frame(self.upright, undone)

    def pixels_upright(self, stored: Pixels) -> Pixels:
        """A raster or a mask as a viewer shows it."""
        transposed, rows, columns = TURNS[self.orientation]
        turned = stored.swapaxes(0, 1) if transposed else stored
        turned = turned[:: -1 if rows else 1, :: -1 if columns else 1]
        return np.ascontiguousarray(turned)

    def boxes_upright(self, stored_xyxy: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
        """Corners in pixels of the stored raster → of the upright picture."""
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
        """An upright picture or mask as it lies in the file."""
        return self.back.pixels_upright(upright)

    def boxes_as_stored(self, upright_xyxy: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
        """Corners in pixels of the upright picture → of the stored raster."""
        return self.back.boxes_upright(upright_xyxy)

    def of_annotations(self, size: Size | None, where: str) -> "Frame":
        """Frame of annotations that give this (height, width).

        They refer to the stored raster, as COCO's do, also without a size. They refer to the
        upright picture only if that alone has their size. Raises `ImageError` if neither has it.
        """
        if size in (None, self.stored):
            return self
        what = f"is stored with height and width {self.stored}, its annotations say {size}"
        if size != self.upright:
            raise ImageError(where, what, "correct the annotations, or give their picture")
        return Frame(self.upright)
