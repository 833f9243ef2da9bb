r"""# Preprocess: from a picture to the input of a model, in fractions of white

RT-DETR does not keep the aspect ratio and does not subtract a mean. A picture is *stretched* to
640 × 640 and divided by 255 (`Preprocess`). Boxes are fractions of the picture, so stretching costs
the post-processing nothing.

The result equals that of transformers' `RTDetrImageProcessorPil` bit for bit: Pillow's bilinear
filter, rounding to bytes, division by 255. Pillow's filter averages when it shrinks a picture. By
default torch's `interpolate` does not, and that would change every score. We divide by 255 and do
not multiply by 1/255: in single precision the product has a wrong last bit for 126 of the 256
values.

DETR keeps the aspect ratio of a picture (`KeepAspect`). Its shorter side becomes 800 pixels. If the
longer side would then exceed 1333, the longer side becomes 1333 instead. Pictures of a batch share
a canvas with the largest height and the largest width among them. Each picture is in the upper left
corner, and `padding` is True outside it.

| picture     | `resized` to | why                              |
|-------------|--------------|----------------------------------|
| 480 × 640   | 800 × 1066   | shortest side 800                |
| 480 × 1280  | 500 × 1333   | longest side 1333                |
| 800 × 800   | 800 × 800    | stays                            |

The arithmetic is the authors'. It rounds the shorter side and truncates the longer one. So the
pixels equal those of transformers' `DetrImageProcessorPil` to the last bit: a picture that is one
pixel narrower is a different picture. The model subtracts mean and divides by spread itself
(`detr/model.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from rtdetr_lab.config import require
from rtdetr_lab.images.arrays import RGB, RGBs
from rtdetr_lab.notation import Edges as Edges
from rtdetr_lab.notation import Size

PAPER_EDGES: Edges = (800, 1333)


def stretch(rgb: RGB, size: Size) -> UInt8[np.ndarray, "h w 3"]:
    """Resize a picture to another (height, width)."""
    height, width = size
    return np.array(Image.fromarray(rgb).resize((width, height), Image.Resampling.BILINEAR))


@dataclass(frozen=True)
class Preprocess:
    """Conversion of uint8 RGB to floats in [0, 1] of `size` (height, width)."""

    size: Size = (640, 640)

    def __post_init__(self) -> None:
        fine = len(self.size) == 2 and min(self.size) >= 1
        remedy = "give two positive numbers of pixels, e.g. (640, 640)"
        require(fine, "size", f"{self.size} is not a height and a width", remedy)

    def __call__(self, rgb: RGB) -> Float[Tensor, "3 h w"]:
        channels_first = stretch(rgb, self.size).transpose(2, 0, 1)
        return torch.from_numpy(channels_first.astype(np.float32)) / 255

    def batch(self, pictures: RGBs) -> Float[Tensor, "B 3 h w"]:
        """Stack several pictures, of any sizes, into one batch."""
        return torch.stack([self(rgb) for rgb in pictures])


def resized(size: Size, edges: Edges) -> Size:
    """Return the new (height, width) of a picture of `size`."""
    (height, width), (shortest, longest) = size, edges
    small, large = min(size), max(size)
    # Keep this order of operations: another order rounds differently.
    exact = float(shortest)
    if large / small * shortest > longest:
        exact = longest * float(small) / float(large)
    side = max(1, round(exact))
    if small == side:
        return size
    # Never empty: a very thin picture keeps one pixel.
    other = max(1, int(exact * large / small))
    return (other, side) if width < height else (side, other)


@dataclass(frozen=True)
class KeepAspect:
    """Conversion of uint8 RGB to floats in [0, 1] that keeps the aspect ratio."""

    edges: Edges = PAPER_EDGES

    def __post_init__(self) -> None:
        fine = len(self.edges) == 2 and 1 <= self.edges[0] <= self.edges[1]
        remedy = "give two positive numbers of pixels, e.g. (800, 1333)"
        require(fine, "edges", f"{self.edges} are not a shortest and longest side", remedy)

    def __call__(self, rgb: RGB) -> Float[Tensor, "3 h w"]:
        return Preprocess(resized((rgb.shape[0], rgb.shape[1]), self.edges))(rgb)

    def batch(self, pictures: RGBs) -> tuple[Float[Tensor, "B 3 H W"], Bool[Tensor, "B H W"]]:
        """Put several pictures on one canvas; return it with its padding."""
        return padded([self(rgb) for rgb in pictures])


def padded(
    images: Sequence[Float[Tensor, "3 _ _"]],
) -> tuple[Float[Tensor, "B 3 H W"], Bool[Tensor, "B H W"]]:
    """Put pictures of any sizes in the upper left corner of the smallest canvas that fits all."""
    height = max(image.shape[-2] for image in images)
    width = max(image.shape[-1] for image in images)
    canvas = images[0].new_zeros((len(images), 3, height, width))
    padding = torch.ones((len(images), height, width), dtype=torch.bool, device=images[0].device)
    for i, image in enumerate(images):
        canvas[i, :, : image.shape[-2], : image.shape[-1]] = image
        padding[i, : image.shape[-2], : image.shape[-1]] = False
    return canvas, padding
