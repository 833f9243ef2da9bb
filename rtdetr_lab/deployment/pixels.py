r"""# Pixels: Pillow's resize as two matrix products

A detector that runs in a millisecond should not wait ten for the host to shrink a photo. Every
score depends on Pillow's bilinear filter (see `images/preprocess.py`). That filter is separable
and linear: along each axis, an output pixel is a weighted mean of input pixels, and the weights
form a triangle as wide as the scale. So the resize is two matrix products, which every device does
well:

$$ Y = \mathrm{round}\bigl(A_h \, \mathrm{round}(X A_w^\top)\bigr) $$

Pillow rounds to bytes after each axis, rows first, with weights of 22 bits; so do we. In double
precision the result is Pillow's, bit for bit. In single precision, a value within 1e-5 of a half
may be rounded to its other neighbour, which is one part in 255 away.
"""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from rtdetr_lab.layers import cached_by_size
from rtdetr_lab.notation import Size

BITS = 22
"""Precision of Pillow's weights for 8-bit pictures."""


def stretch(
    rgb: UInt8[Tensor, "H W 3"], size: Size, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "3 h w"]:
    """Stretch a picture to `size`, on its device: channels first, values in [0, 1]."""
    height, width = size
    x = rgb.permute(2, 0, 1).to(dtype)
    if x.shape[2] != width:
        x = _bytes(x @ weights(x.shape[2], width, x.device, dtype).T)
    if x.shape[1] != height:
        x = _bytes(weights(x.shape[1], height, x.device, dtype) @ x)
    return x / 255


@cached_by_size
def weights(
    length: int, wanted: int, device: torch.device, dtype: torch.dtype
) -> Float[Tensor, "n m"]:
    """Compute the matrix in which row i has the weights of all input pixels for output pixel i."""
    scale = length / wanted
    support = max(scale, 1.0)  # a triangle of half-width 1 output pixel, or 1 input pixel
    matrix = np.zeros((wanted, length))
    for i in range(wanted):
        centre = (i + 0.5) * scale
        first = max(int(centre - support + 0.5), 0)
        last = min(int(centre + support + 0.5), length)
        distance = (np.arange(first, last) + 0.5 - centre) / support
        share = np.clip(1 - np.abs(distance), 0, None)
        matrix[i, first:last] = share / share.sum()
    fixed = np.floor(matrix * 2**BITS + 0.5) / 2**BITS
    return torch.from_numpy(fixed).to(device, dtype)


def _bytes(x: Float[Tensor, "3 H W"]) -> Float[Tensor, "3 H W"]:
    return (x + 0.5).floor().clamp(0, 255)
