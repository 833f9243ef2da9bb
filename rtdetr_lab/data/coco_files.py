"""# The files of COCO: where annotations and pictures lie, and pixels as they are stored

A picture's path comes out of a JSON that someone else wrote: it may not lead out of the folder.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from rtdetr_lab.data.annotated import Picture
from rtdetr_lab.data.findings import (
    LEAVES_FOLDER,
    MISSING,
    TURNED,
    TURNED_SIZE,
    UNDECODABLE,
    WRONG_SIZE,
    Finding,
    Rule,
)
from rtdetr_lab.errors import DataError, ImageError
from rtdetr_lab.images.decode import read_photo

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


def find_picture(folder: Path, picture: Picture, annotations: Path) -> Path | Finding:
    """The file of a picture, or what is wrong: it is nowhere, or would lie outside."""
    name, file = Path(picture.file_name), str(annotations)
    if name.is_absolute() or ".." in name.parts:
        what = f"its file_name {picture.file_name!r} leaves the folder"
        return Finding(LEAVES_FOLDER, file, what, "picture", picture.id)
    split = annotations.stem.removeprefix("instances_")
    for base in dict.fromkeys((folder, annotations.parent, annotations.parent.parent)):
        for place in PICTURES:
            path = base / place.format(split=split) / name
            if os.path.isfile(path):  # False, too, for a name no file can have
                return path
    what = f"{picture.file_name!r} is not in {folder} or its images/"
    return Finding(MISSING, file, what, "picture", picture.id)


@dataclass(frozen=True, eq=False)
class Opened:
    """A picture's pixels as stored, if they can be had, and what is wrong with it."""

    path: Path | None = None
    raster: UInt8[np.ndarray, "H W 3"] | None = None
    findings: tuple[Finding, ...] = ()


def open_picture(folder: Path, picture: Picture, annotations: Path) -> Opened:
    """Find and decode a picture, and compare it with what the annotations say."""
    path = find_picture(folder, picture, annotations)
    if isinstance(path, Finding):
        return Opened(findings=(path,))

    def found(rule: Rule, what: str, advice: str = "") -> tuple[Finding]:
        return (Finding(rule, str(path), what, "picture", picture.id, advice),)

    try:
        photo = read_photo(path)
    except ImageError as error:
        return Opened(path, None, found(UNDECODABLE, error.what, error.remedy))
    raster, frame, orientation = photo.raster, photo.frame, photo.frame.orientation
    (height, width), (h, w) = frame.stored, picture.size
    if frame.stored == picture.size:
        what = f"has the EXIF orientation {orientation}: a viewer turns it, its boxes are not"
        return Opened(path, raster, found(TURNED, what) if orientation != 1 else ())
    what = f"is {width}×{height}, {annotations} says {w}×{h}"
    if frame.upright == picture.size:
        what += f", as a viewer shows it (EXIF orientation {orientation})"
        return Opened(path, raster, found(TURNED_SIZE, what))
    return Opened(path, raster, found(WRONG_SIZE, what))
