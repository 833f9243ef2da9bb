r"""# Distributed: the same run on several processes

    torchrun --nproc-per-node 4 -m rtdetr_lab train …

`batch_size` stays the pictures of a step, and each of R processes takes every R-th of them. What
makes the sum of them equal to one process:

| what                                   | how                                                     |
|----------------------------------------|---------------------------------------------------------|
| losses are divided by all objects      | `mean_over_ranks` of their number, not one's own        |
| as many denoising groups as one makes  | `max_over_ranks` of the fullest picture                 |
| gradients are averaged                 | torch's `DistributedDataParallel`; a mean of means |
| one order of pictures, one size a step | they follow from the seed and the position alone        |
| one decision to stop                   | if any process was told to, all do                      |

Only rank 0 writes, validates and prints; the others wait for it at the next gradient. On a GPU live
batch norm is taken over all processes (`SyncBatchNorm`); on the CPU each has its own statistics,
and rank 0's are kept. Noise and dropout are drawn per rank, so a resumed run of several processes
is a good run but not the same bits; one process keeps that promise.
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
"""How long the others wait while rank 0 validates."""


@dataclass(frozen=True)
class World:
    """How many processes there are, and which one this is."""

    rank: int = 0
    size: int = 1

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes, validates and prints."""
        return self.rank == 0

    def share(self, of_step: Sequence[Item]) -> Sequence[Item]:
        """This process's part of a step's pictures."""
        return of_step[self.rank :: self.size]

    def any(self, told: bool, device: torch.device) -> bool:
        """Whether one of the processes was told to."""
        return bool(max_over_ranks(int(told), device))

    def check_step(self, step: int, device: torch.device) -> None:
        """Raise `TrainingError` if the processes would not go on from one and the same step."""
        same = max_over_ranks(step, device) == -max_over_ranks(-step, device)
        what = f"process {self.rank} found step {step} in it, another one did not"
        remedy = "put it where all machines can read it"
        require(same, "run folder", what, remedy, TrainingError)


ALONE = World()


@contextmanager
def join_processes(device: torch.device, batch_size: int) -> Iterator[World]:
    """Join the processes that `torchrun` started; without it there is one. Raises `TrainingError`
    for a step that has fewer pictures than processes."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or several():
        yield World(torch.distributed.get_rank(), size) if several() else ALONE
        return
    what, remedy = f"{batch_size} pictures a step for {size} processes", "start fewer, or raise it"
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
    """The device asked for, or the GPU of this process, or the CPU."""
    if device is not None:
        return torch.device(device)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def synchronise_norms(model: nn.Module, device: torch.device) -> nn.Module:
    """Take live batch norms over all processes, where the device can."""
    if several() and device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return model


def average_gradients(model: nn.Module) -> Any:
    """Wrap the model, so that processes average their gradients; a process alone needs nothing."""
    if not several():
        return model
    # Every parameter has a gradient in every step, also where all pictures are empty: nothing has
    # to be looked for.
    return nn.parallel.DistributedDataParallel(model)


def hold_gradients(forward: Any, last: bool) -> AbstractContextManager[Any]:
    """Keep the gradients of all but the last part of a step here: they are averaged together."""
    alone = last or not isinstance(forward, nn.parallel.DistributedDataParallel)
    return nullcontext() if alone else forward.no_sync()
