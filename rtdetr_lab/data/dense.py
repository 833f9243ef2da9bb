r"""# Dense one-to-one: more objects in a picture

- **Paper**     DEIM (arXiv 2412.04234) §3.1, Table 4; its loss is `successors/deim.py`

One-to-one matching trains one query per object. A picture of COCO has seven objects, so a step
trains few queries. DEIM does not change the matching; it puts more objects into each picture:

| way    | what it makes                                                    | objects              |
|--------|------------------------------------------------------------------|----------------------|
| mosaic | four pictures side by side, 2 × 2, each stretched to the first's size | of all four     |
| mixup  | two pictures of one size, averaged with weights of about ½ each  | of both              |

Boxes move with their pictures: a mosaic only halves and shifts them. Both ways may meet in one
picture, which then holds eight.

| epochs of 58 | strong changes | mosaic and mixup | why                               |
|--------------|----------------|------------------|-----------------------------------|
| 0 … 4        | off            | off              | attention learns on easy pictures |
| 4 … 29       | on             | on, ½ each       | many objects                      |
| 29 … 50      | on             | off              | real numbers of objects           |
| 50 … 58      | off            | off              | pictures as in use                |

A mosaic is neither zoomed out nor cropped, as in the authors' code. `# differs from the paper:`
theirs also turns, scales and shifts each of the four. Theirs mixes neighbours of a batch; we draw
the partner from all pictures, so that the place alone decides what is seen.

| 12 epochs (Table 4) | AP   |
|---------------------|------|
| neither             | 49.6 |
| mixup               | 50.1 |
| mosaic              | 50.4 |
| both                | 50.4 |
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from rtdetr_lab.config import extend, require, require_between
from rtdetr_lab.data import augment
from rtdetr_lab.data.augment import Augmentation, Place
from rtdetr_lab.data.batch import Sample
from rtdetr_lab.data.colours import PhotometricDistort
from rtdetr_lab.data.transforms import RandomTurn, Resize
from rtdetr_lab.data.windows import Window, paste
from rtdetr_lab.notation import Size

BEYOND = 2**40
"""A partner is augmented as a picture this far away in the stream: no run is so long."""


def joined(samples: Sequence[Sample], image: Tensor) -> Sample:
    """Return a picture with the objects of all samples; the rest is the first sample's."""
    masks = [sample.masks for sample in samples if sample.masks is not None]
    return replace(
        samples[0],
        image=image,
        labels=torch.cat([sample.labels for sample in samples]),
        boxes=torch.cat([sample.boxes for sample in samples]),
        masks=torch.cat(masks) if len(masks) == len(samples) else None,
    )


def mosaic(samples: Sequence[Sample]) -> Sample:
    """Put four pictures side by side, row by row, each stretched to the size of the first."""
    height, width = samples[0].image_size
    tiles = []
    for number, sample in enumerate(samples):
        window = Window(-width * (number % 2), -height * (number // 2), 2 * width, 2 * height)
        tiles.append(paste(Resize((height, width))(sample), window))
    return joined(tiles, torch.stack([tile.image for tile in tiles]).amax(0))  # black elsewhere


def mixup(one: Sample, other: Sample, share: float) -> Sample:
    """Average two pictures of one size; `share` is the weight of the first."""
    image = torch.lerp(other.image.float(), one.image.float(), share)
    rounded = image if one.image.is_floating_point() else image.round()
    return joined([one, other], rounded.to(one.image.dtype))


@dataclass(frozen=True)
class DenseAugmentation(Augmentation):
    """An `Augmentation` that joins pictures in the parts `between` of the run.

    `mosaic` and `mixup` are probabilities. Strong changes begin with the joins.
    """

    mosaic: float = 0.5
    mixup: float = 0.5
    between: tuple[float, float] = (4 / 58, 29 / 58)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_between(0, 1, "", mosaic=self.mosaic, mixup=self.mixup)
        rising = 0 <= self.between[0] <= self.between[1] <= 1
        require(rising, "between", f"is {self.between}", "give two rising numbers from 0 to 1")

    def __call__(self, sample: Sample, place: Place) -> Sample:
        if not self.between[0] <= place.progress < self.between[1]:
            return super().__call__(sample, place)
        rng = place.rng(augment.PARTNER)
        sized = replace(self, size=self.size or sample.image_size)
        made = sized._tiled(sample, place, rng)
        if rng.random() >= self.mixup:
            return made
        far = replace(place, position=place.position + BEYOND)
        other = sized._tiled(place.another(rng), far, rng)
        return mixup(made, other, rng.uniform(0.45, 0.55))

    def _tiled(self, sample: Sample, place: Place, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.mosaic:
            return super().__call__(sample, place)
        sample = mosaic([sample, *(place.another(rng) for _ in range(3))])
        colours = tuple(c for c in self.strong if isinstance(c, PhotometricDistort))
        return Augmentation.__call__(replace(self, strong=colours), sample, place)

    def is_strong(self, place: Place) -> bool:
        """Return whether the strong changes are on at this place."""
        return place.progress >= self.between[0] and super().is_strong(place)


def deim_augmentation(size: int = 640) -> Augmentation:
    """Return the recipe of DEIM: RT-DETR's changes, mosaic and mixup, over 58 epochs."""
    return extend(augment.paper_augmentation(size), DenseAugmentation, until=50 / 58)


AUGMENTATIONS = {
    "light": augment.light_augmentation,
    "v1": augment.paper_augmentation,
    "paper": augment.paper_augmentation,
    "v2": augment.v2_augmentation,
    "deim": deim_augmentation,
}
"""Name on the command line → recipe for pictures of one size."""


def augmentation_named(
    name: str, size: Size, mirrored: bool = True, turned: bool = False
) -> Augmentation | None:
    """Return the augmentation of this name; None for `none` and `flip`, which resize only, unless
    pictures are `turned`."""
    if name not in AUGMENTATIONS and not turned:
        return None
    made = AUGMENTATIONS[name](size[0]) if name in AUGMENTATIONS else Augmentation(size=size)
    flips = (augment.FLIP,) * (mirrored and name != "none")
    return replace(made, size=size, mild=flips + (RandomTurn(),) * turned)
