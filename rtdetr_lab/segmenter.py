"""# Segmenter: the front door of a model that draws

    found = lab.panoptic(model, "kitchen.jpg", stuff=("wall", "floor"))
    found.ids, found.segments, found.names
    found.plot()

One picture in, the owner of its every pixel out, in the picture's own pixels. Who gets a pixel is a
rule (`images/panoptic.py`): `ByOverlap()` as in transformers, or the authors' `ByArea()`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from rtdetr_lab.config import require
from rtdetr_lab.detections import Classes, classes_of
from rtdetr_lab.images import panoptic as rules
from rtdetr_lab.images.arrays import RGB
from rtdetr_lab.images.decode import decode
from rtdetr_lab.images.edges import PAPER_EDGES, Edges, KeepAspect
from rtdetr_lab.images.predict import predict_segments
from rtdetr_lab.model import declared

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class SegmentedPicture:
    """Whose every pixel is: a segment's number, 0 for none, and what the numbers mean."""

    ids: Int[Tensor, "H W"]
    segments: tuple[rules.Segment, ...]
    classes: Classes
    image: RGB = field(repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """What every segment is called."""
        return tuple(self.classes.names[segment.label] for segment in self.segments)

    @property
    def masks(self) -> Bool[Tensor, "n H W"]:
        """The pixels of every segment."""
        numbers = torch.tensor([s.id for s in self.segments], dtype=torch.long)
        return self.ids == numbers[:, None, None]

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """The picture with its segments painted and named, on `ax` or a new figure."""
        from rtdetr_lab.viz.panoptic import show_segments

        found = rules.Segments(self.ids, self.segments)
        return show_segments(self.image, found, self.classes.names, ax)


def panoptic(
    model: nn.Module,
    picture: Any,
    *,
    stuff: Iterable[str] = (),
    rule: rules.Rule | None = None,
    edges: Edges | None = None,
    names: Iterable[str] | None = None,
) -> SegmentedPicture:
    """The segments of a picture (anything `Detector` takes). Classes in `stuff` occur once each.

    `edges` (shortest, longest) default to the checkpoint's, else to the paper's. Raises
    `ConfigError` for a model that does not draw or is in training mode, or a class it does not
    know, and `ImageError` for a picture that cannot be read.
    """
    require(not model.training, "model", "is in training mode", "call model.eval()")
    classes = classes_of(model, names)
    labels = {classes.label_of(name) for name in stuff}
    look = KeepAspect(edges or declared(model).metadata.edges or PAPER_EDGES)
    rgb = decode(picture)
    (found,) = predict_segments(model, [rgb], look, labels, rule)
    return SegmentedPicture(found.ids.cpu(), found.segments, classes, rgb)
