r"""# Preprocess: the size the model was trained at, in fractions of white

RT-DETR does not keep the aspect ratio and does not subtract a mean: a picture is *stretched* to
640 × 640 and divided by 255, no more. Boxes are fractions of the picture, so stretching costs the
post-processing nothing.

Bit for bit what transformers' `RTDetrImageProcessorPil` does: Pillow's bilinear filter, which
averages when it shrinks (torch's `interpolate` by default does not, and would move every score),
rounded to bytes, then divided by 255. (Dividing is exact to the last bit; multiplying by a single
precision 1/255 would be wrong in it for 126 of the 256 values.)
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from rtdetr_lab.config import require
from rtdetr_lab.images.arrays import RGB, RGBs
from rtdetr_lab.notation import Size


@dataclass(frozen=True)
class Preprocess:
    """uint8 RGB → floats in [0, 1] of `size` (height, width)."""

    size: Size = (640, 640)

    def __post_init__(self) -> None:
        fine = len(self.size) == 2 and min(self.size) >= 1
        remedy = "give two positive numbers of pixels, e.g. (640, 640)"
        require(fine, "size", f"{self.size} is not a height and a width", remedy)

    def __call__(self, rgb: RGB) -> Float[Tensor, "3 h w"]:
        height, width = self.size
        resized = Image.fromarray(rgb).resize((width, height), Image.Resampling.BILINEAR)
        channels_first = np.asarray(resized).transpose(2, 0, 1)
        return torch.from_numpy(channels_first.astype(np.float32)) / 255

    def batch(self, pictures: RGBs) -> Float[Tensor, "B 3 h w"]:
        """Several pictures, of any sizes, as one batch."""
        return torch.stack([self(rgb) for rgb in pictures])
