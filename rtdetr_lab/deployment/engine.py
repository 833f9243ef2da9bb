"""# Engine: a detector that is always ready

    engine = Engine(model, size=(640, 640), batch=(1, 8), dtype=torch.bfloat16)
    found = engine("picture.png")                    # like Detector, with everything prepared
    for found in engine.stream(frames): ...          # decode, copy and compute overlap

`Detector` accepts any size and batch. An engine is built for sizes and batches that are known in
advance. It brings the model into its deploy form, and into the layout and precision that it will
run in. It compiles or records the model if you ask for it. Then it runs the model once for
every **bucket** (a batch size and a picture size), so that no call is the first. Five pictures run
in the bucket of eight. A picture goes to the size that distorts its shape least.

| step | where | static |
|---|---|---|
| decode, stretch | host threads; on CUDA the bytes are copied and stretched there (`pixels.py`) | |
| copy | into the bucket's input | yes |
| model | `backend` (`backends.py`) | weights, graphs |
| rank | on the device, without waiting (`images/postprocess.py`) | |
| cut at the threshold | host, after the one copy back | |

Any number of threads may call an engine. Each bucket serves one thread at a time. An engine finds
boxes; masks are drawn by `Detector`, and are in exported files.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any, overload

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from rtdetr_lab.config import require
from rtdetr_lab.deployment.backends import Backend, Plan, PyTorch
from rtdetr_lab.deployment.pixels import stretch
from rtdetr_lab.deployment.stream import Aside, chunks_ahead
from rtdetr_lab.detections import Detections, classes_of
from rtdetr_lab.errors import ImageError
from rtdetr_lab.images.arrays import RGB
from rtdetr_lab.images.decode import DEFAULT_LIMITS, Limits, Photo, photo_or_error
from rtdetr_lab.images.postprocess import found_in, ranked_table, sizes_beside
from rtdetr_lab.images.preprocess import Preprocess
from rtdetr_lab.model import declared
from rtdetr_lab.notation import Size

Pending = tuple[list[Photo], Tensor]
"""Pictures, and the table of their detections, which the device may still be computing."""
Chunk = tuple[list[Photo | ImageError], list[Pending]]


class Bucket:
    """Picture size with its model, and an input buffer per batch size. One thread at a time."""

    def __init__(self, model: nn.Module, plan: Plan, backend: Backend) -> None:
        self.plan, self.rank = plan, declared(model).rank
        self.lock = threading.Lock()
        self.run = backend.build(model, plan)
        self.inputs = {batch: plan.example(batch) for batch in sorted(plan.batches)}
        for batch in plan.batches:
            self(self.inputs[batch][:batch].clone(), [plan.size] * batch)

    @torch.inference_mode()
    def __call__(
        self, images: Float[Tensor, "B 3 H W"], sizes: Sequence[Size]
    ) -> Float[Tensor, "B Q 7"]:
        """Return the table of `images/postprocess.py`, on the device; at most the largest batch."""
        count = len(images)
        batch = next(b for b in self.inputs if b >= count)
        with self.lock:
            given = self.inputs[batch]
            given[:count].copy_(images, non_blocking=True)
            logits, boxes = self.run(given)
            # The table is a new tensor, because the next replay of a graph overwrites the outputs.
            logits, boxes = logits[:count], boxes[:count]
            return ranked_table(self.rank, logits, boxes, sizes_beside(boxes, sizes))


class Engine:
    """Detect objects like `Detector`, for sizes and batches that are known in advance.

    `size` is (height, width) or several of them; the default is the size that the model is made
    for. `batch` is the largest number of pictures at a time, or several numbers. `dtype` is the
    precision of weights and maps. The model is copied, so you may change it afterwards. Raises
    `ConfigError` for what the backend or the device cannot do.
    """

    def __init__(
        self,
        model: nn.Module,
        size: Size | Sequence[Size] | None = None,
        batch: int | Sequence[int] = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        *,
        backend: Backend | None = None,
        names: Iterable[str] | None = None,
        threshold: float = 0.5,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.aside = Aside(self.device)
        self.batches = sorted({batch} if isinstance(batch, int) else set(batch))
        self.sizes = _sizes(size or declared(model).metadata.fixed_size)
        require(min(self.batches) >= 1, "batch", f"{batch} pictures", "take at least one")
        self.threshold, self.limits = threshold, limits
        self.classes = classes_of(model, names)
        self.buckets = {
            one: Bucket(model, Plan(one, self.batches, dtype, self.device), backend or PyTorch())
            for one in self.sizes
        }

    @overload
    def __call__(self, pictures: list[Any], threshold: float | None = None) -> list[Detections]: ...

    @overload
    def __call__(self, pictures: Any, threshold: float | None = None) -> Detections: ...

    def __call__(
        self, pictures: Any, threshold: float | None = None
    ) -> Detections | list[Detections]:
        """Detect in one picture, or in a list or tuple of pictures. Raises `ImageError`."""
        many = isinstance(pictures, list | tuple)
        given = pictures if many else [pictures]
        photos = [photo_or_error(i, source, self.limits) for i, source in enumerate(given)]
        for photo in photos:
            if isinstance(photo, ImageError):
                raise photo
        found = list(self._finished(self._started(photos), threshold))
        return found if many else found[0]

    def answer(
        self, images: Float[Tensor, "B 3 H W"], sizes: Sequence[Size] | None = None
    ) -> Float[Tensor, "B Q 7"]:
        """Predict the table of `images/postprocess.py` for a preprocessed batch of one size.

        `sizes` are the sizes of the pictures in pixels; without them, corners are in pixels of
        `images`.
        """
        size = (images.shape[2], images.shape[3])
        remedy = f"resize: the engine has {self.sizes}"
        require(size in self.buckets, "images", f"are {size}", remedy)
        sizes = [size] * len(images) if sizes is None else sizes
        parts = range(0, len(images), self.batches[-1])
        bucket, most = self.buckets[size], self.batches[-1]
        return torch.cat([bucket(images[i : i + most], sizes[i : i + most]) for i in parts])

    def stream(
        self, frames: Iterable[Any], threshold: float | None = None, ahead: int = 2
    ) -> Iterator[Detections | ImageError]:
        """Yield the detections of every frame, in order, or the error that prevented reading it.

        A frame is a path, PIL picture, array or tensor. A separate thread reads up to `ahead`
        batches in advance. While the device computes one batch, the host finishes the one before.
        """
        before: Chunk | None = None
        for chunk in chunks_ahead(frames, self.batches[-1], self.limits, ahead):
            now = (chunk, self._started(chunk))
            if before is not None:
                yield from self._in_order(before, threshold)
            before = now
        if before is not None:
            yield from self._in_order(before, threshold)

    def _in_order(self, chunk: Chunk, threshold: float | None) -> Iterator[Detections | ImageError]:
        photos, started = chunk
        found = self._finished(started, threshold)
        for photo in photos:
            yield photo if isinstance(photo, ImageError) else next(found)

    def _started(self, photos: Sequence[Photo | ImageError]) -> list[Pending]:
        """Start everything that the device can do without a wait."""
        readable = [photo for photo in photos if isinstance(photo, Photo)]
        started = []
        for size, run in groupby(readable, key=lambda photo: self.bucket_of(photo.rgb)):
            same = list(run)
            for first in range(0, len(same), self.batches[-1]):
                part = same[first : first + self.batches[-1]]
                images = self.aside(partial(self._batch, part, size))
                sizes = [photo.frame.upright for photo in part]
                started.append((part, self.buckets[size](images, sizes)))
        return started

    def _finished(self, started: list[Pending], threshold: float | None) -> Iterator[Detections]:
        threshold = self.threshold if threshold is None else threshold
        for part, rows in started:
            for photo, found in zip(part, found_in(rows.cpu(), threshold), strict=True):
                yield Detections.of(found, photo, self.classes)

    def _batch(self, part: list[Photo], size: Size) -> Tensor:
        return torch.stack([self._pixels(photo.rgb, size) for photo in part])

    def _pixels(self, rgb: RGB, size: Size) -> Float[Tensor, "3 h w"]:
        if self.device.type == "cpu":
            return Preprocess(size)(rgb)
        writable = torch.from_numpy(np.ascontiguousarray(rgb)).pin_memory()
        return stretch(writable.to(self.device, non_blocking=True), size)

    def bucket_of(self, rgb: RGB) -> Size:
        """Return the size with the nearest shape; ties go to the nearest area."""
        height, width = rgb.shape[:2]

        def far(size: Size) -> tuple[float, float]:
            shape = abs(np.log(size[0] / size[1] * width / height))
            return round(float(shape), 6), abs(np.log(size[0] * size[1] / (height * width)))

        return min(self.sizes, key=far)


def _sizes(size: Any) -> list[Size]:
    sizes = [size] if isinstance(size[0], int) else list(size)
    return [Preprocess((height, width)).size for height, width in sizes]
