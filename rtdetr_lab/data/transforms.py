"""# Transforms: picture, boxes and masks change together

A transform is a pure function of a sample. A random one also gets a generator and uses no other
random numbers. `truth` does not change. Use fixed transforms in `Mapped`. Use random ones in
`Augmented` or, with the rest of the paper's recipe, in an `Augmentation` (`augment.py`). What joins
several pictures is in `dense.py`.

| here           | `colours.py`         | `windows.py`                    |
|----------------|----------------------|---------------------------------|
| `Resize`       | `PhotometricDistort` | `ZoomOut`: on a black canvas    |
| `flip`         |                      | `IoUCrop`: a part of the picture |
| `RandomFlip`   |                      |                                 |
| `turn`, `RandomTurn` |                |                                 |
| `SanitizeBoxes` |                     |                                 |

Pillow needs the three numbers of a pixel side by side, torch needs three planes. A tensor can be a
view of either. So we copy pixels only when we change them, not when we pass them on.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

from rtdetr_lab.config import require, require_at_least, require_between
from rtdetr_lab.data.batch import Sample
from rtdetr_lab.images.preprocess import stretch
from rtdetr_lab.notation import Size


def pixels_of(image: UInt8[Tensor, "3 H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """Return a picture in the layout of Pillow and numpy; a view if the memory allows it."""
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def image_of(pixels: UInt8[np.ndarray, "H W 3"]) -> UInt8[Tensor, "3 H W"]:
    """Return a picture in the layout of a model: a view."""
    return torch.from_numpy(pixels).permute(2, 0, 1)


@dataclass(frozen=True)
class Resize:
    """Stretch to (height, width), as `images.Preprocess` does before detection.

    Boxes are fractions of the picture, so they do not change. Masks keep hard edges.
    """

    size: Size

    def __post_init__(self) -> None:
        require(min(self.size) >= 1, "size", f"is {self.size}", "give a height and a width")

    def __call__(self, sample: Sample) -> Sample:
        if sample.image_size == self.size:
            return sample
        if sample.image.dtype != torch.uint8:
            images = sample.image[None]
            image = F.interpolate(images, self.size, mode="bilinear", antialias=True)[0]
        else:
            image = image_of(stretch(pixels_of(sample.image), self.size))
        return replace(sample, image=image, masks=sample.masks_after(self._resize))

    def _resize(self, masks: Tensor) -> Tensor:
        if not len(masks):
            return masks.new_zeros((0, *self.size))
        masks = masks[None].to(torch.uint8)
        return F.interpolate(masks, self.size, mode="nearest-exact")[0].bool()


def flip(sample: Sample) -> Sample:
    """Exchange left and right."""
    centre_x = 1 - sample.boxes[:, :1]
    return replace(
        sample,
        image=sample.image.flip(-1),
        boxes=torch.cat([centre_x, sample.boxes[:, 1:]], dim=1),
        masks=sample.masks_after(lambda masks: masks.flip(-1)),
    )


@dataclass(frozen=True)
class RandomFlip:
    """Apply `flip` with probability `p`."""

    p: float = 0.5

    def __post_init__(self) -> None:
        require_between(0, 1, "", p=self.p)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        return flip(sample) if rng.random() < self.p else sample


def turn(sample: Sample, quarters: int) -> Sample:
    """Turn by quarters of a circle, against the clock."""
    boxes = sample.boxes
    for _ in range(quarters % 4):
        x, y, width, height = boxes.unbind(1)
        boxes = torch.stack([y, 1 - x, height, width], dim=1)
    return replace(
        sample,
        image=sample.image.rot90(quarters, (-2, -1)),
        boxes=boxes,
        masks=sample.masks_after(lambda masks: masks.rot90(quarters, (-2, -1))),
    )


@dataclass(frozen=True)
class RandomTurn:
    """Apply `turn` with 0, 1, 2 or 3 quarters, each as often. Height and width may change places,
    so resize afterwards."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        return turn(sample, int(rng.integers(4)))


@dataclass(frozen=True)
class SanitizeBoxes:
    """Remove objects that are too small to learn from: with a side below `min_size` pixels, or with
    an empty mask if masks are loaded."""

    min_size: float = 1.0

    def __post_init__(self) -> None:
        require_at_least(0, "", min_size=self.min_size)

    def __call__(self, sample: Sample) -> Sample:
        height, width = sample.image_size
        sides = sample.boxes[:, 2:] * sample.boxes.new_tensor([width, height])
        large = (sides >= self.min_size).all(1)
        if sample.masks is not None:
            large &= sample.masks.flatten(1).any(1)
        return sample if bool(large.all()) else select(sample, large)


def select(sample: Sample, keep: Tensor) -> Sample:
    """Keep only the objects where `keep` is true; the picture and its truth do not change."""
    return replace(
        sample,
        labels=sample.labels[keep],
        boxes=sample.boxes[keep],
        masks=sample.masks_after(lambda masks: masks[keep]),
    )
