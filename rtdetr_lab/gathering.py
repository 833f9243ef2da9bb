r"""# Gathering: values of taps, also in code that becomes a graph

`torch.compile` and `torch.export` trace a forward pass. A `record` (`taps.py`) needs hooks and
paths of modules, which no tracer follows. Here there is one list:

    with gathered(["content"]) as seen:
        model(images)
    seen  # [("content.0", …), ("content.1", …)]

It has the own names of the taps in the order of the forward pass, no paths, and no edits. The
values stay in their graph.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

_open: dict[int, tuple[tuple[str, ...], list[tuple[str, Any]]]] = {}  # by thread


@contextmanager
def gathered(names: Sequence[str]) -> Iterator[list[tuple[str, Any]]]:
    """Collect (own name, value) of every tap on this thread with one of these names, in order.

    A name without its number stands for all numbers: `content` for `content.0`, `content.1` …
    """
    found: list[tuple[str, Any]] = []
    before = _open.get(_thread())
    _open[_thread()] = (tuple(names), found)
    try:
        yield found
    finally:
        del _open[_thread()]
        if before is not None:
            _open[_thread()] = before


def gather(name: str, value: Any) -> None:
    """Add a value to the list, if its name is gathered."""
    if gathers(name):
        _open[_thread()][1].append((name, value))


def gathers(name: str) -> bool:
    """Return True if this name is gathered on this thread."""
    if not _open:
        return False
    mine = _open.get(_thread())
    return mine is not None and name.partition(".")[0] in mine[0]


def _thread() -> int:
    return 0 if torch.compiler.is_compiling() else threading.get_ident()
