"""# Base: what all commands share"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtdetr_lab.errors import LabError, OutputError

DONE, FAILED, USAGE = 0, 1, 2
"""Exit codes: done; bad input, named in one line on stderr; not a command we know."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A verb of the command line. `run` returns the exit code, or raises `LabError`."""

    debug: bool = False
    """Show where in the code an error comes from."""

    def run(self) -> int:
        """Do it."""
        raise TypeError(f"{type(self).__name__} must define run()")


def say(text: str, *, aside: bool = False) -> None:
    """One line for the reader; `aside` keeps stdout free for JSON. Does not tear a progress bar.
    Of the processes of `torchrun` only the first one speaks."""
    if os.environ.get("RANK", "0") == "0":
        _write(text, sys.stderr if aside else sys.stdout)


def _write(text: str, file: Any) -> None:
    from tqdm import tqdm

    tqdm.write(text, file=file)


def complain(error: BaseException) -> None:
    """One line on stderr, whatever the message contains."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(error))
    _write(f"rtdetr-lab: {text or type(error).__name__}", sys.stderr)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the system says against writing this result, as `OutputError`."""
    try:
        yield
    except LabError:
        raise
    except OSError as error:
        remedy = "make room, or give another place"
        what = f"cannot be written: {error.strerror or error}"
        raise OutputError(str(path), what, remedy) from error


def write_result(path: Path, text: str) -> None:
    """A text file, all or nothing: what was there stays where the disk is full."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(text, encoding="utf8")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def one_line_of(names: tuple[str, ...], most: int = 12) -> str:
    """The first names, and how many more."""
    more = f" … and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
