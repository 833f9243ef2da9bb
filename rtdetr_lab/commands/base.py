"""# Base: what all commands share"""

import os
import sys
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from rtdetr_lab.errors import ConfigError

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


NANO = tyro.conf.arg(help_behavior_hint="(default: nano)")


@dataclass(frozen=True, kw_only=True)
class ModelCommand(Command):
    """A verb about one model: its first word or, as other verbs have it, `--model`."""

    model: Annotated[str | None, tyro.conf.Positional, NANO] = None
    """A short name, a hub id, a folder (also that of a training run) or a weights file."""
    model_option: Annotated[str | None, tyro.conf.arg(name="model"), NANO] = None
    """The same."""

    @property
    def name(self) -> str:
        """The model that was named in either way; nano if in none."""
        if self.model and self.model_option and self.model != self.model_option:
            what = f"is {self.model_option}, and {self.model} is named, too"
            raise ConfigError("--model", what, "give one of them")
        return self.model or self.model_option or "nano"


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
