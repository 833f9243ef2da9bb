r"""# Convert: YOLO and Pascal VOC folders, once, into COCO JSON

    convert("their_data", "my_data")   →   my_data/train.json  my_data/val.json  my_data/images/…

| format | found by                                | boxes                                    |
|--------|-----------------------------------------|------------------------------------------|
| VOC    | XML files in `Annotations/`, or flat    | corners in whole pixels, counted from 1  |
| YOLO   | `data.yaml`, `classes.txt`, `obj.names` | centre and size, or polygons, in [0, 1]  |

`yolo.py` and `voc.py` read; both hand over `Labelled` pictures, and here is the one place that
writes. One format means one set of rules, one preflight and one reader to trust.

**Turned photos.** COCO's boxes refer to the raster as stored, YOLO's to the picture as a viewer
shows it, and VOC's to whichever has the size in the XML. A photo whose boxes refer to what a viewer
shows is written upright (as PNG: nothing is compressed twice); all others are copied.
"""

import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from rtdetr_lab.data.coco_write import new_folder, write_annotations
from rtdetr_lab.data.labelled import Box, Labelled, Source
from rtdetr_lab.data.voc import find_voc
from rtdetr_lab.data.yolo import find_yolo
from rtdetr_lab.errors import DataError
from rtdetr_lab.images.decode import decode, frame_in

Progress = Callable[..., Iterable[Any]]


def convert(
    source: str | Path, folder: str | Path, voc_origin: int = 1, progress: Progress = iter
) -> list[Path]:
    """Write `source` as COCO into the new `folder`; returns the annotation files.

    `voc_origin` is what the first column of pixels is called in VOC's XML: 1 by its definition, 0
    by some tools. Raises `DataError` naming file and line of what cannot be understood.
    """
    found = find_source(Path(source), voc_origin)
    # What cannot be understood is met before anything is written.
    splits = {s: [found.read(p) for p in progress(paths)] for s, paths in found.splits.items()}
    folder = new_folder(folder)
    return [
        _write_split(folder, split, pictures, found.names, progress)
        for split, pictures in splits.items()
        if pictures
    ]


def find_source(folder: Path, voc_origin: int = 1) -> Source:
    """The data set in a folder, whatever its format; raises `DataError` if it is none we know."""
    found = find_voc(folder, voc_origin) or find_yolo(folder)
    if found is None or not any(found.splits.values()):
        what = "is neither a YOLO nor a VOC folder" if folder.is_dir() else "is not a folder"
        remedy = "give one with data.yaml or classes.txt, or with Annotations/*.xml"
        raise DataError(str(folder), what if found is None else "holds no pictures", remedy)
    return found


def _write_split(
    folder: Path, split: str, pictures: list[Labelled], names: Sequence[str], progress: Progress
) -> Path:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    taken: set[str] = set()
    for number, one in enumerate(progress(pictures), 1):
        name = f"images/{split}/{_free_name(one, number, taken)}"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        _place(one, folder / name)
        height, width = one.size
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        annotations += [
            {"id": len(annotations) + i, "image_id": number, **_annotation(box)}
            for i, box in enumerate(one.boxes, 1)
        ]
    return write_annotations(folder / f"{split}.json", names, images, annotations)


def _annotation(box: Box) -> dict[str, Any]:
    x0, y0, x1, y1 = box.xyxy
    area = sum(_area(p) for p in box.polygons) if box.polygons else (x1 - x0) * (y1 - y0)
    row = {
        "category_id": box.label + 1,
        "bbox": [round(n, 4) for n in (x0, y0, x1 - x0, y1 - y0)],
        "area": round(area, 4),
        "iscrowd": 0,
    }
    polygons = [[round(n, 4) for n in polygon] for polygon in box.polygons]
    return row | ({"segmentation": polygons} if polygons else {})


def _area(polygon: Sequence[float]) -> float:
    """Half the sum of cross products of neighbours (the shoelace formula)."""
    points = list(zip(polygon[0::2], polygon[1::2], strict=True))
    pairs = zip(points, points[1:] + points[:1], strict=True)
    return abs(sum(a * d - b * c for (a, b), (c, d) in pairs)) / 2


def _free_name(one: Labelled, number: int, taken: set[str]) -> str:
    """The picture's own name; with its number before it where another one has it."""
    name = f"{one.path.stem}.png" if _turned(one) else one.path.name
    name = f"{number:06d}_{name}" if name.lower() in taken else name
    taken.add(name.lower())
    return name


def _turned(one: Labelled) -> bool:
    return one.upright and frame_in(one.path).orientation != 1


def _place(one: Labelled, target: Path) -> None:
    if _turned(one):
        Image.fromarray(decode(one.path)).save(target)
    else:
        shutil.copyfile(one.path, target)
