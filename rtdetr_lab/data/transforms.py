"""# Transforms: picture, boxes and masks change together

A transform is a pure function of a sample (and of the random numbers it is given, never of its
own). `truth` stays what it was. Fixed ones go into `Mapped`, random ones into `Augmented`.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from rtdetr_lab.config import require
from rtdetr_lab.data.batch import Sample
from rtdetr_lab.notation import Size


@dataclass(frozen=True)
class Resize:
    """Stretch to (height, width), as `images.Preprocess` does it before detection.

    Boxes are fractions of the picture, so they stay. Masks keep hard edges.
    """

    size: Size

    def __post_init__(self) -> None:
        require(min(self.size) >= 1, "size", f"is {self.size}", "give a height and a width")

    def __call__(self, sample: Sample) -> Sample:
        if tuple(sample.image.shape[-2:]) == self.size:
            return sample
        if sample.image.dtype != torch.uint8:
            image = torch.nn.functional.interpolate(
                sample.image[None], self.size, mode="bilinear", antialias=True
            )[0]
        else:
            height, width = self.size
            stored = Image.fromarray(np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy()))
            small = np.array(stored.resize((width, height), Image.Resampling.BILINEAR))
            image = torch.from_numpy(small).permute(2, 0, 1).contiguous()
        return replace(sample, image=image, masks=self._masks(sample.masks))

    def _masks(self, masks: torch.Tensor | None) -> torch.Tensor | None:
        if masks is None:
            return None
        small = torch.nn.functional.interpolate(
            masks[None].to(torch.uint8), self.size, mode="nearest-exact"
        )
        return small[0].bool()


def flip(sample: Sample) -> Sample:
    """Left becomes right."""
    centre_x = 1 - sample.boxes[:, :1]
    return replace(
        sample,
        image=sample.image.flip(-1),
        boxes=torch.cat([centre_x, sample.boxes[:, 1:]], dim=1),
        masks=None if sample.masks is None else sample.masks.flip(-1),
    )


@dataclass(frozen=True)
class RandomFlip:
    """`flip` with a probability."""

    probability: float = 0.5

    def __post_init__(self) -> None:
        p = self.probability
        require(0 <= p <= 1, "probability", f"is {p}", "give a number from 0 to 1")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        return flip(sample) if rng.random() < self.probability else sample
