"""# Base: what all commands share"""

import os
import sys
from dataclasses import dataclass
from typing import Any

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


def one_line_of(names: tuple[str, ...], most: int = 12) -> str:
    """The first names, and how many more."""
    more = f" … and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
