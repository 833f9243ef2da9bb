"""# Workers: processes that load batches ahead, and their errors

Batches are made in other processes, and four things can go wrong there:

| in a worker                    | without this file                 | with it              |
|--------------------------------|-----------------------------------|----------------------|
| one of our errors              | wrapped: its type is lost         | raised unchanged     |
| any other error on one picture | a traceback that names no picture | names the picture    |
| it dies (memory, `kill -9`)    | an error in the middle of a step  | raised for the batch |
| there is no /dev/shm           | an error about a semaphore        | says what to do      |

A worker returns an error as a value (`Items`). `load` raises it when it reaches that item.
"""

import atexit
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import active_children
from typing import Any, TypeVar, cast

import torch
from torch.utils.data import DataLoader

from rtdetr_lab.errors import LabError, TrainingError, converting, first_line
from rtdetr_lab.writing import ENDING

T = TypeVar("T")

AHEAD = 4
"""The number of items that each worker makes in advance."""


@contextmanager
def name_errors(where: str) -> Iterator[None]:
    """Turn any other error into one of ours; `where` names the picture."""
    try:
        yield
    except LabError:
        raise
    except Exception as error:
        # The place in the code: the user does not see the traceback of a worker.
        place = traceback.extract_tb(error.__traceback__)[-1]
        line = f"{os.path.basename(place.filename)}, line {place.lineno}"
        what = f"{type(error).__name__}: {error} ({line})"
        remedy = "look at this picture, or at the transform that failed"
        raise TrainingError(where, what, remedy) from error


@dataclass(frozen=True)
class Items:
    """Items by index: the result of `make`, or the error that it raised."""

    make: Callable[[int], Any]

    def __getitem__(self, number: int) -> Any:
        try:
            return self.make(number)
        except LabError as error:
            return error


def load(
    make: Callable[[int], T],
    numbers: Sequence[int],
    num_workers: int = 0,
    seed: int = 0,
    pin_memory: bool = False,
) -> Iterator[T]:
    """Yield `make` of each number, in order; workers, if any, make items in advance.

    Raises the errors of `make`, and `TrainingError` if a worker has died; it takes up to five
    seconds to notice that. With `pin_memory`, items move to memory from which a GPU copies faster.
    """
    if not num_workers:
        yield from map(make, numbers)
        return
    items, workers = _start(
        DataLoader(
            cast(Any, Items(make)),
            batch_size=None,
            sampler=numbers,
            num_workers=num_workers,
            worker_init_fn=_ignore_signals,
            # A separate generator: the loader must not use the random numbers of the run.
            generator=torch.Generator().manual_seed(seed),
            prefetch_factor=AHEAD,
            pin_memory=pin_memory,
        )
    )
    stop = partial(_kill, workers)
    atexit.register(stop)  # else Python would wait at exit for workers that ignore its signal
    try:
        while (item := _next(items, workers)) is not None:
            if isinstance(item, LabError):
                raise item
            yield item
    finally:
        del items  # tells the workers to end; an error's traceback would keep it alive
        stop()  # kills a worker that was too busy to end
        atexit.unregister(stop)


def _start(loader: Any) -> tuple[Iterator[Any], list[Any]]:
    """Return the iterator of a `DataLoader`, and the processes that it started."""
    others = set(active_children())
    child_ends = getattr(signal, "SIGCHLD", None)  # Windows has none
    before = child_ends and signal.getsignal(child_ends)
    what = "cannot start processes that load pictures ({})"
    remedy = "give them a writable /dev/shm, or load in this process: num_workers=0"
    with converting((OSError, RuntimeError), TrainingError, "loader", what, remedy):
        torch.zeros(1).share_memory_()  # locks and pictures use shared memory
        items = iter(loader)
    if before is not None and threading.current_thread() is threading.main_thread():
        # When a child dies, torch raises an error wherever the main process is at that moment,
        # perhaps in the middle of a step. We restore the handler and check the workers instead.
        signal.signal(cast(Any, child_ends), before)
    return items, [p for p in active_children() if p not in others]


def _next(items: Iterator[Any], workers: list[Any]) -> Any:
    """Return an item, or None at the end. An error of the transport is returned as a value, too:
    its traceback would keep the workers alive."""
    try:
        return next(items, None)
    except (RuntimeError, OSError, EOFError) as error:
        complaint = first_line(error)
    for worker in workers:
        worker.join(1)
    codes = [f"process {p.pid}: exit code {p.exitcode}" for p in workers if p.exitcode]
    what = f"a worker that loads pictures has died ({', '.join(codes) or complaint})"
    remedy = "give workers more memory (also /dev/shm), or use fewer workers (0: none)"
    return TrainingError("loader", what, remedy)


def _kill(workers: list[Any]) -> None:
    for worker in workers:
        worker.kill()


def _ignore_signals(_: int) -> None:
    """Ignore signals to end. They may reach all processes; the main process handles them."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
