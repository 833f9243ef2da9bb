"""# Workers: what happens to those who load ahead

Batches are made in other processes, and four things go wrong there:

| in a worker                    | without this file                 | with it              |
|--------------------------------|-----------------------------------|----------------------|
| an error of ours               | wrapped: its type is lost         | raised as it was     |
| any other error on one picture | a traceback that names no picture | names the picture    |
| it dies (memory, `kill -9`)    | an error in the middle of a step  | raised for the batch |
| there is no /dev/shm           | an error about a semaphore        | says what to do      |

Errors travel as values (`caught`) and are raised where a batch is asked for (`loaded`).
"""

import atexit
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from multiprocessing import active_children
from typing import Any, TypeVar

import torch

from rtdetr_lab.errors import LabError, TrainingError

T = TypeVar("T")


def caught(make: Callable[[], T], where: str) -> T | LabError:
    """What `make` returns, or its error as one of ours; `where` names the picture it is about."""
    try:
        return make()
    except LabError as error:
        return error
    except Exception as error:
        what = f"{type(error).__name__}: {error}" + _line_of(error)
        return TrainingError(where, what, "look at this picture, or at the transform that failed")


def _line_of(error: Exception) -> str:
    """Where in the code: a worker's traceback does not reach the reader."""
    place = error.__traceback__
    while place and place.tb_next:
        place = place.tb_next
    if place is None:
        return ""
    return f" ({os.path.basename(place.tb_frame.f_code.co_filename)}, line {place.tb_lineno})"


def loaded(loader: Iterable[Any]) -> Iterator[Any]:
    """What a `DataLoader` yields. Raises an error that arrives as a value, and `TrainingError` when
    a worker has died; which takes up to five seconds to notice."""
    others = set(active_children())
    batches = _ready(loader)
    workers = [p for p in active_children() if p not in others]
    # At the end of Python its processes are asked to stop and waited for; ours may not listen.
    stop = partial(_kill, workers)
    atexit.register(stop)
    death: str | None = None
    try:
        while death is None:
            batch, death = _next(batches)
            if isinstance(batch, LabError):
                raise batch
            if batch is not None:
                yield batch
            elif death is None:
                return
    finally:
        del batches  # or the traceback of an error would keep the workers alive
        atexit.unregister(stop)
    codes = [f"process {p.pid}: exit code {p.exitcode}" for p in workers if p.exitcode]
    what = f"a worker that loads pictures has died ({', '.join(codes) or death})"
    remedy = "give workers more memory (also /dev/shm), or use fewer of them; 0 loads here"
    raise TrainingError("loader", what, remedy)


def _next(batches: Iterator[Any]) -> tuple[Any, str | None]:
    """A batch, or None at the end; and what the transport complains about.

    All errors of the work itself are values.
    """
    try:
        return next(batches, None), None
    except (RuntimeError, OSError, EOFError) as error:
        return None, _first_line(error)


def _kill(workers: list[Any]) -> None:
    for worker in workers:
        worker.kill()


def _ready(loader: Any) -> Iterator[Any]:
    """The iterator, once it is sure that workers can hand over what they load: their locks, and
    the pictures, go through shared memory."""
    try:
        if getattr(loader, "num_workers", 0):
            torch.zeros(1).share_memory_()
        return _started(loader)
    except (OSError, RuntimeError) as error:
        what = f"cannot start processes that load pictures ({_first_line(error)})"
        remedy = "give them a writable /dev/shm, or load here: num_workers=0"
        raise TrainingError("loader", what, remedy) from error


def _started(loader: Iterable[Any]) -> Iterator[Any]:
    """The iterator. torch answers the death of a child with an error wherever the main process
    happens to be, which may be halfway through a step; we put the handler back and ask instead."""
    if threading.current_thread() is not threading.main_thread():
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    batches = iter(loader)
    if before is not None:
        signal.signal(signal.SIGCHLD, before)
    return batches


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
