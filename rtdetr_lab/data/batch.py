"""# Batch: a sample, its truth, and many samples at once

A model trains on a `Sample`: a picture of the model's size with labels and boxes. Its `truth` holds
the annotation, in pixels of the stored picture, with crowd regions. Transforms change the sample
and never the truth. So evaluation measures against the truth, even if the picture was resized.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from rtdetr_lab.boxes import cxcywh_from_xyxy
from rtdetr_lab.data.workers import load, name_errors
from rtdetr_lab.errors import DataError
from rtdetr_lab.notation import Size
from rtdetr_lab.structures import Batch, Targets


@dataclass(frozen=True, eq=False)
class Truth:
    """A picture as annotated: boxes and areas in pixels of the picture as stored.

    `segmentations` are polygons or run lengths (`rle.py`), if masks were asked for.
    """

    image_id: int
    size: Size
    labels: Int[Tensor, "A"]
    boxes_xyxy: Float[Tensor, "A 4"]
    areas: Float[Tensor, "A"]
    is_crowd: Bool[Tensor, "A"]
    file_name: str = ""
    segmentations: tuple[Any, ...] | None = None


@dataclass(frozen=True, eq=False)
class Sample:
    """A picture to train on, with T labels and boxes (cxcywh in [0, 1]), without crowds."""

    image: UInt8[Tensor, "3 H W"] | Float[Tensor, "3 H W"]
    labels: Int[Tensor, "T"]
    boxes: Float[Tensor, "T 4"]
    truth: Truth
    masks: Bool[Tensor, "T H W"] | None = None

    @classmethod
    def of(cls, image: Tensor, truth: Truth, masks: Tensor | None = None) -> "Sample":
        """Make the sample that training sees: the objects of a stored picture, cut off at its
        borders. `masks` are the masks of these objects."""
        objects = ~truth.is_crowd
        boxes = cxcywh_from_xyxy(clip(truth.boxes_xyxy[objects], truth.size))
        return cls(image, truth.labels[objects], boxes / _edge(boxes, truth.size), truth, masks)

    @property
    def image_id(self) -> int:
        """The id of the picture in the annotation."""
        return self.truth.image_id

    @property
    def size(self) -> Size:
        """(height, width) of the picture as stored."""
        return self.truth.size

    @property
    def image_size(self) -> Size:
        """(height, width) of `image`, after all changes so far."""
        height, width = self.image.shape[-2:]
        return height, width

    def masks_after(self, change: Callable[[Tensor], Tensor]) -> Tensor | None:
        """Return the changed masks, or None if there are none."""
        return None if self.masks is None else change(self.masks)

    @property
    def name(self) -> str:
        """The name of the picture in errors: its file, or its id if it has no file."""
        return self.truth.file_name or f"picture {self.image_id}"


def clip(boxes_xyxy: Float[Tensor, "A 4"], size: Size) -> Float[Tensor, "A 4"]:
    """Cut boxes off at the borders of a picture of (height, width)."""
    return boxes_xyxy.clamp(min=0).minimum(_edge(boxes_xyxy, size))


def _edge(like: Tensor, size: Size) -> Float[Tensor, "4"]:
    height, width = size
    return like.new_tensor([width, height, width, height])


@runtime_checkable
class Dataset(Protocol):
    """Samples by index, and the names and ids of their labels. The equipment needs nothing else."""

    @property
    def names(self) -> Sequence[str]:
        """Class names by label."""

    @property
    def category_ids(self) -> Sequence[int]:
        """The annotation's ids by label."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


Transform = Callable[[Sample], Sample]
RandomTransform = Callable[[Sample, np.random.Generator], Sample]


@dataclass(frozen=True)
class Wrapped:
    """A data set inside another one. The meaning of its labels does not change."""

    dataset: Dataset

    @property
    def names(self) -> Sequence[str]:
        """Class names by label."""
        return self.dataset.names

    @property
    def category_ids(self) -> Sequence[int]:
        """The annotation's ids by label."""
        return self.dataset.category_ids

    def __len__(self) -> int:
        return len(self.dataset)


