r"""# Engine: a detector that is always ready

    engine = Engine(model, size=(640, 640), batch=(1, 8), dtype=torch.bfloat16)
    found = engine("picture.png")                    # as Detector, with everything prepared
    for found in engine.stream(frames): ...          # decode, copy and compute overlap

`Detector` takes whatever comes. An engine is told what will come, and prepares for it: the model in
its deploy form, in the layout and precision it will run in, compiled or recorded if asked, run once
for every **bucket** (a batch size and a picture size) so that no call is the first. A request of
five pictures runs in the bucket of eight; a picture goes to the size whose shape it distorts least.

| step | where | static |
|---|---|---|
| decode, stretch | host threads; on CUDA the bytes are copied and stretched there (`pixels.py`) | |
| copy | into the bucket's input | yes |
| model | `backend` (`backends.py`) | weights, graphs |
| rank | on the device, no waiting (`images/postprocess.py`) | |
| cut at the threshold | host, after the one copy back | |

A bucket is used by one thread at a time, and any number of threads may call.
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
"""Pictures, and the table of what was found in them, perhaps still on its way."""
Chunk = tuple[list[Photo | ImageError], list[Pending]]


class Bucket:
    """One picture size: a runner, and an input per batch size. One thread at a time."""

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
        """The table of `images/postprocess.py`, on the device, of at most the largest batch."""
        count = len(images)
        batch = next(b for b in self.inputs if b >= count)
        with self.lock:
            given = self.inputs[batch]
            given[:count].copy_(images, non_blocking=True)
            logits, boxes = self.run(given)
            # Made anew: a replayed graph writes its next answer where this one is.
            logits, boxes = logits[:count], boxes[:count]
            return ranked_table(self.rank, logits, boxes, sizes_beside(boxes, sizes))


class Engine:
    """Pictures in, `Detections` out, as `Detector`, for sizes and batches known beforehand.

    `size` is (height, width) or several of them, by default what the model is made for; `batch` is
    the largest number of pictures at a time or several. `dtype` is what weights and maps are kept
    in. Raises `ConfigError` for what the backend or the device cannot do. The model is copied, and
    may be changed afterwards.
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
        """One picture → `Detections`; a list or tuple → a list. Raises `ImageError`."""
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
        """A batch of one of the sizes, preprocessed, to the table of `images/postprocess.py`.

        `sizes` are those of the pictures in pixels; without them corners are in those of `images`.
        """
        size = (images.shape[2], images.shape[3])
        require(size in self.buckets, "images", f"are {size}", f"the engine has {self.sizes}")
        sizes = [size] * len(images) if sizes is None else sizes
        parts = range(0, len(images), self.batches[-1])
        bucket, most = self.buckets[size], self.batches[-1]
        return torch.cat([bucket(images[i : i + most], sizes[i : i + most]) for i in parts])

    def stream(
        self, frames: Iterable[Any], threshold: float | None = None, ahead: int = 2
    ) -> Iterator[Detections | ImageError]:
        """For every frame (a path, PIL picture, array or tensor), in order, what is in it, or why
        it could not be read. A thread of its own reads up to `ahead` batches before they are
        needed; while the device computes one batch, the answers of the last are cut."""
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
        """Everything that the device can do without being waited for."""
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
        """The size whose shape is nearest to the picture's; of those alike, the nearest area."""
        height, width = rgb.shape[:2]

        def far(size: Size) -> tuple[float, float]:
            shape = abs(np.log(size[0] / size[1] * width / height))
            return round(float(shape), 6), abs(np.log(size[0] * size[1] / (height * width)))

        return min(self.sizes, key=far)


def _sizes(size: Any) -> list[Size]:
    sizes = [size] if isinstance(size[0], int) else list(size)
    return [Preprocess((height, width)).size for height, width in sizes]
