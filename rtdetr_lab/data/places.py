"""# Places: from a `file_name` to its picture file, and from a file to its picture

Names in an annotation file were often written on another machine. So we read a backslash as a
slash and `%20` as a space. We accept é as one character or two, and capitals may differ. If a path
begins at the root of another machine (`C:/data/images/a.png`, `https://…/a.png`), we look for its
tail here. If two files match a name, we take neither. A file with the same basename in another
folder is another picture.

A name may not lead out of the folder of the data.
"""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

from rtdetr_lab.data import findings as rules
from rtdetr_lab.data.annotated import Listed, Picture
from rtdetr_lab.data.findings import Finding
from rtdetr_lab.errors import DataError
from rtdetr_lab.images.decode import SUFFIXES

NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""Names of the three splits in data sets of others."""

ROOT = re.compile(r"([a-z][a-z0-9+.-]*:)?/", re.IGNORECASE)
"""The start of a path from a root: `/`, `//server/`, `C:/`, `file://`."""


def split_of(name: str) -> str | None:
    """Return the split that a file or folder of this name holds: `valid` and `instances_val2017`
    are `val`."""
    words = re.findall(r"[a-z]+", name.lower())
    found = [ours for ours, theirs in NAMES.items() if set(words) & set(theirs)]
    return found[0] if len(found) == 1 else None


def pictures_in(folder: Path) -> list[Path]:
    """Return the picture files in a folder and below it, sorted by name."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())


def slashed(name: str) -> str:
    """Return a path with slashes, and without `./` in front."""
    return re.sub(r"^(\./)+", "", name.replace("\\", "/"))


def plain(name: str) -> str:
    """Normalise a path: slashes, no `%20`, one form of é, no capitals."""
    return unicodedata.normalize("NFC", unquote(slashed(name))).casefold()


def tails(name: str) -> list[str]:
    """Return `a/b/c`, `b/c`, `c`."""
    parts = [part for part in name.replace("?d=", "/").split("/") if part]
    return ["/".join(parts[i:]) for i in range(len(parts))]


def inside(folder: Path, path: Path) -> Path | None:
    """Return a path without `..` if it lies in a folder, else None."""
    within = Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))
    return Path(os.path.normpath(path)) if within else None


@dataclass(frozen=True, eq=False)
class Places:
    """The place of the pictures of one annotation file: in `folder`, and never outside."""

    folder: Path
    annotations: Path

    def find(self, picture: Picture) -> Path | Finding:
        """Return the file of a picture, or a finding if it is missing or would lie outside."""
        path, name = picture.path or self.path_of(picture.file_name), slashed(picture.file_name)
        if path is not None:
            return path
        file = str(self.annotations)
        if ROOT.match(name) or ".." in name.split("/"):
            what = f"its file_name {picture.file_name!r} leaves the folder"
            return Finding(rules.LEAVES_FOLDER, file, what, "picture", picture.id)
        what = f"{picture.file_name!r} is not in {self.folder} or its images/"
        same = [str(path) for path in self._below.get(plain(name).split("/")[-1], ())]
        advice = f"write the path as it is on disk: {', '.join(same[:2])}" if same else ""
        return Finding(rules.MISSING, file, what, "picture", picture.id, advice)

    def path_of(self, file_name: str) -> Path | None:
        """Return the path of a file with this name in the folder, or None."""
        name = slashed(file_name)
        return self._exact(file_name) or self._exact(name) or self._alike(name)

    def find_all(self, pictures: Iterable[Picture]) -> Iterator[Finding]:
        """Yield findings about the places of pictures: missing ones, and two pictures with one
        file."""
        taken: dict[Path, Picture] = {}
        for picture in pictures:
            path = self.find(picture)
            if isinstance(path, Finding):
                yield path
            elif taken.setdefault(path, picture).file_name != picture.file_name:
                what = f"{picture.file_name!r} and {taken[path].file_name!r} are both {path}"
                yield Finding(rules.SAME_FILE, str(self.annotations), what, "picture", picture.id)

    @cached_property
    def _bases(self) -> tuple[Path, ...]:
        """Folders that a name may be relative to."""
        near = (self.folder, self.annotations.parent, self.annotations.parent.parent)
        inside = [base for base in near if base.is_relative_to(self.folder)]
        stem = self.annotations.stem.removeprefix("instances_")
        split = split_of(stem) or split_of(self.annotations.parent.name) or ""
        names = ("", *dict.fromkeys((stem, *NAMES.get(split, ()))))
        places = ("", "images", *(f"{p}{n}" for p in ("", "images/") for n in names[1:]))
        return tuple(dict.fromkeys(base / place for base in inside for place in places))

    def _exact(self, name: str) -> Path | None:
        if ROOT.match(slashed(name)):
            return None
        if ".." in slashed(name).split("/"):  # from the annotations' folder, if it stays inside
            climbed = inside(self.folder, self.annotations.parent / slashed(name))
            return climbed if climbed and climbed.is_file() else None
        # `isfile` is also False for a name that no file can have.
        return next((base / name for base in self._bases if os.path.isfile(base / name)), None)

    def _alike(self, name: str) -> Path | None:
        """Return the one file whose plain name matches, or None."""
        if ".." in name.split("/"):
            return None
        for tail in tails(plain(name)) if ROOT.match(name) else [plain(name)]:
            wanted = {plain(f"{base}/{tail}") for base in self._bases}
            files = self._below.get(tail.split("/")[-1], ())
            found = [path for path in files if plain(str(path)) in wanted]
            if found:
                return found[0] if len(found) == 1 else None
        return None

    @cached_property
    def _below(self) -> dict[str, list[Path]]:
        """The pictures in the folder and below it, by their plain name."""
        below = defaultdict(list)
        for path in pictures_in(self.folder):
            below[plain(path.name)].append(path)
        return below


def match_pictures(paths: Sequence[Path], listed: Sequence[Listed], places: Places) -> list[Listed]:
    """Return the listed picture of each file.

    A file matches by its location. If no listed picture lies there, it matches by a path that ends
    in the whole `file_name`. Raises `DataError` for a file that is not listed, or could be one of
    several pictures.
    """
    where = str(places.annotations)
    located: dict[str, list[Listed]] = defaultdict(list)
    named: dict[str, list[Listed]] = defaultdict(list)
    for one in listed:
        named[plain(one.file_name)].append(one)
        if (path := places.path_of(one.file_name)) is not None:
            located[os.path.realpath(path)].append(one)
    found: list[Listed] = []
    taken: dict[int, Path] = {}
    for path in paths:
        by_tail = (named[tail] for tail in tails(plain(os.path.abspath(path))) if tail in named)
        ours = located.get(os.path.realpath(path)) or next(by_tail, [])
        if len(ours) != 1:
            ids = ", ".join(str(one.id) for one in ours)
            what = f"lists {path} several times: ids {ids}" if ours else f"does not list {path}"
            raise DataError(where, what, "give the COCO JSON that lists these pictures")
        first = taken.setdefault(ours[0].id, path)
        if first != path:
            what = f"lists one picture, and both {first} and {path} match it"
            raise DataError(where, what, "write every file_name with its folder")
        found += ours
    return found
