"""# Tables: the detections of many pictures, in the formats of other tools

    many = [detector(path).without_image() for path in paths]
    to_pandas(many)                          # a data frame, one row per detection
    write_csv(many, Path("found.csv"))       # the same rows
    write_yolo(many, Path("found"))          # found/data.yaml, found/labels/….txt
    write_label_studio(many, Path("tasks.json"))
    write_coco(many, Path("found.json"))     # a data set: pictures, boxes with scores, categories

| format       | its boxes                                                   | frame    | scores |
|--------------|-------------------------------------------------------------|----------|--------|
| CSV, pandas  | corners in pixels, may reach over the edge                  | upright  | yes    |
| YOLO         | centre and size as fractions, clipped                       | upright  | no     |
| Label Studio | left, top, width, height in percent, clipped                | upright  | yes    |
| COCO         | left, top, width, height in pixels, may reach over the edge | stored   | yes    |

`Detections.rows` owns the columns and the rounding. In YOLO and COCO, names of pictures begin at
the folder that all pictures share, so these files can lie beside copies of the pictures and be
trained on. Each format escapes the names by its own rules.
"""

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rtdetr_lab.boxes import area
from rtdetr_lab.config import require
from rtdetr_lab.data.batch import clip
from rtdetr_lab.detections import COLUMNS, Detections
from rtdetr_lab.errors import ImageError, OutputError, import_extra
from rtdetr_lab.images.classes import Classes
from rtdetr_lab.writing import write_text, writing

Row = dict[str, Any]

LOCAL_FILES = "/data/local-files/?d="
"""Start of the address under which Label Studio serves files of its own disk."""


def to_pandas(many: Iterable[Detections]) -> Any:
    """Make a `pandas.DataFrame` with one row per detection and the columns `COLUMNS`.

    Raises `MissingExtraError` if pandas is not installed.
    """
    rows = [row for found in many for row in found.rows()]
    return import_extra("pandas", "notebooks").DataFrame(rows, columns=list(COLUMNS))


def write_csv(many: Iterable[Detections], path: Path) -> Path:
    """Write one row per detection, in UTF-8, with the columns `COLUMNS`."""
    text = io.StringIO()
    rows = csv.DictWriter(text, COLUMNS)
    rows.writeheader()
    for found in many:
        rows.writerows({name: _no_formula(v) for name, v in row.items()} for row in found.rows())
    return _write(path, text.getvalue())


def _no_formula(value: Any) -> Any:
    """Put a quote before text that a spreadsheet would compute, as a class or file can be named."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


def write_yolo(many: Iterable[Detections], folder: Path) -> Path:
    """Write a text file per picture, `labels/….txt`, and the class names into `data.yaml`.

    A picture without detections gets an empty file. Put the pictures into `images/`, and the folder
    is a data set. Raises `OutputError` if two pictures would share a text file.
    """
    import yaml  # type: ignore[import-untyped]

    many = list(many)
    labels = yolo_labels([_picture(found) for found in many])
    about = {"train": "images", "names": list(_classes_of(many).names)}
    _write(folder / "data.yaml", yaml.safe_dump(about, sort_keys=False))
    for found, place in zip(many, labels, strict=True):
        height, width = found.size
        lines = []
        for row in _clipped(found).rows():
            cx, w = (row["x0"] + row["x1"]) / 2 / width, (row["x1"] - row["x0"]) / width
            cy, h = (row["y0"] + row["y1"]) / 2 / height, (row["y1"] - row["y0"]) / height
            lines.append(f"{row['label']} {cx:.6f} {cy:.6f} {w:.6f} {h:.6f}\n")
        _write(folder / "labels" / place, "".join(lines))
    return folder


def yolo_labels(pictures: Sequence[Path]) -> list[Path]:
    """Return the text file of every picture, below `labels`; raises `OutputError` if two share
    one."""
    owner: dict[str, Path] = {}
    places = [Path(name).with_suffix(".txt") for name in _names_of(pictures)]
    for picture, place in zip(pictures, places, strict=True):
        first = owner.setdefault(str(place).casefold(), picture)
        what = f"and {first} would share the text file {place}"
        require(first is picture, picture, what, "rename one of the pictures", OutputError)
    return places


def write_label_studio(many: Iterable[Detections], path: Path, start: str = LOCAL_FILES) -> Path:
    """Write a task per picture, with the detections as predictions to correct.

    The address of a picture is `start` and its quoted path. The labelling interface needs
    `<Image name="image" …>` and `<RectangleLabels name="label" toName="image">`.
    """
    tasks = [
        {
            "data": {"image": start + quote(os.fsencode(_picture(found)))},
            "predictions": [{"result": list(map(_region, _clipped(found).rows()))}],
        }
        for found in many
    ]
    return _write(path, json.dumps(tasks, indent=1) + "\n")


def _region(row: Row) -> Row:
    """Return a detection in Label Studio's words: percent of the upright picture."""
    width, height = row["width"], row["height"]
    x, w = 100 * row["x0"] / width, 100 * (row["x1"] - row["x0"]) / width
    y, h = 100 * row["y0"] / height, 100 * (row["y1"] - row["y0"]) / height
    value = {"x": x, "y": y, "width": w, "height": h, "rotation": 0}
    return {
        "from_name": "label",
        "to_name": "image",
        "type": "rectanglelabels",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "score": row["score"],
        "value": {**value, "rectanglelabels": [row["name"]]},
    }


