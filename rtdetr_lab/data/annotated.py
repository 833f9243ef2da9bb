"""# Annotated: annotations of any format as the same records, with labels instead of ids

COCO's JSON, YOLO's text and VOC's XML become the same records. So the code that checks, trains,
evaluates or converts does not depend on the format of a box.
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
"""A wrapper around the pictures while we read or write them, such as a progress bar."""


@dataclass(frozen=True, eq=False)
class Annotated:
    """An annotation whose box has an area."""

    id: int
    label: int
    box_xywh: tuple[float, float, float, float]
    area: int | float
    is_crowd: bool
    segmentation: Any = None


@dataclass(frozen=True)
class Listed:
    """A picture as an annotation file lists it. Its (height, width) may be missing there."""

    id: int
    file_name: str = ""
    size: Size | None = None


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture of the list, with its annotations.

    Its boxes and its (height, width) refer to the raster as stored. If `upright`, they refer to the
    picture as a viewer shows it. `path` is set if the format lists files; the `file_name` of COCO
    has to be looked up.
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
    """The annotations of a split. Labels are indices into `names` and `category_ids`.

    `path` names the annotations in messages; `files` are all files that they were read from.
    """

    path: Path
    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    pictures: tuple[Picture, ...]
    findings: tuple[Finding, ...] = ()
    files: tuple[Path, ...] = ()

    @property
    def most_objects(self) -> int:
        """Return the largest number of objects in one picture."""
        return max((len(picture.objects) for picture in self.pictures), default=0)


class Reading:
    """Collects the annotations of pictures while files are read, and the findings about them."""

    def __init__(self, path: Path) -> None:
        self.path, self.findings, self.files = path, list[Finding](), list[Path]()
        self.kept: dict[int, list[Annotated]] = {}
        self._ids = count(1)

    def new_id(self) -> int:
        """Return 1, 2, 3 …, for annotations that have no id."""
        return next(self._ids)

    def attempt(self, read: Callable[[Path], T], path: Path, rule: Rule) -> T | None:
        """Return `read(path)`. A `LabError` becomes a finding, and the result is None."""
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
        picture: int | None = None,
    ) -> None:
        """Keep a finding about a file; the default is the file that is being read."""
        where = str(file or self.path)
        self.findings.append(Finding(rule, where, what, kind, number, advice, picture))

    def keep(self, one: Annotated, picture: int, size: Size, file: Path | None = None) -> None:
        """Keep an annotation of a picture if evaluation sees it. Report it if training does not."""
        rule = reason_to_drop(one.box_xywh, one.is_crowd, size)
        if rule is not None:
            what = f"has the bbox {list(one.box_xywh)} on picture {picture} of {size[1]}×{size[0]}"
            self.find(rule, what, "annotation", one.id, file=file, picture=picture)
        if rule in (None, rules.CROWD):
            self.kept.setdefault(picture, []).append(one)

    def annotations(self, names: Mapping[int, str], pictures: Iterable[Picture]) -> Annotations:
        """Return everything that was read. `names` maps category ids to names, in the order of
        labels."""
        ids, by_label, all_pictures = tuple(names), tuple(names.values()), tuple(pictures)
        findings, files = tuple(self.findings), tuple(self.files)
        return Annotations(self.path, by_label, ids, all_pictures, findings, files)


def reason_to_drop(box_xywh: tuple[float, ...], is_crowd: bool, size: Size) -> Rule | None:
    """Return the rule by which training drops a box, or None if training sees the box."""
    x, y, w, h = box_xywh
    height, width = size
    if w < 0 or h < 0:
        return rules.NEGATIVE
    if w == 0 or h == 0:
        return rules.NO_AREA
    if min(x + w, width) <= max(x, 0) or min(y + h, height) <= max(y, 0):
        return rules.OUTSIDE
    return rules.CROWD if is_crowd else None
