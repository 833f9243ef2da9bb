r"""# Errors: what was wrong, where, and what to do

Input from outside (a file, a hub, a config, a batch of boxes) can be wrong. The package then raises
one of these errors, never a bare shape error from inside torch. Each message has three parts. They
are also attributes, so that a test or the command line can read them one by one:

| part     | content                              | example                                   |
|----------|--------------------------------------|-------------------------------------------|
| `where`  | the file, key, id or index           | `model.safetensors[decoder.layers.0.w]`   |
| `what`   | what was found there                 | `has shape (4, 2), the model needs (4, 3)` |
| `remedy` | what the reader can do about it      | `pass num_classes=2`                      |
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any


class LabError(Exception):
    """Base of all errors of this package; they are about its input."""

    def __init__(self, where: str, what: str, remedy: str) -> None:
        self.where, self.what, self.remedy = str(where), str(what), str(remedy)
        super().__init__(where, what, remedy)  # all three, so that pickling works

    def __str__(self) -> str:
        return f"{self.where}: {self.what.rstrip('.')}; {self.remedy.rstrip('.')}"


class ConfigError(LabError, ValueError):
    """A configuration has an unknown key, or a value that cannot be built."""


class CheckpointError(LabError, ValueError):
    """Weights are missing, left over, of another shape, not finite, damaged or of another model."""


class HubError(LabError, OSError):
    """The hub, or the local cache, does not have a repository, revision or file."""


class UnknownModelError(LabError, KeyError):
    """A model name is unknown; the remedy lists the nearest names."""

    __str__ = LabError.__str__  # KeyError would print the repr of a tuple


class ImageError(LabError, ValueError):
    """A picture cannot be read, or is ambiguous."""


class DataError(LabError, ValueError):
    """Annotations or a data set cannot be used for training or evaluation."""


class TargetError(LabError, ValueError):
    """The labels and boxes of a batch contradict each other, or the model."""


class RecordError(LabError, RuntimeError):
    """A `record(...)` has recorded nothing, or would record wrong values."""


@contextmanager
def converting(
    kinds: type[Exception] | tuple[type[Exception], ...],
    error: type[LabError],
    where: object,
    what: str,
    remedy: str,
) -> Iterator[None]:
    """Convert errors that other libraries raise in the block to `error(where, what, remedy)`.

    `{}` in `what` becomes the first line of their message. Errors of this package stay.
    """
    try:
        yield
    except LabError:
        raise
    except kinds as problem:
        raise error(str(where), what.replace("{}", first_line(problem)), remedy) from problem


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message: the reason of a system error, else its words,
    else its type."""
    said = str(getattr(error, "strerror", None) or error).strip()
    if not said or isinstance(error, KeyError):  # that one says only its key
        said = f"{type(error).__name__}: {said}".removesuffix(": ")
    return said.splitlines()[0].rstrip(". ")


class MissingExtraError(LabError, ImportError):
    """An optional dependency is missing; the remedy names the extra that installs it."""


def import_extra(library: str, extra: str) -> Any:
    """Import a library of one of our extras; raise `MissingExtraError` if it is not installed."""
    return import_optional(library, f"'rtdetr_lab[{extra}]'")


def import_optional(library: str, install: str) -> Any:
    """Import a library; raise `MissingExtraError` with what to `pip install` if it is missing."""
    what, remedy = "is not installed", f"pip install {install}"
    with converting(ImportError, MissingExtraError, library, what, remedy):
        return import_module(library)


class OutputError(LabError, OSError):
    """A result cannot be written: no space, no permission, or no such folder."""


class TrainingError(LabError, RuntimeError):
    """A training run cannot start, continue or resume without wrong results."""
