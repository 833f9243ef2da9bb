r"""# Panoptic annotations: labels from a list of segments and a PNG

The colour of a pixel is the id of its segment (`data/coco_panoptic.py`). The PNG and the list must
contain the same ids; otherwise there is an error.

Boxes reach from the first to the last pixel of a mask, as in transformers and in the authors' code.
`data/coco_panoptic.py` goes to the outer edge of the last pixel. Crowds stay, marked `iscrowd`.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rtdetr_lab.config import require
from rtdetr_lab.data.segment_map import boxes_of, check_listed
from rtdetr_lab.data.segment_map import rgb_to_id as ids_of
from rtdetr_lab.errors import DataError
from rtdetr_lab.images.decode import read_photo
from rtdetr_lab.notation import Size

LAST_PIXEL = np.array([0, 0, 1, 1], dtype=np.float32)


def rgb_to_id(color: Any) -> Any:
    """Convert colours to segment ids: an array (H, W, 3) to an array, one colour to a number."""
    colours = np.asarray(color)
    whole = colours.dtype.kind in "ui" or (colours.dtype.kind == "f" and (colours % 1 == 0).all())
    fits = whole and colours.shape[-1:] == (3,)
    fits = fits and (not colours.size or 0 <= colours.min() <= colours.max() < 256)
    what = f"has shape {colours.shape} and values that are not colours"
    remedy = "give red, green and blue, 0 to 255, on the last axis"
    require(fits, "color", what, remedy, DataError)
    ids = ids_of(colours.astype(np.uint8).reshape(-1, 1, 3)).reshape(colours.shape[:-1])
    return ids if ids.ndim else int(ids)


def panoptic_label(tree: Any, size: Size, folder: Any, masks: bool, where: str) -> dict[str, Any]:
    """Make the label of one picture. Raises `DataError`, or `ConfigError` for the folder."""
    usable = isinstance(tree, Mapping) and {"file_name", "segments_info"} <= set(tree)
    usable = usable and bool({"image_id", "id"} & set(tree))
    remedy = 'give {"image_id": 1, "file_name": "1.png", "segments_info": [{"id": …, …}]}'
    require(usable, where, "is not in the format coco_panoptic", remedy, DataError)
    is_path = isinstance(folder, str | os.PathLike)
    require(is_path, "masks_path", f"is a {type(folder).__name__}", "give the folder of the PNGs")
    segments = _segments(tree["segments_info"], where)
    ids = _ids(Path(folder), str(tree["file_name"]), size, where)
    check_listed(ids, {s["id"] for s in segments}, where, "correct the PNG or segments_info")
    drawn = ids == np.asarray([s["id"] for s in segments], dtype=np.int64)[:, None, None]
    areas = [s.get("area", int(mask.sum())) for s, mask in zip(segments, drawn, strict=True)]
    label = {
        "image_id": np.asarray([tree.get("image_id", tree.get("id"))], dtype=np.int64),
        "size": np.asarray(size, dtype=np.int64),
        "orig_size": np.asarray(size, dtype=np.int64),
        "boxes": boxes_of(torch.from_numpy(drawn)).numpy() - LAST_PIXEL,
        "class_labels": np.asarray([s["category_id"] for s in segments], dtype=np.int64),
        "iscrowd": np.asarray([s.get("iscrowd", 0) for s in segments], dtype=np.int64),
        "area": np.asarray(areas, dtype=np.float32),
    }
    return label | ({"masks": drawn} if masks else {})


def _segments(segments: Any, where: str) -> list[Mapping[str, Any]]:
    for i, one in enumerate(segments):
        missing = [name for name in ("id", "category_id") if name not in one]
        what = f"has no {', '.join(missing)}"
        require(not missing, f"{where}[segments_info][{i}]", what, "add it", DataError)
    return list(segments)


def _ids(folder: Path, name: str, size: Size, where: str) -> Any:
    below, at = not Path(name).is_absolute() and ".." not in Path(name).parts, f"{where}[file_name]"
    require(below, at, f"{name!r} is outside masks_path", "give a name inside it", DataError)
    what, remedy = f"there is no {folder / name}", "give the folder of the PNGs as masks_path"
    require((folder / name).is_file(), at, what, remedy, DataError)
    raster = read_photo(folder / name).raster
    what = f"{name} is {raster.shape[0]}×{raster.shape[1]}, "
    what += f"but the picture is {size[0]}×{size[1]} (height × width)"
    require(raster.shape[:2] == size, where, what, "give the PNG of this picture", DataError)
    return ids_of(raster)
