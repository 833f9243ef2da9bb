r"""# Structures: what travels between the chapters

A chapter returns a small named record and not a tuple, so that the next one, a visualizer and a
reader find things by name. All are frozen, compared by identity (comparing tensors raises) and
registered with `torch.export` where they are defined.

| record            | from → to                                   |
|-------------------|---------------------------------------------|
| `Targets`         | data → denoising, matching, losses          |
| `Proposals`       | query selection → losses, visualizers       |
| `LayerPrediction` | a decoder layer → losses, visualizers       |
| `CDNBatch`        | denoising → decoder, losses                 |
| `Denoised`        | decoder → losses                            |
| `Prediction`      | model → post-processing, losses             |
| `Assignment`      | matching → losses, visualizers              |
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rtdetr_lab.errors import ImageError, TargetError

Record = TypeVar("Record")


def exportable(record: type[Record]) -> type[Record]:
    """Let `torch.export` carry a record of tensors in and out of a graph."""
    torch.export.register_dataclass(record)
    return record


@dataclass(frozen=True, eq=False)
class Targets:
    """Ground truth of a batch: per picture T labels, T boxes (cxcywh in [0, 1]), maybe T masks."""

    labels: tuple[Int[Tensor, "_"], ...]
    boxes: tuple[Float[Tensor, "_ 4"], ...]
    masks: tuple[Bool[Tensor, "_ H W"], ...] | None = None

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.boxes):
            raise TargetError(
                "targets",
                f"{len(self.labels)} pictures have labels and {len(self.boxes)} have boxes",
                "give one of each per picture; a picture without objects has empty ones",
            )
        if self.masks is not None and len(self.masks) != len(self.labels):
            raise TargetError(
                "targets",
                f"{len(self.labels)} pictures have labels and {len(self.masks)} have masks",
                "give masks for all pictures of the batch or for none",
            )
        for index, (labels, boxes) in enumerate(zip(self.labels, self.boxes, strict=True)):
            _check_picture(index, labels, boxes)

    @classmethod
    def of(cls, pictures: Iterable[Mapping[str, Any]]) -> "Targets":
        """From one mapping per picture with `labels`, `boxes` and, for all or none, `masks`."""
        pictures = list(pictures)
        masks = [p["masks"] for p in pictures if p.get("masks") is not None]
        return cls(
            tuple(torch.as_tensor(p["labels"]).long().reshape(-1) for p in pictures),
            tuple((torch.as_tensor(p["boxes"]) * 1.0).reshape(-1, 4) for p in pictures),
            tuple(torch.as_tensor(m).bool() for m in masks) if masks else None,
        )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def counts(self) -> list[int]:
        """Objects per picture."""
        return [len(labels) for labels in self.labels]

    @property
    def num_boxes(self) -> int:
        """Objects in the whole batch."""
        return sum(self.counts)

    def to(self, *args: Any, **kwargs: Any) -> "Targets":
        """Move labels, boxes and masks; a dtype changes the boxes only."""
        boxes = tuple(b.to(*args, **kwargs) for b in self.boxes)
        devices = [b.device for b in boxes]
        labels = tuple(t.to(d) for t, d in zip(self.labels, devices, strict=True))
        masks = self.masks and tuple(t.to(d) for t, d in zip(self.masks, devices, strict=True))
        return Targets(labels, boxes, masks)

    def check_labels(self, num_classes: int) -> None:
        """Raise `TargetError` unless every label is one of the model's classes."""
        for index, labels in enumerate(self.labels):
            if labels.numel() and not (0 <= int(labels.min()) and int(labels.max()) < num_classes):
                bad = labels[(labels < 0) | (labels >= num_classes)][0]
                raise TargetError(
                    f"targets.labels[{index}]",
                    f"label {int(bad)} is outside 0 … {num_classes - 1}",
                    "map category ids to contiguous labels, or build with more num_classes",
                )


