r"""# Structures: what travels between the chapters

A chapter returns a small named record and not a tuple, so that the next one, a visualizer and a
reader find things by name. All are frozen, compared by identity (comparing tensors raises) and
registered with `torch.export` where they are defined.

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

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rtdetr_lab.errors import ImageError
from rtdetr_lab.target_checks import as_boxes, as_labels, as_masks, check_labels, check_pictures

Record = TypeVar("Record")


def exportable(record: type[Record]) -> type[Record]:
    """Let `torch.export` carry a record of tensors in and out of a graph."""
    torch.export.register_dataclass(record)
    return record


@dataclass(frozen=True, eq=False)
class Targets:
    """Ground truth of a batch: per picture T labels, T boxes (cxcywh in [0, 1]), maybe T masks.

    `pictures` are what errors call them: file names, from a loader that knows them.
    """

    labels: tuple[Int[Tensor, "_"], ...]
    boxes: tuple[Float[Tensor, "_ 4"], ...]
    masks: tuple[Bool[Tensor, "_ H W"], ...] | None = None
    pictures: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_pictures(self.labels, self.boxes, self.masks)

    @classmethod
    def of(cls, pictures: Iterable[Mapping[str, Any]]) -> "Targets":
        """From one mapping per picture with `labels`, `boxes` and, for all or none, `masks`.

        Raises `TargetError` for what is not of their kind.
        """
        pictures = list(pictures)
        masks = [p["masks"] for p in pictures if p.get("masks") is not None]
        return cls(
            tuple(as_labels(p["labels"], i) for i, p in enumerate(pictures)),
            tuple(as_boxes(p["boxes"], i) for i, p in enumerate(pictures)),
            tuple(as_masks(m, i) for i, m in enumerate(masks)) if masks else None,
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

    def __getitem__(self, rows: slice) -> "Targets":
        """The targets of some of the pictures."""
        return self._changed(
            labels=self.labels[rows],
            boxes=self.boxes[rows],
            masks=self.masks and self.masks[rows],
            pictures=self.pictures[rows],
        )

    __iter__ = None  # rows come as slices: a loop over single ones would meet something else

    def to(self, *args: Any, **kwargs: Any) -> "Targets":
        """Move labels, boxes and masks; a dtype changes the boxes only."""
        boxes = tuple(box.to(*args, **kwargs) for box in self.boxes)
        device = next((box.device for box in boxes), None)
        follow = partial(Tensor.to, device=device, non_blocking=kwargs.get("non_blocking", False))
        return self._changed(boxes=boxes)._each(follow)

    def pin_memory(self) -> "Targets":
        """Copy to memory that a GPU reads while the processor goes on."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Targets":
        return self._changed(
            labels=tuple(map(change, self.labels)),
            boxes=tuple(map(change, self.boxes)),
            masks=self.masks and tuple(map(change, self.masks)),
        )

    def _changed(self, **values: Any) -> "Targets":
        # Checked already, and a second look would make the host wait for the device.
        targets = object.__new__(Targets)
        vars(targets).update(vars(self) | values)
        return targets

    def check_labels(self, num_classes: int) -> None:
        """Raise `TargetError` unless every label is one of the model's classes."""
        check_labels(self.labels, num_classes)


@dataclass(frozen=True, eq=False)
class Batch:
    """Pictures of a training step, in [0, 1], and their targets.

    `padding` is True where a canvas shows nothing, and None where all pictures have one size.
    """

    images: Float[Tensor, "B 3 H W"]
    targets: Targets
    padding: Bool[Tensor, "B H W"] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice) -> "Batch":
        """Some of the pictures, with all that belongs to them."""
        padding = None if self.padding is None else self.padding[rows]
        return Batch(self.images[rows], self.targets[rows], padding)

    __iter__ = None  # no tuple: `images, targets = batch` must not unpack rows

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """Move everything; pictures arrive as convolutions like them best: channels last."""
        how: Any = {"device": device, "non_blocking": non_blocking}
        images = self.images.to(memory_format=torch.channels_last, **how)
        padding = None if self.padding is None else self.padding.to(**how)
        return Batch(images, self.targets.to(**how), padding)

    def pin_memory(self) -> "Batch":
        """Copy to memory that a GPU reads while the processor goes on; `DataLoader` asks for it."""
        padding = None if self.padding is None else self.padding.pin_memory()
        return Batch(self.images.pin_memory(), self.targets.pin_memory(), padding)


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
    if not isinstance(images, Tensor):
        what, remedy = f"is a {type(images).__name__}", "pass a tensor (B, 3, H, W) of floats"
        raise ImageError("images", what, remedy)
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
