"""# Export: the shapes world as files that any detector reads

    DIR/train.json  DIR/val.json  DIR/images/train_000000.png …  DIR/shapes.json

COCO's format: category ids from 1, masks as run lengths, PNG because JPEG would blur the edges the
boxes are exact about.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from rtdetr_lab.config_json import to_json
from rtdetr_lab.data.annotated import Progress
from rtdetr_lab.data.convert import Row, annotation, new_folder, write_annotations
from rtdetr_lab.data.rle import encode_mask
from rtdetr_lab.data.shapes import DEFAULT, SHAPE_NAMES, TRAIN, VAL, ShapesConfig, draw
from rtdetr_lab.errors import DataError


def export_coco(
    folder: str | Path,
    count: int,
    val_count: int | None = None,
    config: ShapesConfig = DEFAULT,
    progress: Progress = iter,
) -> list[Path]:
    """Write `count` training pictures and `val_count` (default: a fifth of it) others for
    validation; returns the annotation files.

    Raises `DataError` where `folder` already holds something else.
    """
    if count < 1:
        raise DataError("count", f"is {count}", "give at least 1")
    folder = new_folder(folder)
    (folder / "shapes.json").write_text(to_json(config) + "\n", encoding="utf8")
    written = []
    counts = {"train": count, "val": max(1, count // 5) if val_count is None else val_count}
    for (split, number), seed in zip(counts.items(), (TRAIN, VAL), strict=True):
        drawn = _drawn(folder, f"images/{split}", config, seed, progress(range(number)))
        written.append(write_annotations(folder / f"{split}.json", SHAPE_NAMES, drawn))
    return written


def _drawn(
    folder: Path, start: str, config: ShapesConfig, seed: int, numbers: Iterable[int]
) -> Iterator[Row]:
    """Draw and write pictures, one by one."""
    for index in numbers:
        picture, name = draw(config, seed, index), f"{start}_{index:06d}.png"
        pixels = np.ascontiguousarray(picture.image)
        Image.fromarray(pixels).save(folder / name, compress_level=1)
        boxes = picture.boxes_xyxy.tolist()
        labels, areas = picture.labels.tolist(), picture.areas.astype(int).tolist()
        annotations = [
            annotation(labels[i], (x0, y0, x1 - x0, y1 - y0), areas[i], encode_mask(mask))
            for i, (mask, (x0, y0, x1, y1)) in enumerate(zip(picture.masks, boxes, strict=True))
        ]
        yield index, name, (config.size, config.size), annotations
