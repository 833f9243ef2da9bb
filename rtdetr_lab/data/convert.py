r"""# Convert: YOLO and Pascal VOC folders, and the shapes world, into COCO JSON; splits of any set

    convert("their_data", "my_data")   →   my_data/train.json  my_data/val.json  my_data/images/…
    export_coco("shapes", 1000)        →   the same, and shapes/shapes.json, its configuration

Training reads all three formats directly; this module writes COCO's for other tools. `layout.py`
finds and reads the files. Annotations that training would leave out are not written, except crowds.

**Rotated photos.** COCO's boxes refer to the raster as stored, YOLO's to the picture as a viewer
shows it. VOC's refer to the one of them that has the size in the XML. If the boxes refer to the
picture that a viewer shows, the photo is written upright (as PNG, so that it is not compressed
twice). All other photos are copied.

**Shapes** are written as PNG, because their boxes are exact and JPEG would blur the edges. Their
masks are run lengths.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from rtdetr_lab.boxes import xywh_from_xyxy
from rtdetr_lab.config_json import to_json
from rtdetr_lab.data.annotated import Annotated, Annotations, Picture, Progress
from rtdetr_lab.data.findings import raise_first_error
from rtdetr_lab.data.layout import COCO, Layout, find_layout
from rtdetr_lab.data.places import Places
from rtdetr_lab.data.rle import encode_mask
from rtdetr_lab.data.shapes import DEFAULT, SHAPE_NAMES, TRAIN, VAL, ShapesConfig, draw
from rtdetr_lab.data.split import divide
from rtdetr_lab.errors import DataError
from rtdetr_lab.images.decode import decode, frame_in
from rtdetr_lab.writing import write_text


def convert(
    source: str | Path, folder: str | Path, voc_origin: int = 1, progress: Progress = iter
) -> list[Path]:
    """Write `source` as COCO into the new `folder`, and return the annotation files.

    `voc_origin` is the number of the first column of pixels in VOC's XML: 1 by its definition, 0 in
    some tools. Raises `DataError` with the file and line of an annotation that cannot be read.
    """
    return write_coco(read_whole(source, voc_origin), folder, progress)


def read_whole(source: str | Path, voc_origin: int = 1) -> dict[str, Annotations]:
    """Return the annotations of a YOLO or VOC folder by split; raises `DataError`."""
    layout = find_layout(source, voc_origin)
    if layout.format == COCO:
        raise DataError(str(source), "is COCO JSON already", "train on it directly")
    found = {split: layout[split].read() for split in layout.splits}
    for annotations in found.values():
        raise_first_error(annotations.findings)
    return found


def split_set(
    source: str | Path,
    folder: str | Path,
    shares: Mapping[str, float],
    seed: int = 0,
    voc_origin: int = 1,
    progress: Progress = iter,
) -> list[Path]:
    """Write a data set without a validation set as COCO with one, into the new `folder`.

    `shares` and `seed` as in `split.py`. Return the annotation files. Raises `DataError` if the set
    has several splits, and for what cannot be read.
    """
    layout = find_layout(source, voc_origin)
    name, *more = layout.splits
    if more:
        what = f"is split already: {', '.join(layout.splits)}"
        raise DataError(str(source), what, "train on it directly, or give one annotation file")
    found = load_with_paths(layout, name)
    places = Places(layout.folder, found.path)
    parts = divide(found, places, shares, seed, progress=progress)
    return write_coco(parts, folder, progress)


def load_with_paths(layout: Layout, split: str) -> Annotations:
    """Return the annotations of a split, every picture with its path; raises `DataError` if one is
    missing."""
    found = layout[split].load()
    places = Places(layout.folder, found.path)
    raise_first_error(places.find_all(found.pictures))
    paths = (path for p in found.pictures if isinstance(path := places.find(p), Path))
    pictures = tuple(replace(p, path=f) for p, f in zip(found.pictures, paths, strict=True))
    return replace(found, pictures=pictures)


def write_coco(
    splits: Mapping[str, Annotations], folder: str | Path, progress: Progress = iter
) -> list[Path]:
    """Copy pictures and write a JSON per split; raises `DataError` if the folder is not empty."""
    folder = new_folder(folder)
    written = []
    for split, found in splits.items():
        pictures = _copy_pictures(folder, split, found, progress)
        written.append(write_annotations(folder / f"{split}.json", found.names, pictures))
    return written


def new_folder(folder: str | Path) -> Path:
    """Make a folder for a data set. Raises `DataError` if it exists and is not empty."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(str(folder), "exists and is not empty", "give a new folder")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    return folder


