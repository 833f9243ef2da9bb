r"""# Augment: the recipe's augmentation, as a function of the place in a run

An `Augmentation` maps a sample and its `Place` to the sample that training sees there. All random
numbers follow from the seed and the place. For a picture, they follow from its position in the
stream; for a batch (its size in pixels), from its step. So a resumed run sees the same pictures
as a run that was never stopped, whichever process loads them.

    strong changes → sanitise → mild changes → resize to the size of the batch → sanitise

| preset               | strong                                  | mild | sizes     | until        |
|----------------------|-----------------------------------------|------|-----------|--------------|
| `light_augmentation` | photometric 0.5                         | flip | one       | the end      |
| `paper_augmentation` | photometric 0.5, zoom-out 0.5, crop 0.8 | flip | 480 … 800 | the end      |
| `v2_augmentation`    | the same                                | flip | 480 … 800 | 2 epochs off |

The last epochs of RT-DETRv2 see pictures as the detector sees them in use (P2 §2.2). Photometric
distortion, zoom-out, crops and the change of sizes are off; the flip stays.

DETR was trained on pictures that keep their own shape and size and share a canvas (`canvas.py`).
Half of them are seen whole; the other half are cropped (§4 "Technical details", §A.4):

    flip ½ → ½: resize to 400, 500 or 600 → cut out a part with sides 384 … 600
           → resize the shortest side to 480 … 800, the longest to 1333 at most

All sizes are the paper's for the edges (800, 1333); `detr_augmentation(edges)` scales them. An
object belongs to a part if *anything* of it is visible there. It is cut off at the border of the
part. (RT-DETR's crop requires its centre to be inside.)

`# differs from the paper:` its code resizes each picture to 640 and then the whole batch to the
drawn size; we resize once.

Some classes differ only in their aspect, like the squares and rectangles of the shapes world. A
crop that is stretched to a square destroys that difference. Leave crops out for such classes.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rtdetr_lab.config import require, require_between
from rtdetr_lab.data.batch import Sample
from rtdetr_lab.data.canvas import PAPER_SHORTEST, RandomEdges, ResizeEdges
from rtdetr_lab.data.colours import PhotometricDistort
from rtdetr_lab.data.transforms import RandomFlip, Resize, SanitizeBoxes
from rtdetr_lab.data.windows import IoUCrop, Window, ZoomOut, crop, shows_something
from rtdetr_lab.data.workers import name_errors
from rtdetr_lab.images.preprocess import PAPER_EDGES
from rtdetr_lab.notation import Edges, Size

SANITIZE, FLIP = SanitizeBoxes(), RandomFlip()

PICTURE, BATCH, PARTNER = 0, 1, 2
"""Three families of random numbers: of a picture, of a batch (the same for all of its pictures),
and of the pictures that are joined with one (`dense.py`)."""


@dataclass(frozen=True)
class Place:
    """A place in a run: `position` in the endless stream of pictures, and `step`, the number of the
    batch. `progress` is the part of the run that is done, in [0, 1). `data` are all pictures."""

    seed: int
    position: int
    step: int
    progress: float
    data: Any = ()

    def rng(self, family: int) -> np.random.Generator:
        """Return the generator for this `PICTURE`, its `PARTNER`s, or this `BATCH`."""
        number = self.step if family == BATCH else self.position
        seed = np.random.SeedSequence([self.seed % 2**64, number], spawn_key=(family,))
        return np.random.default_rng(seed)

    def another(self, rng: np.random.Generator) -> Sample:
        """Draw one of all pictures."""
        index = int(rng.integers(len(self.data)))
        with name_errors(f"data[{index}]"):
            sample: Sample = self.data[index]
        return sample


@dataclass(frozen=True)
class Augmentation:
    """A recipe: `strong` changes end when the part `until` of the run is done, `mild` changes stay.

    Then the picture is resized; without a `size` it keeps its own. `sizes` are heights of batches:
    one is drawn per batch while the strong changes last, and widths scale with it. A size that is
    listed twice is drawn twice as often. `strong` and `mild` hold `RandomTransform`s.
    """

    strong: tuple[Any, ...] = ()
    mild: tuple[Any, ...] = (FLIP,)
    size: Size | None = (640, 640)
    sizes: tuple[int, ...] = ()
    until: float = 1.0
    sanitize: SanitizeBoxes = SANITIZE
    edges: ClassVar[None] = None
    """None: all pictures have one size. Pictures of DETR keep their own shape."""

    def __post_init__(self) -> None:
        require(0 <= self.until <= 1, "until", f"is {self.until}", "give a number from 0 to 1")
        given = (*(self.size or ()), *self.sizes)
        require(self.size or not self.sizes, "sizes", "need a size", "give one, such as (640, 640)")
        positive = min(given, default=1) >= 1
        require(positive, "size", f"{self.size}, {self.sizes}", "give sizes of 1 pixel or more")

    def __call__(self, sample: Sample, place: Place) -> Sample:
        size = self.size_at(place) or sample.image_size
        rng = place.rng(PICTURE)
        for change in self.strong if self.is_strong(place) else ():
            sample = change(sample, rng)
        sample = self.sanitize(sample)
        for change in self.mild:
            sample = change(sample, rng)
        return self.sanitize(Resize(size)(sample))

    def is_strong(self, place: Place) -> bool:
        """Return whether the strong changes are still on at this place."""
        return place.progress < self.until

    def size_at(self, place: Place) -> Size | None:
        """Return the (height, width) of the batch at this place."""
        if self.size is None or not self.sizes or not self.is_strong(place):
            return self.size
        side, (height, width) = int(place.rng(BATCH).choice(self.sizes)), self.size
        return side, round(side * width / height)


def multi_scale(size: int, step: int = 32) -> tuple[int, ...]:
    """Return the multiples of `step` from ¾ to 5⁄4 of `size`. `size` itself comes three times, as
    the authors list it: 480, 512, …, 640, 640, 640, …, 800."""
    sides = (n for n in range(step, 2 * size, step) if 0.75 * size <= n <= 1.25 * size)
    return tuple(sorted([*sides, size, size] + ([size] if size % step else [])))


def paper_augmentation(size: int = 640) -> Augmentation:
    """Return the recipe of RT-DETR, Table A: all changes last until the end."""
    return Augmentation(
        strong=(PhotometricDistort(0.5), ZoomOut(0.5), IoUCrop(0.8)),
        size=(size, size),
        sizes=multi_scale(size),
    )


def light_augmentation(size: int = 640) -> Augmentation:
    """Return colours and mirror images, at one size: the shapes and places of objects stay."""
    return Augmentation(strong=(PhotometricDistort(0.5),), size=(size, size))


def v2_augmentation(size: int = 640, epochs: int = 72, plain_epochs: int = 2) -> Augmentation:
    """Return the recipe of RT-DETRv2 §2.2: the strong changes end `plain_epochs` before the end of
    `epochs`."""
    few = 0 <= plain_epochs <= epochs and epochs > 0
    require(few, "plain_epochs", f"is {plain_epochs} of {epochs}", "give a number from 0 to epochs")
    paper = paper_augmentation(size)
    until = 1 - plain_epochs / epochs
    return Augmentation(paper.strong, paper.mild, paper.size, paper.sizes, until)


ANY_LENGTH = 10**9
"""The longest side before the crop: the paper sets no limit there."""


@dataclass(frozen=True)
class AspectAugmentation:
    """Whole pictures or, with probability `p_crop`, crops; their shortest side is drawn from
    `shortest`.

    Before a crop, the shortest side of the picture is resized to one of `before`. The crop has
    sides from `sides[0]` to `sides[1]`.
    """

    shortest: tuple[int, ...] = PAPER_SHORTEST
    longest: int = PAPER_EDGES[1]
    p_crop: float = 0.5
    before: tuple[int, ...] = (400, 500, 600)
    sides: tuple[int, int] = (384, 600)
    flip: RandomFlip = FLIP
    sanitize: SanitizeBoxes = SANITIZE

    def __post_init__(self) -> None:
        RandomEdges(self.shortest, self.longest)  # raises for values that it cannot use
        require_between(0, 1, "", p_crop=self.p_crop)
        good = bool(self.before) and min(self.before) >= 1
        require(good, "before", f"is {self.before}", "give sizes of 1 pixel or more")
        rising = 1 <= self.sides[0] <= self.sides[1]
        require(rising, "sides", f"are {self.sides}", "give the smallest and the largest side")

    def __call__(self, sample: Sample, place: Place) -> Sample:
        rng = place.rng(PICTURE)
        sample = self.flip(self.sanitize(sample), rng)
        if rng.random() < self.p_crop:
            sample = self._part(sample, rng)
        return self.sanitize(RandomEdges(self.shortest, self.longest)(sample, rng))

    def _part(self, sample: Sample, rng: np.random.Generator) -> Sample:
        sample = ResizeEdges((int(rng.choice(self.before)), ANY_LENGTH))(sample)
        height, width = sample.image_size
        wide, high = self._side(width, rng), self._side(height, rng)
        left, top = int(rng.integers(width - wide + 1)), int(rng.integers(height - high + 1))
        return crop(sample, Window(left, top, wide, high), shows_something)

    def _side(self, length: int, rng: np.random.Generator) -> int:
        least, most = (min(side, length) for side in self.sides)
        return int(rng.integers(least, most + 1))

    @property
    def edges(self) -> Edges:
        """Return shortest and longest side of pictures in use: the largest that training draws."""
        return max(self.shortest), self.longest

    @property
    def size(self) -> Size:
        """Return one size that stands for all, because pictures here have several."""
        return max(self.shortest), max(self.shortest)


def detr_augmentation(edges: Edges = PAPER_EDGES) -> AspectAugmentation:
    """Return DETR's recipe (§A.4), with all sizes scaled to `edges` (shortest, longest)."""

    def scaled(sizes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(max(1, round(size * edges[0] / PAPER_EDGES[0])) for size in sizes)

    least, most = scaled((384, 600))
    return AspectAugmentation(
        scaled(PAPER_SHORTEST), edges[1], before=scaled((400, 500, 600)), sides=(least, most)
    )
