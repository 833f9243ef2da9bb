"""# Layout: the files of a data set, their format, and the names of its splits

    layout = find_layout("my_data")      # a folder, an annotation file, or a data.yaml
    layout.format, list(layout.splits)   # "COCO JSON", ["train", "val"]
    layout["val"].load()                 # its annotations; raises for faults

| format        | found by                                                                  |
|---------------|---------------------------------------------------------------------------|
| COCO JSON     | JSON at the top, in `annotations/` or in a folder named like a split      |
| COCO panoptic | `panoptic_train.json` and a folder of PNGs, at the top or in `annotations/` |
| YOLO          | `data.yaml`, `classes.txt`, `obj.names`                                   |
| Pascal VOC    | XML in `Annotations/`, at the top, or in folders named like splits        |

A word in the name of a JSON file or of its folder gives its split: `train`, `valid`,
`instances_val2017`. A single JSON with any other name is a training set. If two files could be the
same split, we name both and use neither. Checking, training, evaluation, conversion and ablations
all find their data with this module.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rtdetr_lab.data.annotated import Annotations, Listed, Reading
from rtdetr_lab.data.coco_json import inspect_annotations, listed_pictures
from rtdetr_lab.data.coco_panoptic import PanopticDataset, find_panoptic
from rtdetr_lab.data.findings import raise_first_error
from rtdetr_lab.data.places import NAMES, Places, match_pictures, split_of
from rtdetr_lab.data.text import text_of
from rtdetr_lab.data.voc import Voc, find_voc
from rtdetr_lab.data.whole_set import judged
from rtdetr_lab.data.yolo import Yolo, find_yolo
from rtdetr_lab.errors import DataError

COCO = "COCO JSON"
PANOPTIC = "COCO panoptic"
"""The names of these formats in messages."""

OTHER_TASKS = ("captions_", "person_keypoints_", "panoptic_", "stuff_", "image_info_")
"""Starts of names of COCO's JSON files without boxes."""

USUAL = ("{}", "{}2017", "instances_{}", "instances_{}2017")
"""File names that win if several JSON files have the same split."""


@dataclass(frozen=True, eq=False)
class Split:
    """The annotations of a split; its files are read only when needed."""

    path: Path
    read: Callable[[], Annotations]

    def inspect(self) -> Annotations:
        """Read as much as possible, and report every fault, also those of the whole set."""
        return judged(self.read())

    def load(self) -> Annotations:
        """Return the annotations; raises `DataError` with the first one that cannot be read."""
        found = self.read()
        raise_first_error(found.findings)
        return judged(found)


@dataclass(frozen=True, eq=False)
class Layout:
    """A data set on disk. Each split has the files that could be its annotations; normally one."""

    folder: Path
    format: str
    splits: Mapping[str, tuple[Split, ...]]

    def __getitem__(self, name: str) -> Split:
        """Return a split by its name or another of its names. Raises `DataError` with the splits
        that exist."""
        found = self.splits.get(name) or self.splits.get(split_of(name) or name, ())
        if len(found) == 1:
            return found[0]
        if found:
            both = " and ".join(self._called(split) for split in found)
            what, remedy = f"has {both} for {name!r}", "move one away, or give one of these files"
            raise DataError(str(self.folder), what, remedy)
        there = [self._called(one) for splits in self.splits.values() for one in splits]
        what, remedy = f"has no annotations for {name!r}", f"there is {', '.join(there)}"
        raise DataError(str(self.folder), what, remedy)

    def _called(self, split: Split) -> str:
        inside = split.path != self.folder and split.path.is_relative_to(self.folder)
        return str(split.path.relative_to(self.folder) if inside else split.path)


def find_layout(source: str | Path, voc_origin: int = 1) -> Layout:
    """Return the data set in a folder or of a file. If there is none, raises `DataError` with what
    is there instead.

    `voc_origin` is the number of the first column of pixels in VOC's XML.
    """
    source = Path(source).expanduser()
    if source.is_file():
        return _of_file(source)
    if not source.is_dir():
        raise DataError(str(source), "is not a folder", "give a folder, a COCO JSON or a data.yaml")
    found = _coco(source)
    if found and set(found.splits) & set(NAMES):
        return found
    if panoptic := _panoptic(source):
        return panoptic
    others = [one for one in (find_yolo(source), find_voc(source, voc_origin)) if one]
    if len(others) > 1:
        what = f"is a {others[0].format} and a {others[1].format} folder"
        raise DataError(str(source), what, "move the annotations of one of them away")
    layout = _of_lists(others[0]) if others else found
    if layout is None:
        raise _nothing(source)
    return layout


def find_pictures(paths: Sequence[Path], annotations: Path) -> list[Listed]:
    """Return the entries of these files in a COCO JSON, with their ids and sizes.

    Raises `DataError` for a file that is not listed, or could be one of several pictures.
    """
    places = Places(_of_file(annotations).folder, annotations)
    return match_pictures(paths, listed_pictures(annotations), places)


