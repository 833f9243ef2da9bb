r"""# Preprocess: the size that a model sees, in fractions of white

RT-DETR does not keep the aspect ratio and does not subtract a mean: a picture is *stretched* to
640 × 640 and divided by 255, no more (`Preprocess`). Boxes are fractions of the picture, so
stretching costs the post-processing nothing.

Bit for bit what transformers' `RTDetrImageProcessorPil` does: Pillow's bilinear filter, which
averages when it shrinks (torch's `interpolate` by default does not, and would move every score),
rounded to bytes, then divided by 255. (Dividing is exact to the last bit; multiplying by a single
precision 1/255 would be wrong in it for 126 of the 256 values.)

DETR keeps the shape of a picture (`KeepAspect`). Its shorter side becomes 800 pixels, unless the
longer one would exceed 1333; then that decides. Pictures of a batch share a canvas as large as the
largest of them in either direction, every one in its upper left corner; `padding` is True where it
shows nothing.

| picture     | `resized` to | why                              |
|-------------|--------------|----------------------------------|
| 480 × 640   | 800 × 1066   | shortest side 800                |
| 480 × 1280  | 500 × 1333   | longest side 1333                |
| 800 × 800   | 800 × 800    | stays                            |

The arithmetic is the authors' down to what is rounded (the shorter side) and what is cut off (the
longer one), so that pixels are those of transformers' `DetrImageProcessorPil` to the last bit: a
picture one pixel narrower is another picture. Mean and spread are the model's business
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
    """A picture in another (height, width)."""
    height, width = size
    return np.array(Image.fromarray(rgb).resize((width, height), Image.Resampling.BILINEAR))


@dataclass(frozen=True)
class Preprocess:
    """uint8 RGB → floats in [0, 1] of `size` (height, width)."""

    size: Size = (640, 640)

    def __post_init__(self) -> None:
        fine = len(self.size) == 2 and min(self.size) >= 1
        remedy = "give two positive numbers of pixels, e.g. (640, 640)"
        require(fine, "size", f"{self.size} is not a height and a width", remedy)

    def __call__(self, rgb: RGB) -> Float[Tensor, "3 h w"]:
        channels_first = stretch(rgb, self.size).transpose(2, 0, 1)
        return torch.from_numpy(channels_first.astype(np.float32)) / 255

    def batch(self, pictures: RGBs) -> Float[Tensor, "B 3 h w"]:
        """Several pictures, of any sizes, as one batch."""
        return torch.stack([self(rgb) for rgb in pictures])


def resized(size: Size, edges: Edges) -> Size:
    """(height, width) a picture of `size` gets."""
    (height, width), (shortest, longest) = size, edges
    small, large = min(size), max(size)
    # In this order of operations: another one rounds elsewhere.
    exact = float(shortest)
    if large / small * shortest > longest:
        exact = longest * float(small) / float(large)
    side = max(1, round(exact))
    if small == side:
        return size
    # Never empty: a hair of a picture keeps one pixel.
    other = max(1, int(exact * large / small))
    return (other, side) if width < height else (side, other)


@dataclass(frozen=True)
class KeepAspect:
    """uint8 RGB → floats in [0, 1], the shape of the picture kept."""

    edges: Edges = PAPER_EDGES

    def __post_init__(self) -> None:
        fine = len(self.edges) == 2 and 1 <= self.edges[0] <= self.edges[1]
        remedy = "give two positive numbers of pixels, e.g. (800, 1333)"
        require(fine, "edges", f"{self.edges} are no shortest and longest side", remedy)

    def __call__(self, rgb: RGB) -> Float[Tensor, "3 h w"]:
        return Preprocess(resized((rgb.shape[0], rgb.shape[1]), self.edges))(rgb)

    def batch(self, pictures: RGBs) -> tuple[Float[Tensor, "B 3 H W"], Bool[Tensor, "B H W"]]:
        """Several pictures on one canvas, and where it shows nothing."""
        return padded([self(rgb) for rgb in pictures])


def padded(
    images: Sequence[Float[Tensor, "3 _ _"]],
) -> tuple[Float[Tensor, "B 3 H W"], Bool[Tensor, "B H W"]]:
    """Pictures of any sizes, each in the upper left corner of the smallest canvas for all."""
    height = max(image.shape[-2] for image in images)
    width = max(image.shape[-1] for image in images)
    canvas = images[0].new_zeros((len(images), 3, height, width))
    padding = torch.ones((len(images), height, width), dtype=torch.bool, device=images[0].device)
    for i, image in enumerate(images):
        canvas[i, :, : image.shape[-2], : image.shape[-1]] = image
        padding[i, : image.shape[-2], : image.shape[-1]] = False
    return canvas, padding
