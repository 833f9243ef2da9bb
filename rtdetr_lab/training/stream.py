r"""# Stream: which pictures step s sees

A run reads one endless stream: the data in a random order, then in another random order, and so on.
Step $s$ gets pictures $sB \dots (s+1)B - 1$ of the stream. The order depends only on the seed and
the position. So the number of a step is enough: `Steps.batch(s)` is a function that any process can
compute. That is why a checkpoint stores only the *step* of the loader. Nothing has to be replayed.
The number of workers and the place of a stop do not change what a step sees. The random numbers of
the augmentation depend only on the seed and the position, too (`data/augment.py`).
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

    The run ends at `last`: `augment` depends on the part of the run that is done. `collate` makes a
    batch of samples. Each process of `world` loads only its share of a step.
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
        """Yield the batches of steps `first` to `last` - 1, loaded ahead by `num_workers`
        processes."""
        return load(self.batch, range(first, self.last), num_workers, self.seed, pin_memory)

    def batch(self, step: int) -> Batch:
        """Make the batch of one step."""
        stream = list(enumerate(self.pictures(step), step * self.batch_size))
        samples = [self._sample(step, *place) for place in self.world.share(stream)]
        with name_errors(f"step {step + 1}"):
            return self.collate(samples)

    def pictures(self, step: int) -> list[int]:
        """Return the indices in the data of a step's pictures, for all processes."""
        positions = range(step * self.batch_size, (step + 1) * self.batch_size)
        places = (divmod(position, len(self.data)) for position in positions)
        return [int(shuffle(len(self.data), self.seed, epoch)[place]) for epoch, place in places]

    def _sample(self, step: int, position: int, picture: int) -> Sample:
        with name_errors(f"data[{picture}]"):
            sample = self.data[picture]
        if self.augment is None:
            return sample
        place = Place(self.seed, position, step, step / self.last, self.data)
        with name_errors(sample.name):
            return self.augment(sample, place)


@lru_cache(maxsize=2)  # a batch may begin in one epoch and end in the next
def shuffle(length: int, seed: int, epoch: int) -> Int64[Tensor, "_"]:
    """Return the numbers 0 to `length` - 1 in the order of one epoch."""
    # Runs with neighbouring seeds must not share an order: 2^20 epochs lie between them.
    generator = torch.Generator().manual_seed((seed << 20) + epoch)
    return torch.randperm(length, generator=generator)
