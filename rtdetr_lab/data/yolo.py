"""# YOLO's format: a text file per picture

    images/train/a.jpg   labels/train/a.txt      class cx cy w h          (a box)
    data.yaml            names, train, val       class x1 y1 x2 y2 x3 y3 … (a polygon)

Numbers are fractions of the picture as a viewer shows it. A picture without a text file has no
objects. Without `data.yaml`, names are the lines of `classes.txt` or `obj.names`, and splits are
`images/train`, `train/images` and so on, or all pictures are for training.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rtdetr_lab.data.labelled import Box, Labelled, Source, lines_of, pictures_in
from rtdetr_lab.errors import DataError
from rtdetr_lab.images.decode import frame_in

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""What splits are called there and here."""

NAMES = ("classes.txt", "obj.names", "labels/classes.txt", "train.names")

SLACK = 0.01
"""So far outside [0, 1] may rounding carry a fraction; pixels are further."""


def find_yolo(folder: Path) -> Source | None:
    """The YOLO data set in a folder, or None if there are no class names."""
    tree = _yaml(folder)
    names = _names(tree.get("names"), folder) if tree else _listed_names(folder)
    if not names:
        return None
    splits: dict[str, list[Path]] = {}
    for theirs, ours in SPLITS.items():
        found = _listed(tree[theirs], tree, folder) if tree.get(theirs) else _usual(folder, theirs)
        splits.setdefault(ours, []).extend(found)
    if not any(splits.values()):
        splits["train"] = pictures_in(folder)
    return Source(names, splits, partial(read_yolo, names=names))


def read_yolo(path: Path, names: Sequence[str]) -> Labelled:
    """A picture and the objects in its text file; raises `DataError` naming file and line."""
    height, width = frame_in(path).upright
    labels, boxes = label_file(path), list[Box]()
    lines = lines_of(labels) if labels.is_file() else []
    for number, line in enumerate(lines, 1):
        if line.strip():
            label, numbers = _numbers(line, f"{labels}: line {number}", len(names))
            boxes.append(_box(label, numbers, width, height))
    return Labelled(path, (height, width), tuple(boxes), upright=True)


def label_file(picture: Path) -> Path:
    """Where the objects of a picture are written: `labels` in place of the last `images`, or
    beside it."""
    parts = list(picture.with_suffix(".txt").parts)
    if "images" in parts[:-1]:
        at = len(parts) - 1 - parts[::-1].index("images")
        mirrored = Path(*parts[:at], "labels", *parts[at + 1 :])
        if mirrored.is_file():
            return mirrored
    return picture.with_suffix(".txt")


def _numbers(line: str, where: str, num_classes: int) -> tuple[int, list[float]]:
    try:
        label, *numbers = (float(word) for word in line.split())
    except ValueError as error:
        raise DataError(where, f"{line.strip()!r} is not all numbers", "correct it") from error
    if label not in range(num_classes):
        remedy = "list its name, or correct the label"
        raise DataError(where, f"class {label:g}, but there are {num_classes} names", remedy)
    if len(numbers) != 4 and (len(numbers) < 6 or len(numbers) % 2):
        remedy = "write: class cx cy w h, or class x1 y1 x2 y2 x3 y3 …"
        raise DataError(where, f"has {len(numbers)} numbers after the class", remedy)
    outside = [n for n in numbers if not -SLACK <= n <= 1 + SLACK]
    if outside:
        remedy = "divide x by the width of the picture and y by its height"
        raise DataError(where, f"{outside[0]:g} is no fraction of the picture", remedy)
    return int(label), numbers


def _box(label: int, numbers: list[float], width: int, height: int) -> Box:
    if len(numbers) == 4:
        cx, cy, w, h = numbers
        left, top = (cx - w / 2) * width, (cy - h / 2) * height
        return Box(label, (left, top, left + w * width, top + h * height))
    x, y = [n * width for n in numbers[0::2]], [n * height for n in numbers[1::2]]
    polygon = tuple(n for point in zip(x, y, strict=True) for n in point)
    return Box(label, (min(x), min(y), max(x), max(y)), (polygon,))


def _yaml(folder: Path) -> dict[str, Any]:
    """The first description with names in it."""
    import yaml  # type: ignore[import-untyped]

    for path in sorted(folder.glob("*.y*ml")):
        try:
            tree = yaml.safe_load(path.read_text(encoding="utf8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise DataError(str(path), f"is not YAML ({error})", "write it again") from error
        if isinstance(tree, dict) and "names" in tree:
            return tree
    return {}


def _names(names: Any, folder: Path) -> tuple[str, ...]:
    """`[a, b]`, or `{0: a, 1: b}` without gaps."""
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list):
        raise DataError(str(folder), f"its YAML has the names {names!r}", "list them from 0 on")
    return tuple(map(str, names))


def _listed_names(folder: Path) -> tuple[str, ...]:
    path = next((folder / name for name in NAMES if (folder / name).is_file()), None)
    lines = lines_of(path) if path else []
    return tuple(line.strip() for line in lines if line.strip())


def _usual(folder: Path, split: str) -> list[Path]:
    places = (folder / "images" / split, folder / split / "images", folder / split)
    return next((pictures_in(place) for place in places if place.is_dir()), [])


def _listed(value: Any, tree: dict[str, Any], folder: Path) -> list[Path]:
    """What the YAML says of a split: folders, or text files with a path per line."""
    found = []
    for entry in value if isinstance(value, list) else [value]:
        place = _inside(str(entry), tree, folder)
        if place.is_dir():
            found += pictures_in(place)
        else:
            lines = lines_of(place)
            found += [_inside(line.strip(), tree, folder) for line in lines if line.strip()]
    return found


def _inside(entry: str, tree: dict[str, Any], folder: Path) -> Path:
    """A path of the YAML, below the folder: it may have been written for another place."""
    root, short = folder.resolve(), entry.lstrip("./")
    for path in (folder / str(tree.get("path", "")) / entry, folder / entry, folder / short):
        if path.resolve().is_relative_to(root) and path.exists():
            return path
    raise DataError(str(folder), f"its YAML names {entry!r}, which is not there", "correct it")
