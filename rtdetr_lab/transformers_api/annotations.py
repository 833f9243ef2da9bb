r"""# Annotations: COCO's dictionaries to labels

Corners are clipped to the picture, crowds and boxes without area are left out: their processor's
rules, in its order, so that the numbers agree.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rtdetr_lab.errors import DataError
from rtdetr_lab.notation import Size

Annotated = dict[str, Any] | None
NEEDED = ("bbox", "category_id", "area")


def prepared(
    annotations: Any, pictures: Sequence[np.ndarray], kind: str = "coco_detection"
) -> list[Annotated]:
    """One label per picture, all None without annotations. Raises `DataError`."""
    if annotations is None:
        return [None] * len(pictures)
    several = [annotations] if isinstance(annotations, Mapping) else list(annotations)
    if len(several) != len(pictures):
        what = f"there are {len(pictures)} images and {len(several)} annotations"
        raise DataError("annotations", what, "give one dictionary per picture")
    return [
        _detection(one, (rgb.shape[0], rgb.shape[1]), f"annotations[{i}]")
        for i, (one, rgb) in enumerate(zip(several, pictures, strict=True))
    ]


def _detection(tree: Any, size: Size, where: str) -> dict[str, Any]:
    usable = isinstance(tree, Mapping) and {"image_id", "annotations"} <= set(tree)
    if not usable or not isinstance(tree["annotations"], list | tuple):
        what = "is not in the format coco_detection"
        remedy = 'give {"image_id": 1, "annotations": [{"bbox": …, "category_id": …, "area": …}]}'
        raise DataError(where, what, remedy)
    for i, one in enumerate(tree["annotations"]):
        if missing := [name for name in NEEDED if name not in one]:
            what = f"has no {', '.join(missing)}"
            raise DataError(f"{where}[annotations][{i}]", what, "add it, or leave the object out")
    objects = [one for one in tree["annotations"] if not one.get("iscrowd", 0)]
    height, width = size
    boxes = np.asarray([one["bbox"] for one in objects], dtype=np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    boxes[:, 0::2] = boxes[:, 0::2].clip(0, width)
    boxes[:, 1::2] = boxes[:, 1::2].clip(0, height)
    keep = (boxes[:, 3] > boxes[:, 1]) & (boxes[:, 2] > boxes[:, 0])
    return {
        "image_id": np.asarray([tree["image_id"]], dtype=np.int64),
        "class_labels": np.asarray([one["category_id"] for one in objects], np.int64)[keep],
        "boxes": boxes[keep],
        "area": np.asarray([one["area"] for one in objects], dtype=np.float32)[keep],
        "iscrowd": np.zeros(int(keep.sum()), dtype=np.int64),
        "orig_size": np.asarray(size, dtype=np.int64),
    }


def resized_annotation(label: Annotated, before: Sequence[int], after: Sequence[int]) -> Annotated:
    """Boxes and areas in the pixels of the resized picture."""
    if label is None:
        return None
    high, wide = (float(a) / float(b) for a, b in zip(after, before, strict=True))
    scale = np.asarray([wide, high, wide, high], dtype=np.float32)
    return {
        **label,
        "boxes": label["boxes"] * scale,
        "area": label["area"] * (wide * high),
        "size": np.asarray(after, dtype=np.int64),
    }
