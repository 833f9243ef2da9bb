"""# Stream: reading ahead

Decoding a photo takes longer than detecting in it does on a GPU, and both can happen at once:
Pillow and torch let go of Python's lock while they work. One thread walks the caller's iterator (a
video reader, a folder, a camera) and keeps a few batches ready; nobody else touches it. It stops
when the consumer does.

On CUDA the pictures are copied and stretched on a stream of their own (`Aside`), so that those of
the next batch travel while the last one is computed; the computing stream waits for what it needs.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from rtdetr_lab.config import require
from rtdetr_lab.errors import ImageError
from rtdetr_lab.images.decode import Limits, Photo, photo_or_error


class Aside:
    """Makes a tensor on a CUDA stream of its own, ready for the current one; elsewhere just so."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, make: Callable[[], Tensor]) -> Tensor:
        if self.stream is None:
            return make()
        with torch.cuda.stream(self.stream):
            made = make()
        current = torch.cuda.current_stream(made.device)
        current.wait_stream(self.stream)
        made.record_stream(current)  # its memory is not given away before that one is done
        return made


def chunks_ahead(
    sources: Iterable[Any], batch: int, limits: Limits, ahead: int
) -> Iterator[list[Photo | ImageError]]:
    """Batches of decoded pictures, in order; up to `ahead` of them are read before they are asked
    for. An error of the iterator itself is raised where it happened."""
    require(ahead >= 1, "ahead", f"{ahead} batches", "read at least one ahead")
    numbered = enumerate(sources)

    def next_chunk() -> list[Photo | ImageError]:
        chunk = islice(numbered, batch)
        return [photo_or_error(i, source, limits) for i, source in chunk]

    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead")
    try:
        waiting = deque(pool.submit(next_chunk) for _ in range(ahead))
        while chunk := waiting.popleft().result():
            waiting.append(pool.submit(next_chunk))
            yield chunk
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
