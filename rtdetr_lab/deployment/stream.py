"""# Stream: reading ahead

On a GPU, decoding a photo takes longer than detecting in it. Both can run at once, because Pillow
and torch release Python's lock while they work. One thread walks over the caller's iterator (a
video reader, a folder, a camera) and keeps a few batches ready; no other thread touches it. It
stops when the consumer stops.

On CUDA, the pictures are copied and stretched on a separate stream (`Aside`), so that the next
batch is copied while the current one is computed. The computing stream waits for its inputs.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor

from rtdetr_lab.config import require
from rtdetr_lab.errors import ImageError
from rtdetr_lab.images.decode import Limits, Photo, photo_or_error

Item = TypeVar("Item")


class Aside:
    """Makes a tensor on a separate CUDA stream, ready for the current one; elsewhere directly."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, make: Callable[[], Tensor]) -> Tensor:
        if self.stream is None:
            return make()
        with torch.cuda.stream(self.stream):
            made = make()
        current = torch.cuda.current_stream(made.device)
        current.wait_stream(self.stream)
        made.record_stream(current)  # keeps its memory until that stream has used it
        return made


def chunks_ahead(
    sources: Iterable[Any], batch: int, limits: Limits, count: int
) -> Iterator[list[Photo | ImageError]]:
    """Yield batches of decoded pictures, in order, and read up to `count` of them in advance.

    An error of the iterator itself is raised at its place in the order.
    """
    numbered = enumerate(sources)

    def chunks() -> Iterator[list[Photo | ImageError]]:
        while chunk := [photo_or_error(i, s, limits) for i, s in islice(numbered, batch)]:
            yield chunk

    return ahead(chunks(), count)


def ahead(items: Iterable[Item], count: int) -> Iterator[Item]:
    """Yield the items in order; one thread takes up to `count` of them in advance.

    An error of the iterator is raised at its place.
    """
    require(count >= 1, "ahead", f"{count} batches", "read at least one batch ahead")
    return _ahead(iter(items), count)


def _ahead(items: Iterator[Item], count: int) -> Iterator[Item]:
    def taken() -> list[Item]:
        return list(islice(items, 1))

    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead")
    try:
        waiting = deque(pool.submit(taken) for _ in range(count))
        while item := waiting.popleft().result():
            waiting.append(pool.submit(taken))
            yield item[0]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
