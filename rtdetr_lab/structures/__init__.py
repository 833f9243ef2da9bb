r"""# Structures: what travels between the chapters

A chapter returns a small record with named fields, not a tuple. So the next chapter, a visualizer
and a reader find its values by name. All records are frozen, compared by identity (comparing
tensors raises), and registered with `torch.export` where they are defined. `Targets` and `Batch`
are defined in `structures/targets.py`.

| record            | from → to                                   |
|-------------------|---------------------------------------------|
| `Targets`         | data → denoising, matching, losses          |
| `Batch`           | data → a training step                      |
| `Proposals`       | query selection → losses, visualizers       |
| `LayerPrediction` | a decoder layer → losses, visualizers       |
| `CDNBatch`        | denoising → decoder, losses                 |
| `Denoised`        | decoder → losses                            |
| `Prediction`      | model → post-processing, losses             |
| `Assignment`      | matching → losses, visualizers              |
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rtdetr_lab.errors import ImageError
from rtdetr_lab.structures.targets import Batch as Batch
from rtdetr_lab.structures.targets import Targets as Targets

Record = TypeVar("Record")


def _some(part: Any, which: slice) -> Any:
    """Cut a part of a layer's prediction to some queries; a vector belongs to all of them."""
    if isinstance(part, LayerPrediction):
        return part.queries(which)
    return part if part is None or part.ndim == 1 else part[:, which]


def exportable(record: type[Record]) -> type[Record]:
    """Register a record of tensors with `torch.export`, as input or output of a graph."""
    torch.export.register_dataclass(record)
    return record


@exportable
@dataclass(frozen=True, eq=False)
class LayerPrediction:
    """Prediction of one decoder layer: class logits, and boxes cxcywh in [0, 1].

    `content` are the queries after an RT-DETR's layer; a mask head reads those of the last one.
    """

    logits: Float[Tensor, "B Q C"]
    boxes: Float[Tensor, "B Q 4"]
    content: Float[Tensor, "B Q D"] | None = field(default=None, kw_only=True)

    def queries(self, which: slice) -> "LayerPrediction":
        """Return the prediction for some of the queries."""
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        kept = {name: _some(part, which) for name, part in parts.items()}
        return replace(self, **kept)


@exportable
@dataclass(frozen=True, eq=False)
class Proposals:
    """Tokens selected from the encoder's output: index among N, class logits and boxes."""

    index: Int[Tensor, "B Q"]
    logits: Float[Tensor, "B Q C"]
    boxes: Float[Tensor, "B Q 4"]

    @property
    def layer(self) -> LayerPrediction:
        """Return the proposals as a layer prediction, like a decoder layer before the first."""
        return LayerPrediction(self.logits, self.boxes)


@exportable
@dataclass(frozen=True, eq=False)
class CDNBatch:
    """Denoising queries of a batch (R per picture, padded), and the attention mask.

    `blocked[i, j]` is True where query i may not attend to query j; denoising queries come first.
    """

    content: Float[Tensor, "B R D"]
    reference_logits: Float[Tensor, "B R 4"]
    blocked: Bool[Tensor, "S S"]
    labels: Int[Tensor, "B R"]
    is_positive: Bool[Tensor, "B R"]
    target_index: Int[Tensor, "B R"]
    num_groups: int

    @property
    def num_queries(self) -> int:
        """Number R of denoising queries per picture, padding included."""
        return self.content.shape[1]


@exportable
@dataclass(frozen=True, eq=False)
class Denoised:
    """Predictions of all decoder layers for the denoising queries."""

    layers: tuple[LayerPrediction, ...]
    batch: CDNBatch


@exportable
@dataclass(frozen=True, eq=False)
class Prediction:
    """Output of a model for a batch: the last layer, and all earlier predictions.

    Boxes are cxcywh in [0, 1]. `logits` are before the sigmoid (RT-DETR) or the softmax (DETR,
    where the last class is "no object"). `masks` are the mask logits of a model that draws masks.
    """

    logits: Float[Tensor, "B Q C"]
    boxes: Float[Tensor, "B Q 4"]
    layers: tuple[LayerPrediction, ...]
    proposals: Proposals | None = None
    denoising: Denoised | None = None
    masks: Float[Tensor, "B Q _ _"] | None = None

    @classmethod
    def of(
        cls,
        layers: tuple[LayerPrediction, ...],
        proposals: Proposals | None = None,
        noised: CDNBatch | None = None,
    ) -> "Prediction":
        """Join the predictions of all layers; the denoising queries come first in each."""
        if noised is None:
            return cls(layers[-1].logits, layers[-1].boxes, layers, proposals)
        count = noised.num_queries
        denoised = tuple(layer.queries(slice(count)) for layer in layers)
        matched = tuple(layer.queries(slice(count, None)) for layer in layers)
        last = matched[-1]
        return cls(last.logits, last.boxes, matched, proposals, Denoised(denoised, noised))


@dataclass(frozen=True, eq=False)
class Assignment:
    """Matched queries and objects per picture: two index vectors of equal length."""

    queries: tuple[Int[Tensor, "_"], ...]
    objects: tuple[Int[Tensor, "_"], ...]

    def __len__(self) -> int:
        return len(self.queries)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(zip(self.queries, self.objects, strict=True))

    @property
    def flat(self) -> tuple[Int[Tensor, "_"], Int[Tensor, "_"]]:
        """Return (picture, query) of every matched pair, to index a `B Q …` tensor."""
        picture = [torch.full_like(q, i) for i, q in enumerate(self.queries)]
        return torch.cat(picture), torch.cat(self.queries)

    def gather(self, per_picture: Sequence[Tensor]) -> Tensor:
        """Return the rows of a per-picture list (labels, boxes …) in the order of `flat`."""
        return torch.cat([t[j] for t, j in zip(per_picture, self.objects, strict=True)])


def check_batch(images: Tensor, targets: Targets | None, num_classes: int) -> None:
    """Raise `ImageError` or `TargetError` for a batch that no model here accepts."""
    if not isinstance(images, Tensor):
        what, remedy = f"is a {type(images).__name__}", "pass a tensor (B, 3, H, W) of floats"
        raise ImageError("images", what, remedy)
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ImageError(
            "images",
            f"a tensor of shape {tuple(images.shape)} and type {images.dtype} is not a batch of "
            "RGB pictures",
            "pass (B, 3, H, W) floats in [0, 1]; Detector makes them from files",
        )
    if targets is None:
        return
    targets.check_labels(num_classes)
    if len(targets) != len(images):
        raise ImageError(
            "images",
            f"{len(images)} pictures and {len(targets)} targets",
            "give every picture one entry of targets, empty where it has no objects",
        )
