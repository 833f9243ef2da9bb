r"""# Errors: what was wrong, where, and what to do

Everything that comes from outside (a file, a hub, a config, a batch of boxes) can be wrong. It is
then refused with one of these, never with a bare shape error from inside torch. Each message has
three parts, kept as attributes so that a test, or the command line, can read them one by one:

| part     | answers                              | example                                   |
|----------|--------------------------------------|-------------------------------------------|
| `where`  | which file, key, id or index         | `model.safetensors[decoder.layers.0.w]`   |
| `what`   | what was found there                 | `has shape (4, 2), the model needs (4, 3)` |
| `remedy` | what the reader can do about it      | `pass num_classes=2`                      |
"""

from importlib import import_module
from typing import Any


class LabError(Exception):
    """Base of every error this package raises about what it was given."""

    def __init__(self, where: str, what: str, remedy: str) -> None:
        self.where, self.what, self.remedy = str(where), str(what), str(remedy)
        super().__init__(where, what, remedy)  # all three, so that it survives pickling

    def __str__(self) -> str:
        return f"{self.where}: {self.what.rstrip('.')}; {self.remedy.rstrip('.')}"


class ConfigError(LabError, ValueError):
    """A configuration with an unknown key, or a value no model can be built from."""


class CheckpointError(LabError, ValueError):
    """Weights that are missing, left over, of another shape, not finite, damaged or foreign."""


class HubError(LabError, OSError):
    """A repository, revision or file that the hub, or the local cache, does not have."""


class UnknownModelError(LabError, KeyError):
    """A model name nobody knows; the remedy lists the nearest ones."""

    __str__ = LabError.__str__  # KeyError would print the repr of a tuple


class ImageError(LabError, ValueError):
    """A picture that cannot be read, or that we refuse to guess about."""


class DataError(LabError, ValueError):
    """Annotations or a data set that cannot be trained or evaluated on as they are."""


class TargetError(LabError, ValueError):
    """A batch of labels and boxes that contradicts itself or the model."""


class RecordError(LabError, RuntimeError):
    """A `record(...)` that would have seen nothing, or nothing true."""


class MissingExtraError(LabError, ImportError):
    """An optional dependency is needed; the remedy names the extra that brings it."""


def import_extra(library: str, extra: str) -> Any:
    """A library that one of our extras brings; raises `MissingExtraError` where it is absent."""
    try:
        return import_module(library)
    except ImportError as error:
        remedy = f"pip install 'rtdetr_lab[{extra}]'"
        raise MissingExtraError(library, "is not installed", remedy) from error


class OutputError(LabError, OSError):
    """A result that cannot be written: no room, no permission, or no such place."""


class TrainingError(LabError, RuntimeError):
    """A training run that cannot start, go on, or be resumed without giving a wrong answer."""
