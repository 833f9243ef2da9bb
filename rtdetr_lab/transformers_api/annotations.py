r"""# Annotations: COCO's dictionaries to labels

We clip corners to the picture, and leave out crowds and boxes without area. These are the rules of
their processor, in its order, so that the numbers agree. Panoptic annotations are in
`panoptic_annotations.py`.

| format           | one picture's annotation                                              |
|------------------|-----------------------------------------------------------------------|
| `coco_detection` | `{"image_id", "annotations": [{"bbox", "category_id", "area", …}]}`   |
| `coco_panoptic`  | `{"image_id", "file_name", "segments_info": [{"id", "category_id"}]}` |
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rtdetr_lab.boxes import cxcywh_from_xyxy, xyxy_from_xywh
from rtdetr_lab.config import require
from rtdetr_lab.data.batch import clip
from rtdetr_lab.data.rle import decode_mask
from rtdetr_lab.errors import DataError
from rtdetr_lab.notation import Size
from rtdetr_lab.transformers_api.panoptic_annotations import panoptic_label

Annotated = dict[str, Any] | None
NEEDED = ("bbox", "category_id", "area")


@dataclass(frozen=True)
class Wanted:
    """Requested annotation format.

    It has the format, the option for masks (None: only panoptic annotations get masks), the folder
    of the PNGs, and a flag that is True if this call itself requests masks.
    """

    format: str
    masks: bool | None
    masks_path: Any
    asks_for_masks: bool


def prepared(annotations: Any, pictures: Sequence[np.ndarray], wanted: Wanted) -> list[Annotated]:
    """Convert annotations to one label per picture, all None without annotations.

    Raises `DataError` or `ConfigError`.
    """
    if annotations is None:
        what, remedy = "is set without annotations", "give annotations too, or leave it out"
        require(not wanted.asks_for_masks, "return_segmentation_masks", what, remedy)
        require(wanted.masks_path is None, "masks_path", "is given without annotations", remedy)
        return [None] * len(pictures)
    panoptic = wanted.format == "coco_panoptic"
    what = f"is {'not ' if panoptic else ''}given for the format {wanted.format}"
    remedy = "give the folder of the PNGs for coco_panoptic, and for no other format"
    require((wanted.masks_path is not None) == panoptic, "masks_path", what, remedy)
    known = isinstance(annotations, Mapping | Sequence) and not isinstance(annotations, str)
    what, remedy = f"is a {type(annotations).__name__}", "give one dictionary per picture"
    require(known, "annotations", what, remedy, DataError)
    several = [annotations] if isinstance(annotations, Mapping) else list(annotations)
    what = f"there are {len(pictures)} images and {len(several)} annotations"
    require(len(several) == len(pictures), "annotations", what, remedy, DataError)
    made: list[Annotated] = []
    for i, (one, rgb) in enumerate(zip(several, pictures, strict=True)):
        size, where = (rgb.shape[0], rgb.shape[1]), f"annotations[{i}]"
        if panoptic:
            drawn = wanted.masks is not False
            made.append(panoptic_label(one, size, wanted.masks_path, drawn, where))
        else:
            made.append(_detection(one, size, bool(wanted.masks), where))
    return made


def _detection(tree: Any, size: Size, masks: bool, where: str) -> dict[str, Any]:
    objects = _objects(tree, masks, where)
    given = np.asarray([one["bbox"] for one in objects], dtype=np.float32).reshape(-1, 4)
    boxes = clip(xyxy_from_xywh(torch.from_numpy(given)), size).numpy()
    keep = (boxes[:, 3] > boxes[:, 1]) & (boxes[:, 2] > boxes[:, 0])
    label = {
        "image_id": np.asarray([tree["image_id"]], dtype=np.int64),
        "class_labels": np.asarray([one["category_id"] for one in objects], np.int64)[keep],
        "boxes": boxes[keep],
        "area": np.asarray([one["area"] for one in objects], dtype=np.float32)[keep],
        "iscrowd": np.zeros(int(keep.sum()), dtype=np.int64),
        "orig_size": np.asarray(size, dtype=np.int64),
    }
    if objects and all("keypoints" in one for one in objects):
        points = [np.asarray(one["keypoints"], np.float32).reshape(-1, 3) for one in objects]
        # As theirs: one row per point, in pixels of the picture before resizing.
        label["keypoints"] = np.stack(points)[keep].reshape(-1, 3)
    if masks:
        drawn = [
            decode_mask(one["segmentation"], size, f"{where}[annotations][{i}]")
            for i, one in enumerate(objects)
        ]
        label["masks"] = np.asarray(drawn, dtype=bool).reshape(-1, *size)[keep]
    return label


def _check_object(one: Mapping[str, Any], where: str) -> None:
    whole_number(one["category_id"], f"{where}[category_id]")
    box = one["bbox"]
    listed = isinstance(box, list | tuple | np.ndarray) and len(box) == 4
    usable = listed and all(map(is_number, box))
    remedy = "give left, top, width and height in pixels"
    require(usable, f"{where}[bbox]", f"is {box!r}", remedy, DataError)
    usable, what = is_number(one["area"]), f"is {one['area']!r}"
    require(usable, f"{where}[area]", what, "give a number of pixels", DataError)


def plain(value: Any) -> Any:
    """Return a tensor or an array of numbers as numbers; other values stay."""
    return value.tolist() if isinstance(value, Tensor | np.ndarray | np.generic) else value


def is_number(value: Any) -> bool:
    """Return True for a finite number."""
    return isinstance(value, Real) and math.isfinite(value)


def whole_number(value: Any, where: str) -> None:
    """Raise `DataError` unless `value` is a whole number."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    require(whole, where, f"is {value!r}", "give a whole number", DataError)