def innermost(data: Any) -> Any:
    """Return the data set inside all wrappers: `Mapped`, `Augmented`, or a wrapper of your own that
    keeps it as `dataset`."""
    while (inner := getattr(data, "dataset", None)) is not None:
        data = inner
    return data


@dataclass(frozen=True)
class Mapped(Wrapped):
    """A data set with a transform applied to every sample."""

    transform: Transform

    def __getitem__(self, index: int) -> Sample:
        return self.transform(self.dataset[index])


@dataclass(frozen=True)
class First(Wrapped):
    """The first pictures of a data set."""

    count: int

    def __len__(self) -> int:
        return min(self.count, len(self.dataset))

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.dataset[index]


@dataclass(frozen=True)
class Augmented(Wrapped):
    """A data set with `rounds` random versions of each sample. Version and index decide the random
    numbers.

    So an augmented picture, too, is a function of its index. It does not matter when it is loaded,
    or by which process.
    """

    transform: RandomTransform
    seed: int = 0
    rounds: int = 1000

    def __len__(self) -> int:
        return len(self.dataset) * self.rounds

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, index]))
        return self.transform(self.dataset[index % len(self.dataset)], rng)


def collate(samples: Sequence[Sample]) -> Batch:
    """Join pictures in [0, 1] and their targets. Raises `DataError` for an empty list, or if sizes
    differ."""
    check_samples(samples)
    sizes = [sample.image_size for sample in samples]
    for sample, size in zip(samples, sizes, strict=True):
        if size != sizes[0]:
            what = (
                f"is {size[0]}×{size[1]}, but the first of the batch is {sizes[0][0]}×{sizes[0][1]}"
            )
            remedy = "resize all pictures to one size (rtdetr_lab.data.transforms.Resize)"
            raise DataError(sample.name, what, remedy)
    masks = tuple(sample.masks for sample in samples if sample.masks is not None)
    targets = Targets(
        labels=tuple(sample.labels for sample in samples),
        boxes=tuple(sample.boxes for sample in samples),
        masks=masks if len(masks) == len(samples) else None,
        pictures=tuple(sample.name for sample in samples),
    )
    return Batch(stack([sample.image for sample in samples]), targets)


def check_samples(samples: Sequence[Sample]) -> None:
    """Raise `DataError` for an empty list, or if masks and their picture differ in size."""
    if not samples:
        raise DataError("batch", "holds no samples", "give at least one")
    for sample in samples:
        size = sample.image_size
        if sample.masks is not None and tuple(sample.masks.shape[1:]) != size:
            what = f"has masks of {tuple(sample.masks.shape[1:])}, but the picture is {size}"
            raise DataError(sample.name, what, "resize or crop masks together with their picture")


def stack(images: Sequence[Tensor]) -> Float[Tensor, "B 3 H W"]:
    """Stack pictures of one size: eight bits become [0, 1], floats stay."""
    if all(image.dtype == torch.uint8 for image in images):
        return torch.stack(list(images)).float().div_(255)  # copies a quarter of the bytes
    return torch.stack([as_float(image) for image in images])


def as_float(image: Tensor) -> Float[Tensor, "3 H W"]:
    """Convert eight bits to [0, 1]; floats stay."""
    return image.float() / 255 if image.dtype == torch.uint8 else image


def in_order(dataset: Dataset, batch_size: int, num_workers: int = 0) -> Iterator[list[Sample]]:
    """Yield all samples from first to last, in lists of `batch_size`, for an evaluation.

    Training has its own stream, which never ends and can start anywhere (`training.stream`).
    """
    firsts = range(0, len(dataset), batch_size)
    return load(partial(_samples, dataset, batch_size), firsts, num_workers)


def _samples(dataset: Dataset, count: int, first: int) -> list[Sample]:
    samples = []
    for index in range(first, min(first + count, len(dataset))):
        with name_errors(f"data[{index}]"):
            samples.append(dataset[index])
    return samples
