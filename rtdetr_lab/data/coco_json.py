"""# The JSON of COCO: read strictly, with the file and the id in every complaint

Three lists that refer to each other are easy to get wrong by hand, and a wrong reference that is
skipped in silence becomes a model that never learns one class. So each is checked when it is read.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rtdetr_lab.errors import DataError
from rtdetr_lab.notation import Size

LAYOUTS = (
    "{split}.json",
    "{split}2017.json",
    "annotations/{split}.json",
    "annotations/instances_{split}.json",
    "annotations/instances_{split}2017.json",
    "{split}/_annotations.coco.json",
)
"""Where annotations of a split may lie in a folder."""

PICTURES = ("", "images", "{split}", "images/{split}")
"""Where a picture may lie, below the folder and below the one above its annotations."""


@dataclass(frozen=True, eq=False)
class Annotated:
    """One annotation whose box has an area."""

    id: int
    label: int
    box_xywh: tuple[float, float, float, float]
    area: float
    is_crowd: bool
    segmentation: Any = None


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture of the list, with its annotations."""

    id: int
    file_name: str
    size: Size
    annotations: tuple[Annotated, ...]


@dataclass(frozen=True, eq=False)
class Annotations:
    """A whole file: labels are places in `names` and `category_ids`."""

    path: Path
    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    pictures: tuple[Picture, ...]
    dropped: Mapping[str, int]


def find_annotations(folder: Path, split: str) -> Path:
    """The file of a split, in one of `LAYOUTS`; raises `DataError` listing what is there."""
    for layout in LAYOUTS:
        path = folder / layout.format(split=split)
        if path.is_file():
            return path
    there = sorted(p.name for p in folder.glob("*.json")) if folder.is_dir() else []
    what = f"has no annotations for {split!r}" if folder.is_dir() else "is not a folder"
    remedy = f"there is {', '.join(there)}" if there else f"put {split}.json and images/ there"
    raise DataError(str(folder), what, remedy)


def find_picture(folder: Path, picture: Picture, annotations: Path) -> Path:
    """The file of a picture; raises `DataError` naming its id if it is nowhere, or outside."""
    where = f"{annotations}: picture {picture.id}"
    name = Path(picture.file_name)
    if name.is_absolute() or ".." in name.parts:
        what = f"its file_name {picture.file_name!r} leaves the folder"
        raise DataError(where, what, "give paths below the folder of the data")
    split = annotations.stem.removeprefix("instances_")
    for base in dict.fromkeys((folder, annotations.parent, annotations.parent.parent)):
        for place in PICTURES:
            path = base / place.format(split=split) / name
            if path.is_file():
                return path
    what = f"{picture.file_name!r} is not in {folder} or its images/"
    raise DataError(where, what, "fetch the picture, or remove it and its annotations")


def read_annotations(path: Path) -> Annotations:
    """Read and check a file; raises `DataError` naming the file and the id of what is wrong."""
    tree = _parse(path)
    names = {i: str(c.get("name", "")) for i, c in _by_id(tree, "categories", path).items()}
    category_ids = tuple(sorted(names))
    label_of = {category: label for label, category in enumerate(category_ids)}
    images = _by_id(tree, "images", path)
    sizes = {i: _size(image, f"{path}: picture {i}") for i, image in images.items()}
    dropped: Counter[str] = Counter()
    of_picture: dict[int, list[Annotated]] = {i: [] for i in images}
    for number, entry in _by_id(tree, "annotations", path).items():
        where, picture = f"{path}: annotation {number}", entry.get("image_id")
        if type(picture) is not int or picture not in of_picture:
            raise DataError(where, f"is on picture {picture!r}, which is not listed", "remove it")
        annotated = _annotated(entry, label_of, where)
        reason = _reason_to_drop(annotated, sizes[picture])
        dropped.update([reason] if reason else [])
        if reason != WITHOUT_AREA:
            of_picture[picture].append(annotated)
    pictures = tuple(
        Picture(i, str(image.get("file_name", "")), sizes[i], tuple(of_picture[i]))
        for i, image in images.items()
    )
    by_label = tuple(names[c] for c in category_ids)
    return Annotations(path, by_label, category_ids, pictures, MappingProxyType(dropped))


WITHOUT_AREA, CROWD = "without area inside the picture", "crowd"


def _reason_to_drop(annotated: Annotated, size: Size) -> str:
    x, y, w, h = annotated.box_xywh
    height, width = size
    if min(x + w, width) <= max(x, 0) or min(y + h, height) <= max(y, 0):
        return WITHOUT_AREA
    return CROWD if annotated.is_crowd else ""


def _annotated(entry: Mapping[str, Any], label_of: Mapping[Any, int], where: str) -> Annotated:
    category, box = entry.get("category_id"), entry.get("bbox")
    if type(category) is not int or category not in label_of:
        what = f"is of category {category!r}, which is not listed"
        raise DataError(where, what, "list it under categories, or remove the annotation")
    if not (isinstance(box, list) and len(box) == 4 and all(_is_finite(n) for n in box)):
        raise DataError(where, f"has the bbox {box!r}", "give [left, top, width, height] in pixels")
    x, y, w, h = (float(n) for n in box)
    area = entry.get("area", w * h)
    return Annotated(
        id=entry["id"],
        label=label_of[category],
        box_xywh=(x, y, w, h),
        area=float(area) if _is_finite(area) else w * h,
        is_crowd=bool(entry.get("iscrowd", 0)),
        segmentation=entry.get("segmentation"),
    )


def _parse(path: Path) -> Mapping[str, Any]:
    try:
        tree = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(
            str(path), f"cannot be read ({error.strerror})", "check the path"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(str(path), f"is not JSON ({error})", "write it again") from error
    if not isinstance(tree, dict):
        raise DataError(str(path), "is not COCO's format", "write images, annotations, categories")
    return tree


KINDS = {"images": "picture", "annotations": "annotation", "categories": "category"}


def _by_id(tree: Mapping[str, Any], key: str, path: Path) -> dict[int, dict[str, Any]]:
    entries = tree.get(key)
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        remedy = "write images, annotations and categories, each a list of objects"
        raise DataError(str(path), f"has no list of {key}", remedy)
    by_id: dict[int, dict[str, Any]] = {}
    for entry in entries:
        number = entry.get("id")
        if type(number) is not int:
            where = f"{path}: {KINDS[key]}"
            raise DataError(where, f"has the id {number!r}", "ids are whole numbers")
        if number in by_id:
            raise DataError(f"{path}: {KINDS[key]} {number}", "occurs twice", "use every id once")
        by_id[number] = entry
    return by_id


def _size(entry: Mapping[str, Any], where: str) -> Size:
    height, width = entry.get("height"), entry.get("width")
    if type(height) is not int or type(width) is not int or min(height, width) < 1:
        what = f"has width {width!r} and height {height!r}"
        raise DataError(where, what, "write the size of the stored raster")
    return height, width


def _is_finite(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
