r"""# Stream: which pictures step s sees

A run reads one endless stream: the data in a random order, then in another, and so on; step $s$
gets pictures $sB \dots (s+1)B - 1$ of it. The order follows from the seed and the position alone.
That is why the *position* is all a checkpoint keeps of the loader: nothing has to be replayed, and
neither the number of workers nor the place of a stop changes what a step sees.
"""

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from rtdetr_lab.data.batch import Dataset, collate
from rtdetr_lab.errors import DataError, LabError
from rtdetr_lab.structures import Targets


@dataclass(frozen=True)
class Batches:
    """The batches of steps `first`, `first + 1`, …, `last - 1`, as index lists."""

    length: int
    batch_size: int
    seed: int
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first

    def __iter__(self) -> Iterator[list[int]]:
        stream = self._pictures(self.first * self.batch_size)
        for _ in range(len(self)):
            yield [next(stream) for _ in range(self.batch_size)]

    def _pictures(self, position: int) -> Iterator[int]:
        round_, offset = divmod(position, self.length)
        while True:
            # Seeds of neighbouring runs must not share orders: 2^20 rounds lie between them.
            order = torch.Generator().manual_seed((self.seed << 20) + round_)
            yield from torch.randperm(self.length, generator=order)[offset:].tolist()
            round_, offset = round_ + 1, 0


def batches(
    data: Dataset, batch_size: int, seed: int, first: int, last: int, num_workers: int
) -> Iterator[tuple[Tensor, Targets]]:
    """(images, targets) of steps `first` to `last - 1`, loaded ahead by `num_workers` processes."""
    if not len(data):
        raise DataError("data", "holds no pictures", "give at least one")
    loader: Any = DataLoader(
        cast(Any, range(len(data))),
        batch_sampler=Batches(len(data), batch_size, seed, first, last),
        num_workers=num_workers,
        collate_fn=_Load(data),
        worker_init_fn=_ignore_signals if num_workers else None,
        # Its own generator: the loader must not draw from the random numbers of the run.
        generator=torch.Generator().manual_seed(seed),
        prefetch_factor=4 if num_workers else None,
    )
    for batch in loader:
        if isinstance(batch, LabError):
            raise batch
        yield batch


@dataclass(frozen=True)
class _Load:
    """Numbers to a batch, or the error on the way: raised inside a worker it would lose its type,
    so it travels as a value."""

    data: Dataset

    def __call__(self, indices: list[int]) -> tuple[Tensor, Targets] | LabError:
        try:
            return collate([self.data[index] for index in indices])
        except LabError as error:
            return error


def _ignore_signals(_: int) -> None:
    """Ctrl-C reaches every process of a terminal; only the main one shall decide what follows."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