def _check_picture(index: int, labels: Tensor, boxes: Tensor) -> None:
    where = f"targets.boxes[{index}]"
    if boxes.ndim != 2 or boxes.shape[-1] != 4:
        raise TargetError(where, f"has shape {tuple(boxes.shape)}", "boxes are (T, 4)")
    if len(labels) != len(boxes):
        raise TargetError(
            where,
            f"{len(boxes)} boxes for {len(labels)} labels",
            "give every object one label and one box",
        )
    if not boxes.numel():
        return
    if not bool(torch.isfinite(boxes).all()):
        raise TargetError(where, "holds a value that is not finite", "remove the broken box")
    worst = float(boxes.flatten()[(boxes - 0.5).abs().argmax()])
    if abs(worst - 0.5) > 0.5 + 1e-3:
        raise TargetError(
            where,
            f"holds the coordinate {worst:g}; "
            "centre, width and height are fractions of the picture in [0, 1]",
            "divide pixels by the picture's width and height",
        )
    if bool((boxes[:, 2:] <= 0).any()):
        bad = int((boxes[:, 2:] <= 0).any(-1).nonzero()[0])
        raise TargetError(f"{where}[{bad}]", "has no width or no height", "drop boxes without area")


@exportable
@dataclass(frozen=True, eq=False)
class LayerPrediction:
    """What one decoder layer says: class logits, and boxes cxcywh in [0, 1]."""

    logits: Float[Tensor, "B Q C"]
    boxes: Float[Tensor, "B Q 4"]


@exportable
@dataclass(frozen=True, eq=False)
class Proposals:
    """The encoder's chosen tokens: their index among N, class logits and boxes."""

    index: Int[Tensor, "B Q"]
    logits: Float[Tensor, "B Q C"]
    boxes: Float[Tensor, "B Q 4"]

    @property
    def layer(self) -> LayerPrediction:
        """The proposals seen as the prediction of a layer before the first."""
        return LayerPrediction(self.logits, self.boxes)


@exportable
@dataclass(frozen=True, eq=False)
class CDNBatch:
    """Denoising queries of a batch (R of them per picture, padded), and who may see whom.

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
        """R: denoising queries per picture, padding included."""
        return self.content.shape[1]


@exportable
@dataclass(frozen=True, eq=False)
class Denoised:
    """What every decoder layer made of the denoising queries."""

    layers: tuple[LayerPrediction, ...]
    batch: CDNBatch


@exportable
@dataclass(frozen=True, eq=False)
class Prediction:
    """A model's answer for a batch: the last layer, and everything on the way to it.

    Boxes are cxcywh in [0, 1]; `logits` are before the sigmoid (RT-DETR) or softmax (DETR, whose
    last class is "no object"). `masks` are mask logits of DETR's segmentation head.
    """

    logits: Float[Tensor, "B Q C"]
    boxes: Float[Tensor, "B Q 4"]
    layers: tuple[LayerPrediction, ...]
    proposals: Proposals | None = None
    denoising: Denoised | None = None
    masks: Float[Tensor, "B Q _ _"] | None = None


@dataclass(frozen=True, eq=False)
class Assignment:
    """For every picture, which query answers for which object: two index vectors of one length."""

    queries: tuple[Int[Tensor, "_"], ...]
    objects: tuple[Int[Tensor, "_"], ...]

    def __len__(self) -> int:
        return len(self.queries)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(zip(self.queries, self.objects, strict=True))

    @property
    def flat(self) -> tuple[Int[Tensor, "_"], Int[Tensor, "_"]]:
        """(picture, query) of every matched pair, to index a `B Q …` tensor."""
        picture = [torch.full_like(q, i) for i, q in enumerate(self.queries)]
        return torch.cat(picture), torch.cat(self.queries)

    def gather(self, per_picture: Sequence[Tensor]) -> Tensor:
        """Rows of a per-picture list (labels, boxes …) in the order of `flat`."""
        return torch.cat([t[j] for t, j in zip(per_picture, self.objects, strict=True)])


def check_batch(images: Tensor, targets: Targets | None, num_classes: int) -> None:
    """Raise `ImageError` or `TargetError` for a batch no model here can take."""
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ImageError(
            "images",
            f"a tensor of shape {tuple(images.shape)} and type {images.dtype} is no batch of "
            "RGB pictures",
            "pass (B, 3, H, W) floats in [0, 1]; Detector does it from files",
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
