"""Mutated annotations: COCO, VOC and YOLO, damaged as files and as trees.

What must hold: a `DataError` that names the file (and the id, where there is one), or the preflight
names it; and what is read in spite of all is a data set that can be trained on.
"""

import copy
import json
import random
import shutil
from functools import cache
from pathlib import Path

import mutate
import numpy as np
import torch
from PIL import Image
from tally import Wrong, refusal

from rtdetr_lab.data.batch import clip
from rtdetr_lab.data.coco import CocoDataset
from rtdetr_lab.data.coco_json import inspect_annotations
from rtdetr_lab.data.layout import find_layout
from rtdetr_lab.errors import DataError

SIZE = (30, 40)


@cache
def tree() -> dict:
    """Three pictures, seven objects, three categories with gaps; a crowd, a polygon, an RLE."""
    boxes = [[2, 3, 10, 12], [5.5, 1, 20, 8.25], [0, 0, 40, 30], [30, 20, 9, 9], [1, 1, 3, 3]]
    annotations = [
        {"id": 10 + i, "image_id": 1 + i % 3, "category_id": (1, 3, 90)[i % 3], "bbox": box}
        for i, box in enumerate([*boxes, [4, 4, 8, 8], [12, 2, 6, 20]])
    ]
    annotations[0] |= {"area": 120.0, "iscrowd": 0, "segmentation": [[2, 3, 12, 3, 12, 15, 2, 15]]}
    annotations[5] |= {"iscrowd": 1, "segmentation": {"size": [30, 40], "counts": [0, 1200]}}
    names = {1: "red cell", 3: "white cell", 90: "plate"}
    return {
        "images": [
            {"id": i, "file_name": f"{i}.png", "height": 30, "width": 40} for i in (1, 2, 3)
        ],
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in names.items()],
    }


def _pictures(folder: Path, names: tuple[str, ...]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if not (folder / name).exists():
            Image.fromarray(np.full((*SIZE, 3), 99, np.uint8)).save(folder / name)


def coco(rng: random.Random, folder: Path) -> str:
    """One damaged annotation file."""
    _pictures(folder, ("1.png", "2.png", "3.png"))
    path = folder / "train.json"
    if rng.random() < 0.5:
        what, data = mutate.damaged(json.dumps(tree()).encode(), rng)
    else:
        own = copy.deepcopy(tree())
        what = mutate.damaged_tree(own, rng)
        data = json.dumps(own).encode()
    path.write_bytes(data)
    named = inspect_annotations(path).findings  # what a preflight prints
    if any(str(path) not in finding.where for finding in named):
        raise Wrong(f"{what}: a finding does not name the file")
    try:
        find_layout(path)["train"].load()
    except DataError as error:
        if not named:
            raise Wrong(f"{what}: refused, but the preflight found nothing") from error
        return refusal(error, str(path))
    try:
        _trainable(CocoDataset.from_json(path, folder), what)
    except DataError as error:
        return refusal(error, str(folder))
    return "named and read" if named else "read"


def _trainable(dataset: CocoDataset, what: str) -> None:
    for index in range(len(dataset)):
        sample = dataset[index]
        boxes, labels = sample.boxes, sample.labels
        well = torch.isfinite(boxes).all() and ((boxes >= 0) & (boxes <= 1)).all()
        known = ((labels >= 0) & (labels < len(dataset.names))).all()
        if not (well and known and (boxes[:, 2:] > 0).all()):
            raise Wrong(f"{what}: training would see {boxes.tolist()} {labels.tolist()}")


XML = """<annotation><filename>{stem}.png</filename>
<size><width>40</width><height>30</height><depth>3</depth></size>{objects}</annotation>"""
OBJECT = "<object><name>{}</name><difficult>0</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin>"
OBJECT += "<xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"


def voc(rng: random.Random, folder: Path) -> str:
    """A VOC folder of two files, one of them damaged."""
    _pictures(folder / "JPEGImages", ("1.png", "2.png"))
    objects = OBJECT.format("cell", 3, 4, 20, 22) + OBJECT.format("plate", 1, 1, 40, 30)
    for stem in ("1", "2"):
        path = folder / "Annotations" / f"{stem}.xml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(XML.format(stem=stem, objects=objects), encoding="utf8")
    data = path.read_bytes()
    data = _other_number(data, rng) if rng.random() < 0.4 else mutate.damaged(data, rng)[1]
    path.write_bytes(data)
    return _converted(folder, path)


def _other_number(data: bytes, rng: random.Random) -> bytes:
    """A number, or a word, in place of one of the numbers."""
    import re

    spots = list(re.finditer(rb"(?<=[> ])[\d.]+(?=[< \n])", data))
    spot = rng.choice(spots)
    odd = (b"-5", b"0", b"1e9", b"nan", b"inf", b"", b"x", b"99999999999999999999", b"20.5")
    return data[: spot.start()] + rng.choice(odd) + data[spot.end() :]


def yolo(rng: random.Random, folder: Path) -> str:
    """A YOLO folder, its text file or its description damaged."""
    shutil.rmtree(folder / "labels", ignore_errors=True)
    _pictures(folder / "images" / "train", ("1.png", "2.png"))
    (folder / "labels" / "train").mkdir(parents=True, exist_ok=True)
    lines = "0 0.5 0.5 0.25 0.5 \n1 0.25 0.25 0.125 0.25 \n2 0.1 0.1 0.3 0.1 0.3 0.4 0.1 0.4 \n"
    for stem in ("1", "2"):
        path = folder / "labels" / "train" / f"{stem}.txt"
        path.write_text(lines, encoding="utf8")
    description = folder / "data.yaml"
    description.write_text("train: images/train\nnames: [cell, plate, dust]\n", encoding="utf8")
    path = rng.choice((path, path, description))
    data = path.read_bytes()
    spoil = _other_number if path != description and rng.random() < 0.4 else None
    path.write_bytes(spoil(data, rng) if spoil else mutate.damaged(data, rng)[1])
    return _converted(folder, folder if path == description else path)


def _converted(folder: Path, path: Path) -> str:
    """Read all pictures of a folder as `convert` does before it writes anything."""
    try:
        layout = find_layout(folder)
        found = [layout[split].load() for split in layout.splits]
    except DataError as error:
        return refusal(error, str(folder if path == folder else path))
    for picture in (picture for annotations in found for picture in annotations.pictures):
        for one in picture.annotations:
            if not (np.isfinite(one.box_xywh).all() and 0 <= one.label < len(found[0].names)):
                raise Wrong(f"{path.name}: {one}")
            # What lies outside or has no area is dropped and named; the rest is clipped.
            x, y, w, h = one.box_xywh
            seen = clip(torch.tensor([[x, y, x + w, y + h]]), picture.size)[0]
            if not (seen[2:] > seen[:2]).all():
                raise Wrong(f"{path.name}: {one} would be trained on without an area")
    return "read"
