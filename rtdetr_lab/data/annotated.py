"""# Annotated: what annotations say, once their ids have become labels, whatever format they had

COCO's JSON, YOLO's text and VOC's XML end in the same records, so that checking, training, judging
and converting need not know where a box comes from.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from rtdetr_lab.data import findings as rules
from rtdetr_lab.data.findings import Finding, Rule
from rtdetr_lab.errors import LabError
from rtdetr_lab.notation import Size

T = TypeVar("T")

Progress = Callable[..., Iterable[Any]]
"""What a caller may put around pictures while they are read or written: a bar."""


@dataclass(frozen=True, eq=False)
class Annotated:
    """One annotation whose box has an area."""

    id: int
    label: int
    box_xywh: tuple[float, float, float, float]
    area: int | float
    is_crowd: bool
    segmentation: Any = None


@dataclass(frozen=True)
class Listed:
    """A picture as an annotation file lists it; its (height, width) may not stand there."""

    id: int
    file_name: str = ""
    size: Size | None = None


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture of the list, with its annotations.

    Its boxes and its (height, width) refer to the raster as stored, or, if `upright`, to what a
    viewer shows. `path` is known where the format lists files; COCO's `file_name` is looked up.
    """

    id: int
    file_name: str
    size: Size
    annotations: tuple[Annotated, ...]
    upright: bool = False
    path: Path | None = None

    @property
    def objects(self) -> tuple[Annotated, ...]:
        """The annotations that training sees."""
        return tuple(a for a in self.annotations if not a.is_crowd)


@dataclass(frozen=True, eq=False)
class Annotations:
    """The annotations of a split: labels are places in `names` and `category_ids`.

    `path` is what they are called by in messages, `files` are all files that they were read from.
    """

    path: Path
    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    pictures: tuple[Picture, ...]
    findings: tuple[Finding, ...] = ()
    files: tuple[Path, ...] = ()

    @property
    def most_objects(self) -> int:
        """How many objects the fullest picture has."""
        return max((len(picture.objects) for picture in self.pictures), default=0)


class Reading:
    """Collects pictures' annotations while files are read, and what is wrong with them."""

    def __init__(self, path: Path) -> None:
        self.path, self.findings, self.files = path, list[Finding](), list[Path]()
        self.kept: dict[int, list[Annotated]] = {}
        self._ids = count(1)

    def new_id(self) -> int:
        """1, 2, 3 …, for annotations that have no id."""
        return next(self._ids)

    def attempt(self, read: Callable[[Path], T], path: Path, rule: Rule) -> T | None:
        """What `read` gives for a file; None if it refuses, and why becomes a finding."""
        try:
            return read(path)
        except LabError as error:
            self.find(rule, error.what, advice=error.remedy, file=path)
            return None

    def find(
        self,
        rule: Rule,
        what: str,
        kind: str = "",
        number: Any = None,
        advice: str = "",
        file: Path | None = None,
    ) -> None:
        """Keep a finding about a file, by default about the one that is read."""
        self.findings.append(Finding(rule, str(file or self.path), what, kind, number, advice))

    def keep(self, one: Annotated, picture: int, size: Size, file: Path | None = None) -> None:
        """Keep an annotation of a picture if evaluation sees it, and say why if training does
        not."""
        rule = reason_to_drop(one.box_xywh, one.is_crowd, size)
        if rule is not None:
            what = f"has the bbox {list(one.box_xywh)} on picture {picture} of {size[1]}×{size[0]}"
            self.find(rule, what, "annotation", one.id, file=file)
        if rule in (None, rules.CROWD):
            self.kept.setdefault(picture, []).append(one)

    def annotations(self, names: Mapping[int, str], pictures: Iterable[Picture]) -> Annotations:
        """What was read; `names` are those of the category ids, in the order of labels."""
        ids, by_label, all_pictures = tuple(names), tuple(names.values()), tuple(pictures)
        findings, files = tuple(self.findings), tuple(self.files)
        return Annotations(self.path, by_label, ids, all_pictures, findings, files)


def reason_to_drop(box_xywh: tuple[float, ...], is_crowd: bool, size: Size) -> Rule | None:
    """Why training does not see a box, if it does not."""
    x, y, w, h = box_xywh
    height, width = size
    if w < 0 or h < 0:
        return rules.NEGATIVE
    if w == 0 or h == 0:
        return rules.NO_AREA
    if min(x + w, width) <= max(x, 0) or min(y + h, height) <= max(y, 0):
        return rules.OUTSIDE
    return rules.CROWD if is_crowd else None
