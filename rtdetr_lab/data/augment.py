r"""# Augment: the recipe's augmentation, as a function of the place in a run

An `Augmentation` maps a sample and its `Place` to what training sees there. All random numbers
follow from the seed and the place: those of a picture from its position in the stream, those of a
batch (its size in pixels) from its step. So a run that was stopped goes on with the very pictures
it would have seen, whoever loads them.

    strong changes → sanitise → mild changes → resize to the size of the batch → sanitise

| preset               | strong                                  | mild | sizes     | until        |
|----------------------|-----------------------------------------|------|-----------|--------------|
| `paper_augmentation` | photometric 0.5, zoom-out 0.5, crop 0.8 | flip | 480 … 800 | the end      |
| `v2_augmentation`    | the same                                | flip | 480 … 800 | 2 epochs off |

The last epochs of RT-DETRv2 see pictures as they will be seen in use (P2 §2.2): photometric
distortion, zoom-out, crops and the change of sizes are over, the flip stays.

`# differs from the paper:` its code resizes every picture to 640 and then the whole batch to the
drawn size; we resize once. Classes that are told apart by their aspect, like the squares and
rectangles of the shapes world, do not survive crops that are stretched to squares: leave them out.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from rtdetr_lab.config import require
from rtdetr_lab.data.batch import Sample
from rtdetr_lab.data.colours import PhotometricDistort
from rtdetr_lab.data.transforms import RandomFlip, Resize, SanitizeBoxes
from rtdetr_lab.data.windows import IoUCrop, ZoomOut
from rtdetr_lab.notation import Size

SANITIZE = SanitizeBoxes()

PICTURE, BATCH = 0, 1
"""Two families of random numbers: what differs within a batch, and what does not."""


@dataclass(frozen=True)
class Place:
    """Where a picture is seen: `position` in the endless stream of a run, in its batch `step`;
    `progress` is the part of the run that lies behind, in [0, 1)."""

    seed: int
    position: int
    step: int
    progress: float

    def rng(self, family: int) -> np.random.Generator:
        """The random numbers of this `PICTURE`, or of this `BATCH`."""
        number = self.position if family == PICTURE else self.step
        seed = np.random.SeedSequence([self.seed % 2**64, number], spawn_key=(family,))
        return np.random.default_rng(seed)


@dataclass(frozen=True)
class Augmentation:
    """Changes that are over when `until` of the run has passed, changes that stay, and the size.

    `sizes` are heights of batches, one drawn per batch as long as the strong changes last; widths
    grow and shrink with them. One that stands there twice is drawn twice as often. `strong` and
    `mild` hold `RandomTransform`s.
    """

    strong: tuple[Any, ...] = ()
    mild: tuple[Any, ...] = (RandomFlip(),)
    size: Size = (640, 640)
    sizes: tuple[int, ...] = ()
    until: float = 1.0
    sanitize: SanitizeBoxes = SANITIZE

    def __post_init__(self) -> None:
        require(0 <= self.until <= 1, "until", f"is {self.until}", "give a part of the run")
        positive = min((*self.size, *self.sizes)) >= 1
        require(positive, "size", f"{self.size}, {self.sizes}", "give sizes of 1 pixel or more")

    def __call__(self, sample: Sample, place: Place) -> Sample:
        rng = place.rng(PICTURE)
        for change in self.strong if self.is_strong(place) else ():
            sample = change(sample, rng)
        sample = self.sanitize(sample)
        for change in self.mild:
            sample = change(sample, rng)
        return self.sanitize(Resize(self.size_at(place))(sample))

    @property
    def edges(self) -> None:
        """None: pictures come in one size. DETR's are in `augment_detr.py`."""
        return None

    def is_strong(self, place: Place) -> bool:
        """Whether the strong changes still happen there."""
        return place.progress < self.until

    def size_at(self, place: Place) -> Size:
        """(height, width) of the batch that is made there."""
        if not self.sizes or not self.is_strong(place):
            return self.size
        side, (height, width) = int(place.rng(BATCH).choice(self.sizes)), self.size
        return side, round(side * width / height)


def multi_scale(size: int, step: int = 32) -> tuple[int, ...]:
    """Multiples of `step` from ¾ to 5⁄4 of `size`, which itself comes three times, as the authors
    list it: 480, 512, …, 640, 640, 640, …, 800."""
    sides = (n for n in range(step, 2 * size, step) if 0.75 * size <= n <= 1.25 * size)
    return tuple(sorted([*sides, size, size] + ([size] if size % step else [])))


def paper_augmentation(size: int = 640) -> Augmentation:
    """RT-DETR, Table A: everything until the end."""
    return Augmentation(
        strong=(PhotometricDistort(0.5), ZoomOut(0.5), IoUCrop(0.8)),
        size=(size, size),
        sizes=multi_scale(size),
    )


def v2_augmentation(size: int = 640, epochs: int = 72, plain_epochs: int = 2) -> Augmentation:
    """RT-DETRv2 §2.2: the strong changes are over `plain_epochs` before the end of `epochs`."""
    few = 0 <= plain_epochs <= epochs and epochs > 0
    require(few, "plain_epochs", f"is {plain_epochs} of {epochs}", "give 0 … epochs")
    paper = paper_augmentation(size)
    until = 1 - plain_epochs / epochs
    return Augmentation(paper.strong, paper.mild, paper.size, paper.sizes, until)