def write_annotations(path: Path, names: Sequence[str], pictures: Iterable[Picture]) -> Path:
    """Write COCO's JSON; category ids are labels + 1, as in COCO."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for picture in pictures:
        number, name, (height, width) = picture.id, picture.file_name, picture.size
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for i, one in enumerate(picture.annotations, len(annotations) + 1):
            annotations.append({"id": i, "image_id": number, **_row_of(one)})
    categories = [{"id": i, "name": name} for i, name in enumerate(names, 1)]
    tree = {"images": images, "annotations": annotations, "categories": categories}
    write_text(path, json.dumps(tree, ensure_ascii=False))
    return path


def _row_of(one: Annotated) -> dict[str, Any]:
    box, drawn = [round(n, 4) for n in one.box_xywh], one.segmentation
    if isinstance(drawn, list):
        drawn = [[round(n, 4) for n in polygon] for polygon in drawn]
    row = {"category_id": one.label + 1, "bbox": box, "area": round(one.area, 4)}
    row["iscrowd"] = int(one.is_crowd)
    return row | ({"segmentation": drawn} if drawn else {})


def _copy_pictures(
    folder: Path, split: str, found: Annotations, progress: Progress
) -> Iterator[Picture]:
    """Copy the pictures of a split one by one, and give each its new id and name."""
    taken: set[str] = set()
    for number, picture in enumerate(progress(found.pictures), 1):
        name = _write_picture(picture, folder / "images" / split, number, taken)
        yield replace(picture, id=number, file_name=f"images/{split}/{name}")


def _write_picture(picture: Picture, folder: Path, number: int, taken: set[str]) -> str:
    """Write a picture under its own name; if that is taken, put its number in front."""
    assert picture.path is not None
    turned = picture.upright and frame_in(picture.path).orientation != 1
    name = f"{picture.path.stem}.png" if turned else picture.path.name
    name = f"{number:06d}_{name}" if name.lower() in taken else name
    taken.add(name.lower())
    folder.mkdir(parents=True, exist_ok=True)
    if turned:
        Image.fromarray(decode(picture.path)).save(folder / name)
    else:
        shutil.copyfile(picture.path, folder / name)
    return name


def export_coco(
    folder: str | Path,
    count: int,
    val_count: int | None = None,
    config: ShapesConfig = DEFAULT,
    progress: Progress = iter,
) -> list[Path]:
    """Write `count` training pictures, and `val_count` validation pictures (default: a fifth of
    `count`). Return the annotation files.

    Raises `DataError` if `folder` is not empty.
    """
    if count < 1:
        raise DataError("count", f"is {count}", "give at least 1")
    folder = new_folder(folder)
    (folder / "shapes.json").write_text(to_json(config) + "\n", encoding="utf8")
    written = []
    counts = {"train": count, "val": max(1, count // 5) if val_count is None else val_count}
    for (split, number), seed in zip(counts.items(), (TRAIN, VAL), strict=True):
        drawn = _draw_pictures(folder, f"images/{split}", config, seed, progress(range(number)))
        written.append(write_annotations(folder / f"{split}.json", SHAPE_NAMES, drawn))
    return written


def _draw_pictures(
    folder: Path, start: str, config: ShapesConfig, seed: int, numbers: Iterable[int]
) -> Iterator[Picture]:
    """Draw and write pictures, one by one."""
    for index in numbers:
        drawn, name = draw(config, seed, index), f"{start}_{index:06d}.png"
        pixels = np.ascontiguousarray(drawn.image)
        Image.fromarray(pixels).save(folder / name, compress_level=1)
        labels, areas = drawn.labels.tolist(), drawn.areas.astype(int).tolist()
        boxes = xywh_from_xyxy(torch.from_numpy(drawn.boxes_xyxy)).tolist()
        annotated = tuple(
            Annotated(i, labels[i], tuple(boxes[i]), areas[i], False, encode_mask(mask))
            for i, mask in enumerate(drawn.masks)
        )
        yield Picture(index, name, (config.size, config.size), annotated)
