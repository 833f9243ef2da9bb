r"""# Targets: what the model should find in a batch

`Targets` holds labels, boxes and optional masks per picture. They are checked when they are made
(`target_checks.py`). `Batch` holds them together with the pictures.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rtdetr_lab.structures.target_checks import (
    as_boxes,
    as_labels,
    as_masks,
    check_labels,
    check_pictures,
)


@dataclass(frozen=True, eq=False)
class Targets:
    """Ground truth of a batch: T labels, T boxes (cxcywh in [0, 1]), maybe T masks, per picture.

    `pictures` are the names that errors use: file names, if the loader has them.
    """

    labels: tuple[Int[Tensor, "_"], ...]
    boxes: tuple[Float[Tensor, "_ 4"], ...]
    masks: tuple[Bool[Tensor, "_ H W"], ...] | None = None
    pictures: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_pictures(self.labels, self.boxes, self.masks)

    @classmethod
    def of(cls, pictures: Iterable[Mapping[str, Any]]) -> "Targets":
        """Make targets from mappings, one per picture: `labels`, `boxes`, maybe `masks`.

        Raises `TargetError` for other types or shapes.
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
        """Number of objects in every picture."""
        return [len(labels) for labels in self.labels]

    @property
    def num_boxes(self) -> int:
        """Number of objects in the batch."""
        return sum(self.counts)

    def __getitem__(self, rows: slice) -> "Targets":
        """Return the targets of some of the pictures."""
        return self._changed(
            labels=self.labels[rows],
            boxes=self.boxes[rows],
            masks=self.masks and self.masks[rows],
            pictures=self.pictures[rows],
        )

    __iter__ = None  # rows are taken as slices; a loop over integers would not give single pictures

    def to(self, *args: Any, **kwargs: Any) -> "Targets":
        """Move labels, boxes and masks; a dtype changes the boxes only."""
        boxes = tuple(box.to(*args, **kwargs) for box in self.boxes)
        device = next((box.device for box in boxes), None)
        follow = partial(Tensor.to, device=device, non_blocking=kwargs.get("non_blocking", False))
        return self._changed(boxes=boxes)._each(follow)

    def repeated(self, times: int) -> "Targets":
        """Return every object `times` times."""
        return self._each(lambda each: torch.cat([each] * times))

    def pin_memory(self) -> "Targets":
        """Copy to memory that a GPU can read in the background."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Targets":
        return self._changed(
            labels=tuple(map(change, self.labels)),
            boxes=tuple(map(change, self.boxes)),
            masks=self.masks and tuple(map(change, self.masks)),
        )

    def _changed(self, **values: Any) -> "Targets":
        # Checked already; a second check would make the host wait for the device.
        targets = object.__new__(Targets)
        vars(targets).update(vars(self) | values)
        return targets

    def check_labels(self, num_classes: int) -> None:
        """Raise `TargetError` unless every label is one of the model's classes."""
        check_labels(self.labels, num_classes)


@dataclass(frozen=True, eq=False)
class Batch:
    """Pictures of a training step, in [0, 1], and their targets.

    `padding` is True where the canvas is empty. It is None if all pictures have one size.
    """

    images: Float[Tensor, "B 3 H W"]
    targets: Targets
    padding: Bool[Tensor, "B H W"] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice) -> "Batch":
        """Return some of the pictures, with their targets and padding."""
        padding = None if self.padding is None else self.padding[rows]
        return Batch(self.images[rows], self.targets[rows], padding)

    __iter__ = None  # not a tuple: `images, targets = batch` must not unpack rows

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """Move everything to a device; pictures become channels-last, which convolutions prefer."""
        how: Any = {"device": device, "non_blocking": non_blocking}
        images = self.images.to(memory_format=torch.channels_last, **how)
        padding = None if self.padding is None else self.padding.to(**how)
        return Batch(images, self.targets.to(**how), padding)

    def pin_memory(self) -> "Batch":
        """Copy to memory that a GPU can read in the background; `DataLoader` calls it."""
        padding = None if self.padding is None else self.padding.pin_memory()
        return Batch(self.images.pin_memory(), self.targets.pin_memory(), padding)
