r"""# Preflight: read everything once, before hours are spent on it

    for report in check_folder("my_data"):
        print(report)

Every picture is decoded and every annotation held against the rules of `findings.py`, which are
those training goes by: what is `DROPPED` here is what `CocoDataset.dropped` counts, and where
nothing is an `ERROR`, training meets none.

Two rules need more than one annotation or one split at a time: the same picture (by the sha256 of
its file) twice in a split, and, worse, in two splits, where a validation rewards learning by heart.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rtdetr_lab.data.annotated import Annotations, Picture
from rtdetr_lab.data.coco import CocoDataset
from rtdetr_lab.data.coco_files import LAYOUTS, find_annotations, open_picture
from rtdetr_lab.data.coco_json import inspect_annotations
from rtdetr_lab.data.findings import (
    GAPS,
    NO_BOXES,
    NO_OBJECTS,
    NO_PICTURES,
    NOT_COCO,
    OVER_EDGE,
    SAME_NAME,
    SAME_PICTURE,
    ZERO_ANNOTATION,
    ZERO_CATEGORY,
    Finding,
    Severity,
)
from rtdetr_lab.data.report import Report, histogram_of_sides

SPLITS = ("train", "val", "valid", "test")
"""What splits are called, where nobody says."""

SLACK = 1.0
"""Pixels a box may reach over the edge before we mention it: COCO's own do, by rounding."""

Progress = Callable[..., Iterable[Any]]
Read = tuple[tuple[Finding, ...], str]


def check_folder(
    folder: str | Path, splits: Sequence[str] = (), progress: Progress = iter
) -> list[Report]:
    """A report on every split that is there, or on those asked for. Raises `DataError` if there is
    none. `progress` wraps the pictures while they are read."""
    folder = Path(folder)
    found = {split: _annotations_of(folder, split) for split in splits or SPLITS}
    paths = {split: path for split, path in found.items() if path is not None}
    for split in splits:
        find_annotations(folder, split)  # says what is there instead
    if not paths:
        find_annotations(folder, "train")
    reports = [check(inspect_annotations(p), folder, progress) for p in paths.values()]
    return _across(reports)


def check_json(
    path: str | Path, folder: str | Path | None = None, progress: Progress = iter
) -> Report:
    """A report on one annotation file; its pictures lie in `folder`, or beside it."""
    path = Path(path)
    return check(inspect_annotations(path), Path(folder or path.parent), progress)


def check(annotations: Annotations, folder: Path, progress: Progress = iter) -> Report:
    """Read every picture, and say what training would meet."""
    pictures, file = annotations.pictures, str(annotations.path)
    seen = [a for p in pictures for a in p.annotations if not a.is_crowd]
    per_class = Counter(a.label for a in seen)
    classes = tuple((name, per_class[label]) for label, name in enumerate(annotations.names))
    findings = [*annotations.findings, *_about_lists(annotations, classes)]
    first: dict[str, int] = {}
    read = partial(_read, folder=folder, annotations=annotations.path)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoding leaves Python's lock
        results = pool.map(read, pictures)
        for picture, (wrong, digest) in zip(progress(pictures), results, strict=True):
            findings += [*wrong, *_about_boxes(picture, file)]
            if digest and first.setdefault(digest, picture.id) != picture.id:
                findings.append(_same(file, picture.id, f"picture {first[digest]}"))
    sides = histogram_of_sides(a.box_xywh for a in seen)
    return Report(file, tuple(findings), len(pictures), classes, sides, first)


def usable(data: CocoDataset, progress: Progress = iter) -> CocoDataset:
    """The data set without the pictures that cannot be used; its `dropped` counts them, too."""
    report = check(data.annotations, data.folder, progress)
    unusable = {
        f.id: replace(f, rule=replace(f.rule, severity=Severity.DROPPED))
        for f in report.findings
        if f.kind == "picture" and f.rule.severity is Severity.ERROR
    }
    known = data.annotations
    pictures = tuple(p for p in known.pictures if p.id not in unusable)
    findings = (*known.findings, *unusable.values())
    return replace(data, annotations=replace(known, pictures=pictures, findings=findings))


def _read(picture: Picture, folder: Path, annotations: Path) -> Read:
    opened = open_picture(folder, picture, annotations)
    if opened.path is None:
        return opened.findings, ""
    try:
        with open(opened.path, "rb") as file:
            return opened.findings, hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:  # `open_picture` has said so
        return opened.findings, ""


def _about_lists(annotations: Annotations, classes: Sequence[tuple[str, int]]) -> Iterator[Finding]:
    file, ids = str(annotations.path), annotations.category_ids
    if not annotations.pictures and not any(f.rule is NOT_COCO for f in annotations.findings):
        yield Finding(NO_PICTURES, file, "has no picture that can be used")
    numbers = (a.id for p in annotations.pictures for a in p.annotations)
    if 0 in numbers:
        yield Finding(ZERO_ANNOTATION, file, "has the id 0", "annotation", 0)
    if ids[:1] == (0,):
        yield Finding(ZERO_CATEGORY, file, f"{annotations.names[0]!r} has it", "category", 0)
    missing = sorted(set(range(ids[0], ids[-1])) - set(ids)) if ids else []
    if missing:
        some = ", ".join(map(str, missing[:12])) + (" …" if len(missing) > 12 else "")
        what = f"from {ids[0]} to {ids[-1]}, {len(missing)} numbers are not used: {some}"
        yield Finding(GAPS, file, what)
    for number, (name, count) in zip(ids, classes, strict=True):
        if not count:
            yield Finding(NO_BOXES, file, f"{name!r} has no boxes", "category", number)
    for name, count in Counter(annotations.names).items():
        if count > 1:
            same = [i for i, n in zip(ids, annotations.names, strict=True) if n == name]
            yield Finding(SAME_NAME, file, f"ids {same} are called {name!r}", "category", same[1])


def _about_boxes(picture: Picture, file: str) -> Iterator[Finding]:
    height, width = picture.size
    if not picture.annotations:
        yield Finding(NO_OBJECTS, file, "has no objects", "picture", picture.id)
    for a in picture.annotations:
        x, y, w, h = a.box_xywh
        over = max(-x, -y, x + w - width, y + h - height)
        if over > SLACK:
            what = f"{list(a.box_xywh)} reaches {over:.3g} px over picture {picture.id}"
            yield Finding(OVER_EDGE, file, f"{what} of {width}×{height}", "annotation", a.id)


def _same(file: str, number: int, other: str) -> Finding:
    return Finding(SAME_PICTURE, file, f"has the same file as {other}", "picture", number)


def _across(reports: list[Report]) -> list[Report]:
    """The reports, with what one split shares with those before it."""
    seen: dict[str, str] = {}
    told = []
    for report in reports:
        shared = [
            _same(report.file, number, seen[digest])
            for digest, number in report.digests.items()
            if digest in seen
        ]
        told.append(replace(report, findings=(*report.findings, *shared)))
        for digest, number in report.digests.items():
            seen.setdefault(digest, f"picture {number} of {Path(report.file).name}")
    return told


def _annotations_of(folder: Path, split: str) -> Path | None:
    paths = (folder / layout.format(split=split) for layout in LAYOUTS)
    return next((path for path in paths if path.is_file()), None)