def _of_file(path: Path) -> Layout:
    if path.suffix.lower() in (".yaml", ".yml"):
        found = find_yolo(path.parent, path)
        if found is None:
            raise DataError(str(path), "has no names", "list class names: names: [cat, dog]")
        return _of_lists(found)
    if path.suffix.lower() != ".json":
        remedy = "give its folder, a COCO JSON or a data.yaml"
        raise DataError(str(path), "is not an annotation file", remedy)
    folder = path.parent
    if path.name.startswith("panoptic_"):
        panoptic = _panoptic(folder.parent if folder.name.lower() == "annotations" else folder)
        if panoptic:
            return panoptic
    own = next((ours for ours, theirs in NAMES.items() if folder.name.lower() in theirs), None)
    split = split_of(path.stem) or own or "train"
    inner = own or folder.name.lower() == "annotations"
    return Layout(folder.parent if inner else folder, COCO, {split: (_json(path),)})


def _panoptic(folder: Path) -> Layout | None:
    """Find the panoptic annotations of a folder."""
    paths = {split: find_panoptic(folder, split) for split in NAMES}
    splits = {
        split: (Split(path, partial(_segments, folder, split)),)
        for split, path in paths.items()
        if path
    }
    return Layout(folder, PANOPTIC, splits) if splits else None


def _segments(folder: Path, split: str) -> Annotations:
    return PanopticDataset.from_folder(folder, split).annotations()


def _json(path: Path) -> Split:
    return Split(path, partial(inspect_annotations, path))


def _coco(folder: Path) -> Layout | None:
    """Find the JSON files of a folder, by split, or by their own name if it gives no split."""
    named: dict[str, list[Path]] = defaultdict(list)
    for place in (folder, *sorted(p for p in folder.iterdir() if p.is_dir())):
        own = split_of(place.name) if place != folder else None
        ours = own or place == folder or place.name == "annotations"
        for path in sorted(place.glob("*.json")) if ours else ():
            if not path.name.startswith(OTHER_TASKS):
                named[own or split_of(path.stem) or path.stem].append(path)
    splits = {split: _likely(split, paths) for split, paths in named.items()}
    found = {split: tuple(map(_json, paths)) for split, paths in splits.items() if paths}
    if len(found) == 1 and not set(found) & set(NAMES):
        found = {"train": next(iter(found.values()))}
    return Layout(folder, COCO, found) if found else None


def _likely(split: str, paths: list[Path]) -> list[Path]:
    """Return the files that have a usual name; if none has, those that look like COCO's."""
    names = [name.format(theirs) for theirs in NAMES.get(split, ()) for name in USUAL]
    usual = [path for path in paths if path.stem in (*names, "_annotations.coco")]
    return usual or [path for path in paths if _looks_like_coco(path)]


def _looks_like_coco(path: Path) -> bool:
    try:
        text = text_of(path)
    except DataError:
        return False
    return all(f'"{key}"' in text for key in ("images", "annotations", "categories"))


def _of_lists(found: Yolo | Voc) -> Layout:
    """Return a layout of splits that are lists of files; a split's path is their common folder."""
    splits = {}
    for split, paths in found.splits.items():
        path = Path(os.path.commonpath([path.parent for path in paths]))
        splits[split] = (Split(path, partial(_read, found, path, paths)),)
    return Layout(found.folder, found.format, splits)


def _read(found: Yolo | Voc, path: Path, files: Sequence[Path]) -> Annotations:
    """Read a list of files, and report every fault."""
    reading = Reading(path)
    read = [found.read(file, number, reading) for number, file in enumerate(files, 1)]
    pictures = (picture for picture in read if picture is not None)
    return reading.annotations(dict(enumerate(found.names, 1)), pictures)


def _nothing(folder: Path) -> DataError:
    """Return the error for a folder without a data set: what is there instead, and what to type."""
    below = [p for p in sorted(folder.iterdir()) if p.is_dir() and _is_data(p)]
    if below:
        what, remedy = "is not a data set, but contains one", f"give {below[0]}"
    elif any((folder / "labels").rglob("*.txt")):
        what = "has text files like those of YOLO, but no class names"
        remedy = "write the names into data.yaml (names: [cat, dog]) or classes.txt"
    else:
        there = sorted(p.name for p in folder.iterdir())[:5]
        what = "has no COCO JSON, and is neither a YOLO nor a VOC folder"
        what = f"{what} (there is {', '.join(there)})" if there else f"is empty: it {what}"
        remedy = "put train.json, val.json (COCO) and images/ there, or give a YOLO or VOC folder"
    return DataError(str(folder), what, remedy)


def _is_data(folder: Path) -> bool:
    try:
        return bool(_coco(folder) or find_yolo(folder) or find_voc(folder))
    except DataError:
        return False
