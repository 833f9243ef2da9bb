"""# Pictures: from words on the command line to files, and to names for the results"""

import glob
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rtdetr_lab.errors import ImageError

if TYPE_CHECKING:
    from rtdetr_lab.data.annotated import Listed

LONGEST = 200
"""Bytes of a name that we lengthen; file systems allow 255."""


def gather(words: Sequence[str], leave_out: Path | None = None) -> list[Path]:
    """Return files, the matches of globs, and the pictures in folders and below, each once.

    A file that does not exist stays in the list: reading it raises an error with its name, and the
    others are still read. Files below `leave_out` are not taken from folders and globs, because our
    own results are no input. Raises `ImageError` for a glob or folder without a picture.
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
    from rtdetr_lab.data.places import pictures_in

    below = pictures_in(folder)
    return [p for p in below if not any(part.startswith(".") for part in p.parts[-2:])]


def _instead_of_pictures(folder: Path) -> str:
    """Describe a folder without pictures: `holds no picture, but 3 .mp4, 1 .txt`."""
    files = (p for p in folder.rglob("*") if p.is_file())
    endings = Counter(p.suffix.lower() or "without ending" for p in files)
    there = ", ".join(f"{count} {ending}" for ending, count in endings.most_common(3))
    return f"holds no picture, but {there}" if there else "holds no picture"


class ResultNames:
    """Makes names for annotated pictures: `cat.png` → `cat_detected.jpg`, each name only once.

    Names that differ in case or in the form of their accents only are one name: some disks say so.
    A name longer than `LONGEST` bytes is cut.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._counts = folder, Counter[str]()

    def __call__(self, source: Path) -> Path:
        stem = os.fsencode(source.stem)[:LONGEST].decode("utf8", "ignore")
        same = unicodedata.normalize("NFC", stem).casefold()
        self._counts[same] += 1
        count = self._counts[same]
        return self.folder / f"{stem}_detected{f'-{count}' if count > 1 else ''}.jpg"


def listed(paths: Sequence[Path], annotations: Path | None) -> "list[Listed]":
    """Return COCO's id of every picture.

    It comes from an annotation file, or from the names if all are numbers (as COCO's own are), else
    it counts 1, 2, 3 … Raises `DataError` for a picture that is not in the file, or fits several
    entries.
    """
    from rtdetr_lab.data.annotated import Listed
    from rtdetr_lab.data.layout import find_pictures

    if annotations is not None:
        return find_pictures(paths, annotations)
    stems = [p.stem for p in paths]
    if all(s.isdecimal() for s in stems) and len(set(map(int, stems))) == len(stems):
        return [Listed(int(s)) for s in stems]
    return [Listed(i) for i in range(1, len(paths) + 1)]
