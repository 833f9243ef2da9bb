r"""# Canvas: pictures that keep their shape, side by side

RT-DETR stretches pictures, DETR does not (`images/preprocess.py`). This module does DETR's resizing
for training. One transform resizes to the paper's size, another to a size drawn at random. In a
batch, each picture lies in the upper left corner of one canvas, together with its masks.

Boxes stay fractions of their *picture*, as in the authors' code. A model that was fine-tuned
with transformers' processor has learned fractions of the *canvas*. Train it with
`collate_on_canvas(samples, of_canvas=True)`, and set `Metadata(canvas_boxes=True)` for its boxes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from rtdetr_lab.config import require
from rtdetr_lab.data.batch import Dataset, Mapped, Sample, Wrapped, check_samples, collate
from rtdetr_lab.data.transforms import Resize
from rtdetr_lab.data.windows import Window, paste
from rtdetr_lab.images.preprocess import PAPER_EDGES, Edges, KeepAspect, resized
from rtdetr_lab.model import Metadata
from rtdetr_lab.structures import Batch

PAPER_SHORTEST = tuple(range(480, 801, 32))
"""The shortest sides DETR draws from in training (§A.4)."""


@dataclass(frozen=True)
class ResizeEdges:
    """Resize to `edges` (shortest, longest), like `KeepAspect` before detection."""

    edges: Edges = PAPER_EDGES

    def __post_init__(self) -> None:
        KeepAspect(self.edges)  # raises for invalid edges

    def __call__(self, sample: Sample) -> Sample:
        height, width = sample.image_size
        return Resize(resized((height, width), self.edges))(sample)


@dataclass(frozen=True)
class RandomEdges:
    """Resize to a shortest side drawn from `shortest`, the longest at most `longest`; for
    `Augmented`."""

    shortest: tuple[int, ...] = PAPER_SHORTEST
    longest: int = 1333

    def __post_init__(self) -> None:
        what, remedy = "holds no size", "give sizes from 1 to longest"
        good = bool(self.shortest) and 1 <= min(self.shortest) <= max(self.shortest) <= self.longest
        require(good, "shortest", what, remedy)

    @property
    def edges(self) -> Edges:
        """The largest edges that it draws."""
        return max(self.shortest), self.longest

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        side = self.shortest[int(rng.integers(len(self.shortest)))]
        return ResizeEdges((side, self.longest))(sample)


def collate_on_canvas(samples: Sequence[Sample], of_canvas: bool = False) -> Batch:
    """Join pictures in [0, 1], their targets, and the padding: where the canvas is empty (1 -
    pixel_mask)."""
    check_samples(samples)
    sizes = [sample.image_size for sample in samples]
    height, width = (max(sides) for sides in zip(*sizes, strict=True))
    padding = torch.ones((len(samples), height, width), dtype=torch.bool)
    pasted = []
    for sample, size, hidden in zip(samples, sizes, padding, strict=True):
        hidden[: size[0], : size[1]] = False
        on_canvas = paste(sample, Window(0, 0, width, height))
        pasted.append(on_canvas if of_canvas else replace(on_canvas, boxes=sample.boxes))
    return replace(collate(pasted), padding=padding)


def fitted(data: Dataset, metadata: Metadata) -> Dataset:
    """Return `data` at the size that a model is made for: stretched, or between its edges. If the
    model was not trained yet, or the data has that size already, return it unchanged."""
    size, edges = metadata.image_size, metadata.edges
    if edges is not None:
        return data if edges_of(data) == edges else Mapped(data, ResizeEdges(edges))
    return data if size is None else Mapped(data, Resize(size))


def edges_of(data: Dataset) -> Edges | None:
    """Return the edges that the pictures are resized to, or `None` if all have one size."""
    while isinstance(data, Wrapped):
        transform = getattr(data, "transform", None)
        if isinstance(transform, ResizeEdges | RandomEdges):
            return transform.edges
        data = data.dataset
    return None
