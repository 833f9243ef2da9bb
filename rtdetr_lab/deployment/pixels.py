r"""# Pixels: Pillow's resize as two matrix products

A detector that runs in a millisecond should not wait ten for the host to shrink a photo. Pillow's
bilinear filter (the one every score depends on, see `images/preprocess.py`) is separable and
linear: along each axis every output pixel is a weighted mean of input pixels, with a triangle of
weights as wide as the scale. So it is two matrix products, which any device does well:

$$ Y = \mathrm{round}\bigl(A_h \, \mathrm{round}(X A_w^\top)\bigr) $$

Pillow rounds to bytes after each axis, rows first, with weights of 22 bits; so do we. In double
precision the result is Pillow's, bit for bit; in single precision a value that lies within 1e-5 of
a half may be rounded to its other neighbour, one part in 255 away.
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
    """A picture stretched to `size`, channels first, in fractions of white, where `rgb` is."""
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
    """Row i: how much of every input pixel output pixel i is made of."""
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
