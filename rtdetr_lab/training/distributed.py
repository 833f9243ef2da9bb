r"""# Distributed: one run on several processes

    torchrun --nproc-per-node 4 -m rtdetr_lab train …

`batch_size` is still the number of pictures in a step, and each of R processes takes every R-th of
them. Together they do the step that one process would do:

| what                                   | how                                                     |
|----------------------------------------|---------------------------------------------------------|
| losses are divided by all objects      | `mean_over_ranks` of their number                       |
| as many denoising groups as one process makes | `max_over_ranks` of the fullest picture          |
| gradients are averaged                 | torch's `DistributedDataParallel`; a mean of means      |
| same order of pictures, one size a step | both follow from the seed and the position alone       |
| one decision to stop                   | if one process has to stop, all stop                    |

Only rank 0 writes, validates and prints; the others wait for it at the next gradient. On a GPU,
batch norm in training mode uses the pictures of all processes (`SyncBatchNorm`). On the CPU each
process has its own statistics, and rank 0's are saved. Each rank draws its own noise and dropout.
So a resumed run of several processes is correct but not bit for bit the same. With one process it
is.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import nn

from rtdetr_lab.config import require
from rtdetr_lab.errors import TrainingError
from rtdetr_lab.structures.ranks import max_over_ranks, several

Item = TypeVar("Item")

PATIENCE = timedelta(hours=2)
"""The longest time that the other processes wait while rank 0 validates."""


@dataclass(frozen=True)
class World:
    """The number of processes, and the rank of this one."""

    rank: int = 0
    size: int = 1

    @property
    def writes(self) -> bool:
        """Return True for the process that writes, validates and prints."""
        return self.rank == 0

    def share(self, of_step: Sequence[Item]) -> Sequence[Item]:
        """Return this process's part of the pictures of a step."""
        return of_step[self.rank :: self.size]

    def any(self, told: bool, device: torch.device) -> bool:
        """Return True if `told` is True in at least one process."""
        return bool(max_over_ranks(int(told), device))

    def check_step(self, step: int, device: torch.device) -> None:
        """Raise `TrainingError` if the processes would not resume from the same step."""
        same = max_over_ranks(step, device) == -max_over_ranks(-step, device)
        what = f"process {self.rank} found step {step} in it, another process found another step"
        remedy = "put the folder where all machines can read it"
        require(same, "run folder", what, remedy, TrainingError)


ALONE = World()


@contextmanager
def join_processes(device: torch.device, batch_size: int) -> Iterator[World]:
    """Join the processes that `torchrun` started; without `torchrun` there is one.

    Raises `TrainingError` for a step that has fewer pictures than processes.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or several():
        yield World(torch.distributed.get_rank(), size) if several() else ALONE
        return
    what = f"{batch_size} pictures a step for {size} processes"
    remedy = "start fewer processes, or raise batch_size"
    require(batch_size >= size, "batch_size", what, remedy, TrainingError)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        yield World(torch.distributed.get_rank(), size)
    finally:
        torch.distributed.destroy_process_group()


def choose_device(device: str | torch.device | None) -> torch.device:
    """Return the given device, or the GPU of this process, or the CPU."""
    if device is not None:
        return torch.device(device)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def synchronise_norms(model: nn.Module, device: torch.device) -> nn.Module:
    """Make batch norm in training mode use the pictures of all processes, if the device can."""
    if several() and device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return model


def average_gradients(model: nn.Module) -> Any:
    """Wrap the model so that the processes average their gradients. A single process needs no
    wrapper."""
    if not several():
        return model
    # Every parameter gets a gradient in every step, even if all pictures are empty. So torch need
    # not search for unused parameters.
    return nn.parallel.DistributedDataParallel(model)


def hold_gradients(forward: Any, last: bool) -> AbstractContextManager[Any]:
    """Keep the gradients of all parts of a step but the last in this process: they are averaged
    together."""
    alone = last or not isinstance(forward, nn.parallel.DistributedDataParallel)
    return nullcontext() if alone else forward.no_sync()