def _objects(tree: Any, masks: bool, where: str) -> list[Mapping[str, Any]]:
    usable = isinstance(tree, Mapping) and {"image_id", "annotations"} <= set(tree)
    usable = usable and isinstance(tree["annotations"], list | tuple)
    remedy = 'give {"image_id": 1, "annotations": [{"bbox": …, "category_id": …, "area": …}]}'
    require(usable, where, "is not in the format coco_detection", remedy, DataError)
    needed = (*NEEDED, "segmentation") if masks else NEEDED
    listed = [{name: plain(v) for name, v in one.items()} for one in tree["annotations"]]
    for i, one in enumerate(listed):
        missing, at = [n for n in needed if n not in one], f"{where}[annotations][{i}]"
        what = f"has no {', '.join(missing)}"
        require(not missing, at, what, "add it, or remove the object", DataError)
        _check_object(one, at)
    whole_number(plain(tree["image_id"]), f"{where}[image_id]")
    return [one for one in listed if not one.get("iscrowd", 0)]


def resized_annotation(label: Annotated, before: Sequence[int], after: Sequence[int]) -> Annotated:
    """Scale boxes, areas and masks to the pixels of the resized picture."""
    if label is None:
        return None
    high, wide = (float(a) / float(b) for a, b in zip(after, before, strict=True))
    found: dict[str, Any] = {
        **label,
        "boxes": label["boxes"] * np.asarray([wide, high] * 2, dtype=np.float32),
        "area": label["area"] * (wide * high),
        "size": np.asarray(after, dtype=np.int64),
    }
    if "masks" in label:
        size = (int(after[1]), int(after[0]))
        small = [Image.fromarray(mask.astype(np.uint8)) for mask in label["masks"]]
        large = [np.asarray(mask.resize(size, Image.Resampling.NEAREST)) > 0 for mask in small]
        found["masks"] = np.asarray(large, dtype=bool).reshape(-1, *after)
    return found


def as_fractions(label: Annotated, size: Sequence[int]) -> Annotated:
    """Convert boxes to centres and sizes, as fractions of the picture."""
    if label is None:
        return None
    boxes = cxcywh_from_xyxy(torch.from_numpy(label["boxes"])).numpy()
    return {**label, "boxes": boxes / np.asarray([size[1], size[0]] * 2, dtype=np.float32)}