def write_coco(many: Iterable[Detections], path: Path) -> Path:
    """Write a data set: pictures, detections as annotations with a score, and categories.

    Pictures are numbered from 1. For rows of a results file, with ids of your own, use
    `Detections.to_coco`.
    """
    many = list(many)
    classes, images, annotations = _classes_of(many), list[Row](), list[Row]()
    names = _names_of([_picture(found) for found in many])
    for number, (found, name) in enumerate(zip(many, names, strict=True), 1):
        height, width = found.frame.stored
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        for row in found.to_coco(number, classes.category_ids):
            *_, w, h = row["bbox"]
            annotations.append({"id": len(annotations) + 1, **row, "area": w * h, "iscrowd": 0})
    named = zip(classes.category_ids, classes.names, strict=True)
    categories = [{"id": number, "name": name} for number, name in named]
    tree = {"images": images, "annotations": annotations, "categories": categories}
    return _write(path, json.dumps(tree) + "\n")


FORMATS: Mapping[str, tuple[str, Callable[[Sequence[Detections], Path], Path]]] = {
    "csv": ("detections.csv", write_csv),
    "yolo": ("yolo", write_yolo),
    "label_studio": ("label_studio.json", write_label_studio),
    "coco": ("coco.json", write_coco),
}
"""Format → the name of its file or folder, and what writes it."""


def _clipped(found: Detections) -> Detections:
    """Clip the boxes to the picture, and leave out those that lie outside."""
    inside = replace(found, boxes_xyxy=clip(found.boxes_xyxy, found.size))
    return inside[area(inside.boxes_xyxy) > 0]


def _classes_of(many: Sequence[Detections]) -> Classes:
    """Return the classes of all detections; raises `ConfigError` if they differ."""
    classes = many[0].classes if many else Classes(())
    other = next((found.source for found in many if found.classes != classes), None)
    what, remedy = f"has other classes than {many[0].source if many else ''}", "use one model"
    require(other is None, other, what, remedy)
    return classes


def _picture(found: Detections) -> Path:
    """Return the path of the picture; raises `ImageError` if it was not read from a file."""
    remedy = "read the picture from a file, or set `source` with dataclasses.replace"
    require(found.source, "detections", "have no name of their picture", remedy, ImageError)
    return Path(found.source)


def _names_of(pictures: Sequence[Path]) -> list[str]:
    """Return the names of pictures, below the folder that all of them share."""
    whole = [Path(os.path.abspath(picture)) for picture in pictures]
    home = Path(os.path.commonpath([path.parent for path in whole])) if whole else Path()
    return [path.relative_to(home).as_posix() for path in whole]


def _write(path: Path, text: str) -> Path:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return path
