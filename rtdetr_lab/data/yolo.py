"""# YOLO's format: a text file per picture

    images/train/a.jpg   labels/train/a.txt      class cx cy w h          (a box)
    data.yaml            names, train, val       class x1 y1 x2 y2 x3 y3 … (a polygon)

Numbers are fractions of the picture as a viewer shows it. A picture without a text file has no
objects. Without `data.yaml`, names are the lines of `classes.txt` or `obj.names`. If no `data.yaml`
names the splits, they are `images/train`, `train/images` and so on. If there are none of these, all
pictures are for training.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtdetr_lab.config import require
from rtdetr_lab.data import findings as rules
from rtdetr_lab.data.annotated import Annotated, Picture, Reading
from rtdetr_lab.data.places import NAMES, ROOT, inside, pictures_in, slashed, split_of, tails
from rtdetr_lab.data.text import lines_of, text_of
from rtdetr_lab.errors import DataError, converting
from rtdetr_lab.images.decode import frame_in
from rtdetr_lab.notation import Size

CLASSES = ("classes.txt", "obj.names", "labels/classes.txt", "train.names")
"""Files that list names, one per line."""

SLACK = 0.01
"""How far rounding may move a fraction out of [0, 1]; pixels are further out."""


def find_yolo(folder: Path, description: Path | None = None) -> "Yolo | None":
    """Return the YOLO data set in a folder, or None if there are no class names."""
    tree = _described(folder, description)
    names = _names(tree["names"], folder) if "names" in tree else _listed_names(folder)
    if not names:
        return None
    splits: dict[str, list[Path]] = {}
    for split, theirs in NAMES.items():
        listed = [tree[name] for name in theirs if tree.get(name)]
        paths = [path for value in listed for path in _listed(value, tree, folder)]
        splits[split] = list(dict.fromkeys(paths)) if listed else _usual(folder, split)
    if not any(splits.values()):
        splits = {"train": pictures_in(folder)}
    found = {split: paths for split, paths in splits.items() if paths}
    remedy = "put them into images/train and images/val"
    require(found, folder, "holds no pictures", remedy, DataError)
    return Yolo(folder, names, found)


@dataclass(frozen=True, eq=False)
class Yolo:
    """A YOLO data set: class names by label, and pictures by split."""

    folder: Path
    names: tuple[str, ...]
    splits: Mapping[str, Sequence[Path]]
    format: str = "YOLO"

    def read(self, place: Path, number: int, reading: Reading) -> Picture | None:
        """Read the annotations of one picture from its text file."""
        labels, lines = label_file(place), None
        if labels.is_file():
            reading.files.append(labels)
            lines = reading.attempt(lines_of, labels, rules.UNREADABLE)
        frame = reading.attempt(frame_in, place, rules.UNDECODABLE)
        if frame is None:
            return None
        size = frame.upright
        for line, text in lines or ():
            one = _annotated(text, reading.new_id(), size, len(self.names))
            if isinstance(one, Annotated):
                reading.keep(one, number, size, labels)
            else:
                reading.find(rules.UNREADABLE, one[0], "line", line, one[1], labels, number)
        kept = tuple(reading.kept.get(number, ()))
        name = str(place.relative_to(self.folder))
        return Picture(number, name, size, kept, upright=True, path=place)


def label_file(picture: Path) -> Path:
    """Return the text file of a picture: in `labels` in place of the last `images`, or beside the
    picture."""
    beside = picture.with_suffix(".txt")
    images = next((folder for folder in picture.parents if folder.name == "images"), None)
    mirrored = images and images.with_name("labels") / beside.relative_to(images)
    return mirrored if mirrored and mirrored.is_file() else beside


def _annotated(line: str, number: int, size: Size, num_classes: int) -> Annotated | tuple[str, str]:
    """Return the object of a line, or what is wrong and the remedy."""
    try:
        label, *numbers = (float(word) for word in line.split())
    except ValueError:
        return f"{line!r} has words that are not numbers", "correct it"
    if label not in range(num_classes):
        what = f"has class {label:g}, but there are {num_classes} names"
        return what, "list its name, or correct the label"
    if len(numbers) != 4 and (len(numbers) < 6 or len(numbers) % 2):
        remedy = "write: class cx cy w h, or class x1 y1 x2 y2 x3 y3 …"
        return f"has {len(numbers)} numbers after the class", remedy
    outside = [n for n in numbers if not -SLACK <= n <= 1 + SLACK]
    if outside:
        remedy = "divide x by the width of the picture and y by its height"
        return f"{outside[0]:g} is not a fraction of the picture", remedy
    height, width = size
    x, y = [n * width for n in numbers[0::2]], [n * height for n in numbers[1::2]]
    if len(numbers) == 4:
        (cx, w), (cy, h) = x, y
        return Annotated(number, int(label), (cx - w / 2, cy - h / 2, w, h), w * h, False)
    box = (min(x), min(y), max(x) - min(x), max(y) - min(y))
    polygon = [n for point in zip(x, y, strict=True) for n in point]
    return Annotated(number, int(label), box, _area(x, y), False, [polygon])


def _area(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the area of a polygon: half the sum of cross products of neighbours (shoelace
    formula)."""
    return abs(sum(x[i - 1] * y[i] - x[i] * y[i - 1] for i in range(len(x)))) / 2


