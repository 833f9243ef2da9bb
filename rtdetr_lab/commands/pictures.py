"""# Pictures: from what stands on the command line to files, and back to names for the results"""

import glob
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rtdetr_lab.errors import DataError, ImageError

if TYPE_CHECKING:
    from rtdetr_lab.notation import Size


def gather(words: Sequence[str], leave_out: Path | None = None) -> list[Path]:
    """Files as they are, the matches of globs, the pictures in folders and below; each once.

    A file that does not exist stays in the list: reading it will name it, and the others are done.
    What lies below `leave_out` is not taken from folders and globs: our own results are no input.
    Raises `ImageError` for a glob or folder in which there is no picture.
    """
    found: dict[Path, None] = {}
    for word in words:
        path = Path(word).expanduser()
        if path.is_dir():
            paths = _pictures_below(path)
        elif not path.exists() and glob.has_magic(word):
            matches = (Path(p) for p in sorted(glob.glob(str(path), recursive=True)))
            paths = [p for p in matches if p.is_file()]
        else:
            found.setdefault(path)
            continue
        if leave_out is not None:
            paths = [p for p in paths if not p.resolve().is_relative_to(leave_out.resolve())]
        if not paths:
            what = _instead_of_pictures(path) if path.is_dir() else "matches no file"
            raise ImageError(word, what, "give files, a glob in quotes, or a folder of pictures")
        found.update(dict.fromkeys(paths))
    return list(found)


def _pictures_below(folder: Path) -> list[Path]:
    from rtdetr_lab.images.decode import SUFFIXES

    below = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    return [p for p in below if not any(part.startswith(".") for part in p.parts[-2:])]


def _instead_of_pictures(folder: Path) -> str:
    """`holds no picture, but 3 .mp4, 1 .txt`."""
    endings = Counter(
        p.suffix.lower() or "without ending" for p in folder.rglob("*") if p.is_file()
    )
    there = ", ".join(f"{count} {ending}" for ending, count in endings.most_common(3))
    return f"holds no picture, but {there}" if there else "holds no picture"


class ResultNames:
    """Names for annotated pictures: `cat.png` → `cat_detected.jpg`, never the same one twice."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._taken = folder, set[str]()

    def __call__(self, source: Path) -> Path:
        name, count = f"{source.stem}_detected", 1
        while name in self._taken:
            count += 1
            name = f"{source.stem}_detected-{count}"
        self._taken.add(name)
        return self.folder / f"{name}.jpg"


@dataclass(frozen=True)
class Listed:
    """A picture as results call it: COCO's id, and the (height, width) its annotations give."""

    id: int
    size: "Size | None" = None


def listed(paths: Sequence[Path], annotations: Path | None) -> list[Listed]:
    """COCO's id of every picture: from an annotation file, from names that are numbers (as COCO's
    own are), else 1, 2, 3 … Raises `DataError` for a picture that is not listed, or not clearly."""
    stems = [p.stem for p in paths]
    if annotations is not None:
        return _looked_up(paths, annotations)
    if all(s.isdecimal() for s in stems) and len(set(map(int, stems))) == len(stems):
        return [Listed(int(s)) for s in stems]
    return [Listed(i) for i in range(1, len(paths) + 1)]


def _looked_up(paths: Sequence[Path], annotations: Path) -> list[Listed]:
    """By the whole of `file_name`, which is how the path of a picture ends: two cameras may both
    have a 0001.png."""
    where, remedy = str(annotations), "give the COCO JSON that lists these pictures"
    by_name, taken = _by_name(annotations), dict[int, Path]()
    found = []
    for path in paths:
        parts = Path(os.path.abspath(path)).parts
        ends = ("/".join(parts[i:]) for i in range(1, len(parts)))
        ours = next((by_name[end] for end in ends if end in by_name), [])
        if len(ours) != 1:
            numbers = ", ".join(str(one.id) for one in ours)
            what = f"lists {path} several times: ids {numbers}" if ours else f"does not list {path}"
            raise DataError(where, what, remedy)
        first = taken.setdefault(ours[0].id, path)
        if first != path:
            what = f"lists one picture, and {first} and {path} could both be it"
            raise DataError(where, what, "write every file_name with its folder")
        found += ours
    return found


def _by_name(annotations: Path) -> dict[str, list[Listed]]:
    by_name: dict[str, list[Listed]] = {}
    try:
        for image in json.loads(annotations.read_text(encoding="utf-8-sig"))["images"]:
            size = (int(image["height"]), int(image["width"])) if "width" in image else None
            name = str(image["file_name"]).replace("\\", "/").removeprefix("./")
            by_name.setdefault(name, []).append(Listed(int(image["id"]), size))
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"is no COCO annotation file ({type(error).__name__}: {error})"
        remedy = "give the COCO JSON that lists these pictures"
        raise DataError(str(annotations), what, remedy) from error
    return by_name
