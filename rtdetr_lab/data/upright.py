"""# Upright: a data set without pictures that EXIF turns

    write_upright("my_data", "my_upright_data")

Programs disagree about photos that EXIF turns: some show them turned and some do not, so boxes may
lie beside their objects. Here we write such photos as a viewer shows them, without EXIF, and move
their boxes and masks with them. Then every program agrees. Other photos are copied.

Boxes refer to the raster as stored, unless their format or their size says otherwise (`frames.py`).
If boxes were drawn on the turned picture, but the file gives the size of the stored one, correct
its width and height first.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rtdetr_lab.boxes import xywh_from_xyxy, xyxy_from_xywh
from rtdetr_lab.data.annotated import Annotated, Annotations, Picture, Progress
from rtdetr_lab.data.convert import load_with_paths, write_coco
from rtdetr_lab.data.layout import find_layout
from rtdetr_lab.data.rle import decode_mask, run_lengths
from rtdetr_lab.images.decode import frame_in
from rtdetr_lab.images.frames import Frame


def write_upright(
    source: str | Path, folder: str | Path, voc_origin: int = 1, progress: Progress = iter
) -> tuple[list[Path], int]:
    """Write all splits as COCO into the new `folder`. Return the annotation files, and the number
    of pictures that were turned.

    Raises `DataError` for what cannot be read, and `ImageError` if a picture has another size than
    its annotations say.
    """
    layout = find_layout(source, voc_origin)
    splits = {name: load_with_paths(layout, name) for name in layout.splits}
    turned = {name: _turn(found) for name, found in splits.items()}
    count = sum(_lies(p) for found in splits.values() for p in found.pictures)
    return write_coco(turned, folder, progress), count


def _lies(picture: Picture) -> bool:
    assert picture.path is not None
    return frame_in(picture.path).orientation != 1


def _turn(found: Annotations) -> Annotations:
    return replace(found, pictures=tuple(map(_upright, found.pictures)))


def _upright(picture: Picture) -> Picture:
    """Return the picture with boxes and masks of the picture as a viewer shows it."""
    assert picture.path is not None
    lies = frame_in(picture.path)
    frame = Frame(lies.upright) if picture.upright else lies
    frame = frame.of_annotations(picture.size, str(picture.path))
    moved = tuple(_moved(one, frame, picture) for one in picture.annotations)
    return replace(picture, annotations=moved, size=lies.upright, upright=True)


def _moved(one: Annotated, frame: Frame, picture: Picture) -> Annotated:
    stored = xyxy_from_xywh(torch.tensor([one.box_xywh], dtype=torch.float64))
    x, y, w, h = xywh_from_xyxy(frame.boxes_upright(stored))[0].tolist()
    drawn = _moved_mask(one.segmentation, frame, f"{picture.path}: annotation {one.id}")
    return replace(one, box_xywh=(x, y, w, h), segmentation=drawn)


def _moved_mask(drawn: Any, frame: Frame, where: str) -> Any:
    """Move polygons point by point, and run lengths as pixels."""
    if not drawn or frame.orientation == 1:
        return drawn
    if isinstance(drawn, Mapping):
        return run_lengths(frame.pixels_upright(decode_mask(drawn, frame.stored, where)))
    moved = []
    for polygon in drawn:
        points = torch.tensor(polygon, dtype=torch.float64).reshape(-1, 2)
        moved.append(frame.boxes_upright(points.repeat(1, 2))[:, :2].flatten().tolist())
    return moved
