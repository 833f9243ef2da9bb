r"""# Stream: which pictures step s sees

A run reads one endless stream: the data in a random order, then in another, and so on; step $s$
gets pictures $sB \dots (s+1)B - 1$ of it. The order follows from the seed and the position alone.
So a step has a number and needs nothing else: `Steps.batch(s)` is a function, which any process may
compute. That is why the *step* is all a checkpoint keeps of the loader: nothing has to be replayed,
and neither the number of workers nor the place of a stop changes what a step sees. Augmentation
takes its random numbers from the seed and the position, too (`data/augment.py`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Int64
from torch import Tensor

from rtdetr_lab.config import require
from rtdetr_lab.data.augment import AspectAugmentation, Augmentation, Place
from rtdetr_lab.data.batch import Dataset, Sample, collate
from rtdetr_lab.data.workers import load, name_errors
from rtdetr_lab.errors import DataError
from rtdetr_lab.structures import Batch
from rtdetr_lab.training.distributed import ALONE, World


@dataclass(frozen=True)
class Steps:
    """The batches of a run by the number of their step, 0 to `last` - 1.

    The run ends at `last`: `augment` goes by how much of it lies behind. `collate` makes a batch of
    samples. Of every step, a process of `world` loads its own share.
    """

    data: Dataset
    batch_size: int
    seed: int
    last: int
    augment: Augmentation | AspectAugmentation | None = None
    collate: Callable[[Sequence[Sample]], Batch] = collate
    world: World = ALONE

    def __post_init__(self) -> None:
        require(len(self.data), "data", "holds no pictures", "give at least one", DataError)

    def batches(
        self, first: int = 0, num_workers: int = 0, pin_memory: bool = False
    ) -> Iterator[Batch]:
        """Yield those of steps `first` to `last` - 1, loaded ahead by `num_workers` processes."""
        return load(self.batch, range(first, self.last), num_workers, self.seed, pin_memory)

    def batch(self, step: int) -> Batch:
        """Make the batch of one step."""
        stream = list(enumerate(self.pictures(step), step * self.batch_size))
        samples = [self._sample(step, *place) for place in self.world.share(stream)]
        with name_errors(f"step {step + 1}"):
            return self.collate(samples)

    def pictures(self, step: int) -> list[int]:
        """Numbers of its pictures in the data, those of other processes included."""
        positions = range(step * self.batch_size, (step + 1) * self.batch_size)
        places = (divmod(position, len(self.data)) for position in positions)
        return [int(shuffle(len(self.data), self.seed, epoch)[place]) for epoch, place in places]

    def _sample(self, step: int, position: int, picture: int) -> Sample:
        with name_errors(f"data[{picture}]"):
            sample = self.data[picture]
        if self.augment is None:
            return sample
        with name_errors(sample.name):
            return self.augment(sample, Place(self.seed, position, step, step / self.last))


@lru_cache(maxsize=2)  # a batch may begin in one epoch and end in the next
def shuffle(length: int, seed: int, epoch: int) -> Int64[Tensor, "_"]:
    """The numbers 0 to `length` - 1 as they come in one epoch."""
    # Seeds of neighbouring runs must not share orders: 2^20 epochs lie between them.
    generator = torch.Generator().manual_seed((seed << 20) + epoch)
    return torch.randperm(length, generator=generator)
