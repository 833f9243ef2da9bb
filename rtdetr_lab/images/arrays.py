r"""# Arrays: which picture does this array mean?

An array does not tell whether its channels come first, or which value is white. We read an array
only if a single reading is possible, and refuse the others with an error. A wrong guess gives a
dark or striped picture, and a model still finds something in it.

| type               | range                          | read as                                    |
|--------------------|--------------------------------|--------------------------------------------|
| bool               |                                | black and white                            |
| uint8              |                                | as it is                                   |
| uint16             | 2¹⁴ or more somewhere, or all 0 | 16 bits: the high byte, as Pillow does it |
| other integers     | [0, 255]                       | 8 bits in a wider type                     |
| float              | [0, 1]                         | fractions, white is 1                      |
| float              | [0, 255], above 2 somewhere    | 8 bits in a wider type                     |
| anything else      |                                | refused                                    |

**How many of 16 bits?** Cameras and microscopes write 10, 12 or 14 bits into 16. Read as 16 bits,
such a picture is nearly black, and a model still finds something. The number of bits comes from
the caller (`Limits(bits=12)`) or from the file (`modes.py`). Without either, a pixel of 2¹⁴ or more
means 16 bits. Below that we refuse. We do not guess from the maximum of one picture: in a series,
a dark frame would be stretched, and its bright neighbours would not.

Shapes are `H W`, `H W c` or `c H W` with 1, 3 (RGB) or 4 (RGBA) channels. If the first and the last
axis could both be channels, the library's convention decides: last for numpy, first for torch.
"""

from collections.abc import Sequence
from typing import NoReturn

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from rtdetr_lab.errors import ImageError

RGB = UInt8[np.ndarray, "H W 3"]
RGBs = Sequence[UInt8[np.ndarray, "_ _ 3"]]
"""Pictures of any sizes."""
CHANNELS = (1, 3, 4)
SLACK = 1e-3
"""Rounding may move a float this far out of [0, 1]; beyond it the picture was normalised."""
FEWER_BITS = (8, 10, 12, 14)
"""Other numbers of bits that are stored in 16."""
SAY_BITS = "give Limits(bits={0}), or `detect --bits {0}`"


def rgb_from_array(array: np.ndarray | Tensor, where: str, bits: int | None = None) -> RGB:
    """Return the picture in an array or tensor; raise `ImageError` if its meaning is not clear.

    `bits` is the number of significant bits in integers that are wider than bytes.
    """
    first = isinstance(array, Tensor)
    if isinstance(array, Tensor):
        array = array.detach().cpu()
        values = (array.float() if array.is_floating_point() else array).numpy()
    else:
        values = np.asarray(array)
    if not values.size:
        _refuse(where, f"an array of shape {values.shape} has no pixels", "pass a picture")
    return three_channels(_bytes(_channels_last(values, first, where), where, bits))


def over_white(rgba: UInt8[np.ndarray, "H W 4"]) -> RGB:
    """Blend transparent pixels with white."""
    colour, alpha = rgba[..., :3].astype(np.uint32), rgba[..., 3:].astype(np.uint32)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def bytes_from_integers(values: np.ndarray, where: str, bits: int | None = None) -> np.ndarray:
    """Convert 16 bits, or the `bits` of them that are used, to 8.

    The result is not rounded: Pillow does not round 16-bit colour, and grey must agree with colour.
    """
    low, high = int(values.min()), int(values.max())
    if bits is None and 0 < high < 2 ** FEWER_BITS[-1]:
        fits = next(bits for bits in FEWER_BITS if high < 2**bits)
        what = f"16-bit pixels reach only {high}: {fits} bits in a wider type, or a dark picture"
        remedy = "(16 if it is dark); or scale to 8 bits and cast to uint8"
        _refuse(where, what, f"{SAY_BITS.format(fits)} {remedy}")
    bits = bits or 16
    if low < 0 or high >= 2**bits:
        _refuse(where, f"pixels from {low} to {high} are not {bits} bits", "give the right bits=")
    return (values.astype(np.uint32) >> (bits - 8)).astype(np.uint8)


def check_wide_colour(rgb: RGB, where: str) -> None:
    """Refuse the upper bytes of 16-bit colour if fewer bits may be used.

    The lower bytes are lost already.
    """
    high = int(rgb.max())
    if high < 2 ** (FEWER_BITS[-1] - 8):
        what = f"16-bit colour stays below {(high + 1) * 256}: fewer bits, or a dark picture"
        _refuse(where, what, f"store it in 8 bits; if it is dark: {SAY_BITS.format(16)}")


def bytes_from_floats(values: np.ndarray, where: str) -> np.ndarray:
    """Convert floats to uint8 according to their range; see the table above."""
    if not np.isfinite(values).all():
        _refuse(where, "holds NaN or infinite pixels", "find the step that made them")
    low, high = float(values.min()), float(values.max())
    if -SLACK <= low and high <= 1 + SLACK:
        return np.rint(values.clip(0, 1) * 255).astype(np.uint8)
    if low >= 0 and 2 < high <= 255:
        return np.rint(values).astype(np.uint8)
    _refuse(
        where,
        f"floats from {low:g} to {high:g} are neither [0, 1] nor [0, 255]",
        "undo a normalisation by mean and std, then scale to [0, 1]",
    )


def _refuse(where: str, what: str, remedy: str) -> NoReturn:
    raise ImageError(where, what, remedy)


def _channels_last(values: np.ndarray, first: bool, where: str) -> np.ndarray:
    if values.ndim == 2:
        return values[..., None]
    if values.ndim != 3:
        remedy = "pass a list of pictures" if values.ndim == 4 else "pass (H, W) or (H, W, 3)"
        _refuse(where, f"an array of shape {values.shape} is not one picture", remedy)
    could_be_first, could_be_last = values.shape[0] in CHANNELS, values.shape[-1] in CHANNELS
    if not (could_be_first or could_be_last):
        what = f"shape {values.shape} has no axis of 1, 3 or 4 channels at either end"
        _refuse(where, what, "pass (H, W, 3) or (3, H, W)")
    if could_be_first and (first or not could_be_last):
        return np.moveaxis(values, 0, -1)
    return values


def _bytes(values: np.ndarray, where: str, bits: int | None) -> np.ndarray:
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8) * 255
    if values.dtype.kind == "f":
        return bytes_from_floats(values, where)
    if values.dtype.kind not in "ui":
        _refuse(where, f"pixels of type {values.dtype}", "pass integers or floats")
    if bits is not None or values.dtype == np.uint16:
        return bytes_from_integers(values, where, bits)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 255:
        what = f"{values.dtype} pixels from {low} to {high} are not [0, 255]"
        _refuse(where, what, "scale to uint8, or cast 16-bit pixels to uint16")
    return values.astype(np.uint8)


def three_channels(values: np.ndarray) -> RGB:
    """Convert grey (with or without a channel axis), RGB or RGBA to RGB."""
    values = values[..., None] if values.ndim == 2 else values
    if values.shape[-1] == 4:
        return over_white(values)
    # Not `broadcast_to`: its result is read-only, and torch warns about such arrays.
    return np.ascontiguousarray(np.repeat(values, 3, axis=-1) if values.shape[-1] == 1 else values)
