"""# Labelled: a picture and its objects, on the way from one format to another"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rtdetr_lab.errors import DataError
from rtdetr_lab.images.decode import SUFFIXES
from rtdetr_lab.notation import Size


@dataclass(frozen=True, eq=False)
class Box:
    """One object: a label, corners in pixels, and polygons (flat x, y lists) if there are any."""

    label: int
    xyxy: tuple[float, float, float, float]
    polygons: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, eq=False)
class Labelled:
    """One picture with its boxes; `upright` if they refer to it as a viewer shows it."""

    path: Path
    size: Size
    boxes: tuple[Box, ...]
    upright: bool


@dataclass(frozen=True, eq=False)
class Source:
    """A data set in another format: class names, and per split its pictures, read when needed."""

    names: tuple[str, ...]
    splits: Mapping[str, Sequence[Path]]
    read: Callable[[Path], Labelled]


def pictures_in(folder: Path) -> list[Path]:
    """The picture files in a folder and below, in the order of their names."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())


def lines_of(path: Path) -> list[str]:
    """The lines of a text file; raises `DataError` for one that is not UTF-8, or cannot be read."""
    try:
        return path.read_text(encoding="utf8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(str(path), f"is no text ({error})", "write it again, as UTF-8") from error
