r"""# Colours: photometric distortion as one matrix

The recipe (RT-DETR, Table A) changes brightness, contrast, saturation and hue, each with some
probability, and sometimes exchanges the channels. Let $x$ be the colour of a pixel, $g^\top x$ its
grey value and $\bar x$ the mean colour of the picture:

| change     | $x \mapsto$                                  | drawn from        |
|------------|----------------------------------------------|-------------------|
| brightness | $b\,x$                                       | 0.875 … 1.125     |
| contrast   | $c\,x + (1 - c)\,g^\top \bar x$              | 0.5 … 1.5         |
| saturation | $s\,x + (1 - s)\,g^\top x$                   | 0.5 … 1.5         |
| hue        | rotate by $2\pi h$ around the grey axis      | −0.05 … 0.05      |
| channels   | a permutation                                | all six           |

All are affine, and so is any sequence of them: $x \mapsto Ax + t$. Contrast needs the mean of the
picture so far. We compute it without reading the picture again: the same map, applied to the mean
colour, gives the new mean. So the pixels are read and written once, whatever was drawn.

`# differs from the paper:` its code clamps colours to black and white after each change, and shifts
the hue in HSV, which is not linear. We clamp once, at the end. We rotate the hue in the chroma
plane, which keeps the grey value.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from rtdetr_lab.config import require, require_between
from rtdetr_lab.data.batch import Sample
from rtdetr_lab.data.transforms import image_of, pixels_of

Range = tuple[float, float]
Vector = Float[np.ndarray, "3"]

GREY: Vector = np.array([0.299, 0.587, 0.114])
"""The weights of red, green and blue in the grey value."""

CHROMA = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
"""RGB → YIQ: the grey value and a plane of colours around it."""


@dataclass(frozen=True, eq=False)
class ColourMap:
    r"""The map $x \mapsto Ax + t$, for colours in [0, 1]."""

    matrix: Float[np.ndarray, "3 3"]
    offset: Vector

    def then(self, matrix: Float[np.ndarray, "3 3"], offset: float = 0.0) -> "ColourMap":
        """Return this map, followed by another one."""
        return ColourMap(matrix @ self.matrix, matrix @ self.offset + offset)

    def __call__(self, sample: Sample) -> Sample:
        if sample.image.dtype != torch.uint8:
            return replace(sample, image=self._floats(sample.image))
        rows = np.concatenate([self.matrix, 255 * self.offset[:, None]], axis=1)
        picture = Image.fromarray(pixels_of(sample.image))
        changed = picture.convert("RGB", tuple(rows.ravel().tolist()))
        return replace(sample, image=image_of(np.array(changed)))

    def _floats(self, image: Tensor) -> Tensor:
        matrix, offset = (torch.from_numpy(a).to(image) for a in (self.matrix, self.offset))
        return (torch.einsum("ij,jhw->ihw", matrix, image) + offset[:, None, None]).clamp(0, 1)


SAME = ColourMap(np.eye(3), np.zeros(3))


def brightness(before: ColourMap, factor: float) -> ColourMap:
    """Make colours lighter or darker."""
    return before.then(factor * np.eye(3))


def contrast(before: ColourMap, factor: float, mean: Vector) -> ColourMap:
    """Move colours away from, or towards, the mean grey. `mean` is the mean colour of the picture
    before all changes."""
    grey = float(GREY @ (before.matrix @ mean + before.offset))
    return before.then(factor * np.eye(3), (1 - factor) * grey)


def saturation(before: ColourMap, factor: float) -> ColourMap:
    """Move colours away from, or towards, the grey of their own pixel."""
    return before.then(factor * np.eye(3) + (1 - factor) * np.tile(GREY, (3, 1)))


def hue(before: ColourMap, turn: float) -> ColourMap:
    """Rotate colours around the grey axis, by a part of a full turn."""
    cosine, sine = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
    rotation = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    return before.then(np.linalg.inv(CHROMA) @ rotation @ CHROMA)


@dataclass(frozen=True)
class PhotometricDistort:
    """Applies each change with probability `p`, and contrast before or after the colours."""

    p: float = 0.5
    brightness: Range = (0.875, 1.125)
    contrast: Range = (0.5, 1.5)
    saturation: Range = (0.5, 1.5)
    hue: Range = (-0.05, 0.05)

    def __post_init__(self) -> None:
        require_between(0, 1, "", p=self.p)
        for name in ("brightness", "contrast", "saturation", "hue"):
            low, high = getattr(self, name)
            ordered = low <= high and (name == "hue" or low >= 0)
            require(ordered, name, f"is {(low, high)}", "give a lowest and a highest value")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        drawn = self.draw(mean_colour(sample.image), rng)
        return sample if drawn is SAME else drawn(sample)

    def draw(self, mean: Vector, rng: np.random.Generator) -> ColourMap:
        """Draw the map for a picture with this mean colour."""
        ranges = (self.brightness, self.contrast, self.saturation, self.hue)
        b, c, s, h = (self._value(between, rng) for between in ranges)
        early, drawn = rng.random() < 0.5, SAME
        drawn = drawn if b is None else brightness(drawn, b)
        drawn = drawn if c is None or not early else contrast(drawn, c, mean)
        drawn = drawn if s is None else saturation(drawn, s)
        drawn = drawn if h is None else hue(drawn, h)
        drawn = drawn if c is None or early else contrast(drawn, c, mean)
        swapped = rng.random() < self.p
        return drawn.then(np.eye(3)[rng.permutation(3)]) if swapped else drawn

    def _value(self, between: Range, rng: np.random.Generator) -> float | None:
        value = rng.uniform(*between)
        return value if rng.random() < self.p else None


def mean_colour(image: Tensor) -> Vector:
    """Return the mean of red, green and blue in [0, 1]."""
    if image.dtype != torch.uint8:
        return image.double().mean((1, 2)).numpy()
    counts = np.array(Image.fromarray(pixels_of(image)).histogram()).reshape(3, 256)
    return counts @ np.arange(256) / (255 * counts[0].sum())
