r"""# DETR's augmentation: pictures that keep their shape, seen from afar and from near

RT-DETR stretches pictures to squares, and all of a batch to one size (`augment.py`). DETR was
taught with pictures of their own shape, each of its own size, that share a canvas (`canvas.py`).
Half of them are seen whole, of the others a part (§4 "Technical details", §A.4):

    flip ½ → ½: resize to 400, 500 or 600 → cut out a part with sides 384 … 600
           → resize the shortest side to 480 … 800, the longest to 1333 at most

All sizes are the paper's for the edges (800, 1333); `detr_augmentation(edges)` scales them.

An object belongs to a part if *anything* of it is to be seen there, and is cut off at its border.
(RT-DETR's crop asks for its centre.) As in `augment.py`, what a picture becomes follows from its
place in the run alone.
"""

from dataclasses import dataclass

import numpy as np

from rtdetr_lab.config import require
from rtdetr_lab.data.augment import PICTURE, SANITIZE, Place
from rtdetr_lab.data.batch import Sample
from rtdetr_lab.data.canvas import PAPER_SHORTEST, RandomEdges, ResizeEdges
from rtdetr_lab.data.transforms import RandomFlip, SanitizeBoxes, require_probability
from rtdetr_lab.data.windows import Window, crop, shows_something
from rtdetr_lab.images.preprocess import PAPER_EDGES, Edges
from rtdetr_lab.notation import Size

FLIP = RandomFlip()
ANY_LENGTH = 10**9
"""The longest side before a part is cut out: the paper sets no limit there."""


@dataclass(frozen=True)
class AspectAugmentation:
    """Whole or, with probability `p_crop`, a part with sides from `sides[0]` to `sides[1]` of a
    picture whose shortest side is one of `before`; then the shortest side drawn from `shortest`."""

    shortest: tuple[int, ...] = PAPER_SHORTEST
    longest: int = PAPER_EDGES[1]
    p_crop: float = 0.5
    before: tuple[int, ...] = (400, 500, 600)
    sides: tuple[int, int] = (384, 600)
    flip: RandomFlip = FLIP
    sanitize: SanitizeBoxes = SANITIZE

    def __post_init__(self) -> None:
        RandomEdges(self.shortest, self.longest)  # refuses what it could not do
        require_probability(self.p_crop)
        good = bool(self.before) and min(self.before) >= 1
        require(good, "before", f"is {self.before}", "give sizes of 1 pixel or more")
        rising = 1 <= self.sides[0] <= self.sides[1]
        require(rising, "sides", f"are {self.sides}", "give the least and the largest side")

    def __call__(self, sample: Sample, place: Place) -> Sample:
        rng = place.rng(PICTURE)
        sample = self.flip(self.sanitize(sample), rng)
        if rng.random() < self.p_crop:
            sample = self._part(sample, rng)
        return self.sanitize(RandomEdges(self.shortest, self.longest)(sample, rng))

    def _part(self, sample: Sample, rng: np.random.Generator) -> Sample:
        sample = ResizeEdges((int(rng.choice(self.before)), ANY_LENGTH))(sample)
        height, width = sample.image.shape[-2:]
        wide, high = self._side(width, rng), self._side(height, rng)
        left, top = int(rng.integers(width - wide + 1)), int(rng.integers(height - high + 1))
        return crop(sample, Window(left, top, wide, high), shows_something)

    def _side(self, length: int, rng: np.random.Generator) -> int:
        least, most = (min(side, length) for side in self.sides)
        return int(rng.integers(least, most + 1))

    @property
    def edges(self) -> Edges:
        """Shortest and longest side of pictures in use: the largest it has learned."""
        return max(self.shortest), self.longest

    @property
    def size(self) -> Size:
        """Size that stands for all where pictures have several."""
        return max(self.shortest), max(self.shortest)


def detr_augmentation(edges: Edges = PAPER_EDGES) -> AspectAugmentation:
    """DETR §A.4, with all sizes in proportion to `edges` (shortest, longest)."""

    def scaled(sizes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(max(1, round(size * edges[0] / PAPER_EDGES[0])) for size in sizes)

    least, most = scaled((384, 600))
    return AspectAugmentation(
        scaled(PAPER_SHORTEST), edges[1], before=scaled((400, 500, 600)), sides=(least, most)
    )
