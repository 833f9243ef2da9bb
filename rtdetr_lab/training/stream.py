r"""# Stream: which pictures step s sees

A run reads one endless stream: the data in a random order, then in another, and so on; step $s$
gets pictures $sB \dots (s+1)B - 1$ of it. The order follows from the seed and the position alone.
That is why the *position* is all a checkpoint keeps of the loader: nothing has to be replayed, and
neither the number of workers nor the place of a stop changes what a step sees. Augmentation takes
its random numbers from the seed and the position, too (`data/augment.py`).
"""

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.utils.data import DataLoader

from rtdetr_lab.data.augment import Augmentation, Place
from rtdetr_lab.data.augment_detr import AspectAugmentation
from rtdetr_lab.data.batch import Dataset, Sample, collate
from rtdetr_lab.data.workers import caught, loaded
from rtdetr_lab.errors import DataError, LabError
from rtdetr_lab.training.distributed import ALONE, World

Collate = Callable[[list[Sample]], tuple[Any, ...]]


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
    data: Dataset,
    batch_size: int,
    seed: int,
    first: int,
    last: int,
    num_workers: int,
    augment: Augmentation | AspectAugmentation | None = None,
    collated: Collate = collate,
    world: World = ALONE,
) -> Iterator[Any]:
    """(images, targets) of steps `first` to `last - 1`, loaded ahead by `num_workers` processes.

    The run ends at `last`: `augment` goes by how much of it lies behind. `collated` makes a batch
    of samples, with padding as the third if it pads. Of every step a process of `world` loads its
    own share.
    """
    if not len(data):
        raise DataError("data", "holds no pictures", "give at least one")
    order = Batches(len(data), batch_size, seed, first, last)
    loader: Any = DataLoader(
        cast(Any, _Steps()),
        batch_sampler=cast(Any, _Numbered(order)),
        num_workers=num_workers,
        collate_fn=_Load(data, order, augment, collated, world),
        worker_init_fn=_ignore_signals if num_workers else None,
        # Its own generator: the loader must not draw from the random numbers of the run.
        generator=torch.Generator().manual_seed(seed),
        prefetch_factor=4 if num_workers else None,
    )
    yield from loaded(loader)


class _Steps:
    """What the loader looks up by a step and its pictures: themselves. `_Load` does the work."""

    def __getitem__(self, step: tuple[int, list[int]]) -> tuple[int, list[int]]:
        return step


@dataclass(frozen=True)
class _Numbered:
    batches: Batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[tuple[int, list[int]]]]:
        for step, indices in enumerate(self.batches, self.batches.first):
            yield [(step, indices)]


@dataclass(frozen=True)
class _Load:
    """Numbers to a batch, or the first error on the way as a value."""

    data: Dataset
    order: Batches
    augment: Augmentation | AspectAugmentation | None
    collated: Collate
    world: World

    def __call__(self, steps: list[tuple[int, list[int]]]) -> Any:
        ((step, indices),) = steps
        first = step * self.order.batch_size
        samples = []
        for position, index in self.world.share(list(enumerate(indices, first))):
            sample = self._load(index, step, position)
            if isinstance(sample, LabError):
                return sample
            samples.append(sample)
        return caught(lambda: self.collated(samples), f"step {step + 1}")

    def _load(self, index: int, step: int, position: int) -> Sample | LabError:
        sample = caught(lambda: self.data[index], f"data[{index}]")
        augment = self.augment
        if augment is None or isinstance(sample, LabError):
            return sample
        place = Place(self.order.seed, position, step, step / self.order.last)
        return caught(lambda: augment(sample, place), sample.name)


def _ignore_signals(_: int) -> None:
    """Ctrl-C reaches every process of a terminal; only the main one shall decide what follows."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
