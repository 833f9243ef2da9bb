"""# Export: the shapes world as files that any detector reads

    DIR/train.json  DIR/val.json  DIR/images/train_000000.png …  DIR/shapes.json

COCO's format: category ids from 1, masks as run lengths, PNG because JPEG would blur the edges the
boxes are exact about.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rtdetr_lab.config_json import to_json
from rtdetr_lab.data.convert import new_folder, write_annotations
from rtdetr_lab.data.rle import encode_mask
from rtdetr_lab.data.shapes import SHAPE_NAMES, TRAIN, VAL, ShapesConfig, ShapesPicture, draw
from rtdetr_lab.errors import DataError

DEFAULT = ShapesConfig()


def export_coco(
    folder: str | Path,
    count: int,
    val_count: int | None = None,
    config: ShapesConfig = DEFAULT,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> list[Path]:
    """Write `count` training pictures and `val_count` (default: a fifth of it) others for
    validation; returns the annotation files.

    Raises `DataError` where `folder` already holds something else.
    """
    if count < 1:
        raise DataError("count", f"is {count}", "give at least 1")
    folder = new_folder(folder)
    val_count = max(1, count // 5) if val_count is None else val_count
    (folder / "shapes.json").write_text(to_json(config) + "\n", encoding="utf8")
    written = []
    for split, seed, number in (("train", TRAIN, count), ("val", VAL, val_count)):
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index in progress(range(number)):
            picture, name = draw(config, seed, index), f"images/{split}_{index:06d}.png"
            pixels = np.ascontiguousarray(picture.image)
            Image.fromarray(pixels).save(folder / name, compress_level=1)
            height, width = picture.instances.shape
            images.append({"id": index, "file_name": name, "width": width, "height": height})
            annotations += _annotations(picture, index, len(annotations) + 1)
        path = folder / f"{split}.json"
        written.append(write_annotations(path, SHAPE_NAMES, images, annotations))
    return written


def _annotations(picture: ShapesPicture, image_id: int, first: int) -> list[dict[str, Any]]:
    return [
        {
            "id": first + i,
            "image_id": image_id,
            "category_id": int(picture.labels[i]) + 1,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": int(picture.areas[i]),
            "iscrowd": 0,
            "segmentation": encode_mask(picture.masks[i]),
        }
        for i, (x0, y0, x1, y1) in enumerate(picture.boxes_xyxy.tolist())
    ]