def _described(folder: Path, description: Path | None) -> Mapping[str, Any]:
    """Return the YAML that has names in it, or an empty mapping."""
    import yaml  # type: ignore[import-untyped]

    found = {}
    for path in [description] if description else sorted(folder.glob("*.y*ml")):
        try:
            with converting(ValueError, DataError, path, "is not YAML ({})", "write it again"):
                tree = yaml.safe_load(text_of(path))
        except yaml.YAMLError as error:
            what = f"is not YAML ({' '.join(str(error).split())})"
            raise DataError(str(path), what, "write it again") from error
        if isinstance(tree, dict) and "names" in tree:
            found[path.name] = tree
    if len(found) > 1 and "data.yaml" not in found:
        what = f"has several YAML files with names: {', '.join(found)}"
        raise DataError(str(folder), what, "give one of these files instead of the folder")
    return found.get("data.yaml") or next(iter(found.values()), {})


def _names(names: Any, folder: Path) -> tuple[str, ...]:
    """Return the names of `[a, b]`, or of `{0: a, 1: b}` without gaps."""
    if isinstance(names, dict):
        by_number = {str(number).removesuffix(".0"): name for number, name in names.items()}
        numbers = [str(number) for number in range(len(names))]
        if set(numbers) == set(by_number):
            names = [by_number[number] for number in numbers]
    if not isinstance(names, list):
        what = f"its YAML has the names {names!r}"
        raise DataError(str(folder), what, "list them, or number them from 0")
    return tuple(map(str, names))


def _listed_names(folder: Path) -> tuple[str, ...]:
    path = next((folder / name for name in CLASSES if (folder / name).is_file()), None)
    return tuple(line for _, line in lines_of(path)) if path else ()


def _usual(folder: Path, split: str) -> list[Path]:
    """Return the pictures of a split without a description; raises `DataError` if two places have
    some."""
    found: dict[str, list[Path]] = {}
    for place in [*sorted(folder.glob("images/*/")), *sorted(folder.glob("*/"))]:
        inner = place / "images"
        if split_of(place.name) == split:
            pictures = pictures_in(inner if inner.is_dir() else place)
            found |= {str(place.relative_to(folder)): pictures} if pictures else {}
    if len(found) > 1:
        what = f"has pictures for {split!r} in {' and in '.join(found)}"
        raise DataError(str(folder), what, "name one of them in data.yaml, or remove one")
    return next(iter(found.values()), [])


USUAL_TESTS = ("test/images", "images/test", "test-dev2017.txt")
"""Test sets that the data.yaml of Roboflow, Ultralytics or COCO names, even if they are missing."""


def _listed(value: Any, tree: Mapping[str, Any], folder: Path) -> list[Path]:
    """Return the pictures of a YAML entry: folders, or text files with a path per line.

    Some tools name pictures for a test also if they export none; then there are none.
    """
    found = []
    for entry in map(str, value if isinstance(value, list) else [value]):
        usual = slashed(entry).lstrip("./") in USUAL_TESTS
        if usual and not _places(entry, tree, folder):
            continue
        place = _place(entry, tree, folder)
        if place.is_dir():
            found += pictures_in(place)
        else:
            found += [_place(line, tree, folder) for _, line in lines_of(place)]
    return found


def _place(entry: str, tree: Mapping[str, Any], folder: Path) -> Path:
    """Return the path of the YAML; raises `DataError` if it is not there."""
    found = _places(entry, tree, folder)
    require(found, folder, f"its YAML names {entry!r}, which is not there", "correct it", DataError)
    return found[0]


def _places(entry: str, tree: Mapping[str, Any], folder: Path) -> list[Path]:
    """Resolve a path of the YAML below the folder; it may have been written for another place."""
    name = slashed(entry)
    places = [f"{tree.get('path') or '.'}/{name}", name, re.sub(r"^(\.\./)+", "", name) or ".."]
    places.append(name.removeprefix("data/"))  # CVAT writes its lists for a folder `data`
    if ROOT.match(name):  # a path of another machine
        places = [tail for tail in tails(name) if "/" in tail or split_of(tail)]
    paths = (inside(folder, folder / place) for place in places)
    return [path for path in paths if path is not None and path.exists()]
