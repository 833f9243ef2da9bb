r"""# Pixels: pictures in and boxes out of the documented processors"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rtdetr_lab.config import require
from rtdetr_lab.errors import ImageError
from rtdetr_lab.images.arrays import SLACK
from rtdetr_lab.images.decode import decode
from rtdetr_lab.images.postprocess import Found
from rtdetr_lab.images.preprocess import resized
from rtdetr_lab.notation import Size

FIRST, LAST = "channels_first", "channels_last"


ONLY: dict[str, Any] = {
    "do_convert_rgb": True,
    "do_center_crop": False,
    "crop_size": None,
    "default_to_square": False,
}
"""Options of the torchvision processors → the only value that we support."""


def without_fast(options: Mapping[str, Any]) -> dict[str, Any]:
    """Drop the options that exist only for torchvision."""
    told = {name: v for name, v in options.items() if v is not None and name != "disable_grouping"}
    for name, value in ONLY.items():
        found = told.pop(name, value)
        what = f"is {found!r}, but only {value!r} is supported here"
        require(found == value, name, what, "leave it out")
    return told


def as_pictures(images: Any, input_data_format: str | None) -> list[np.ndarray]:
    """Decode one picture or several to RGB bytes."""
    known = input_data_format in (None, FIRST, LAST)
    what = f"is {input_data_format!r}"
    require(known, "input_data_format", what, f"use {FIRST!r} or {LAST!r}")
    several = _listed(images)
    return [_picture(one, input_data_format, f"images[{i}]") for i, one in enumerate(several)]


def in_fractions(images: Any) -> list[bool]:
    """Mark pictures that are floats in [0, 1]; for them there is `do_rescale=False`."""
    return [_is_fraction(one) for one in _listed(images)]


def _listed(images: Any) -> list[Any]:
    batch = isinstance(images, np.ndarray | Tensor) and images.ndim == 4
    several = list(images) if batch or isinstance(images, list | tuple) else [images]
    if not several:
        raise ImageError("images", "is empty", "give at least one picture")
    return several


def _is_fraction(one: Any) -> bool:
    known = isinstance(one, np.ndarray | Tensor)
    return known and "float" in str(one.dtype) and float(one.max()) <= 1 + SLACK


def _picture(one: Any, input_data_format: str | None, where: str) -> np.ndarray:
    if input_data_format is not None and isinstance(one, np.ndarray | Tensor):
        one = np.asarray(one)
        one = one.transpose(1, 2, 0) if input_data_format == FIRST else one
    return decode(one, where=where)


def target_size(before: Size, size: Any) -> Size:
    """Compute the new (height, width); `size` may have any of its documented forms."""
    height, width = before
    require(isinstance(size, int | Mapping), "size", f"is {size!r}", "give a mapping or a number")
    if isinstance(size, int):
        size = {"shortest_edge": size, "longest_edge": 10**9}
    given = {key: value for key, value in dict(size).items() if value is not None}
    usable = all(type(value) is int and value > 0 for value in given.values())
    remedy = "give height and width, shortest_edge and longest_edge, or max_height and max_width"
    require(usable, "size", f"is {dict(size)}", remedy)
    if {"height", "width"} <= set(given):
        return given["height"], given["width"]
    if {"shortest_edge", "longest_edge"} <= set(given):
        return resized(before, (given["shortest_edge"], given["longest_edge"]))
    require({"max_height", "max_width"} <= set(given), "size", f"is {dict(size)}", remedy)
    scale = min(given["max_height"] / height, given["max_width"] / width)
    return max(1, int(height * scale)), max(1, int(width * scale))


def resized_picture(rgb: np.ndarray, size: Any, resample: int) -> np.ndarray:
    """Resize with Pillow and the requested filter."""
    before = (rgb.shape[0], rgb.shape[1])
    height, width = target_size(before, size)
    filters = {int(f) for f in Image.Resampling}
    require(resample in filters, "resample", f"is {resample}", f"use one of {sorted(filters)}")
    picture = Image.fromarray(rgb).resize((width, height), Image.Resampling(resample))
    return np.asarray(picture)


def as_dictionaries(founds: Iterable[Found]) -> list[dict[str, Tensor]]:
    """Return `scores`, `labels` and `boxes` per picture, as documented."""
    return [
        {"scores": found.scores, "labels": found.labels, "boxes": found.boxes_xyxy}
        for found in founds
    ]


def sizes_of(target_sizes: Any, count: int) -> list[Size]:
    """Return (height, width) per picture; without sizes 1 × 1, so that boxes stay fractions."""
    if target_sizes is None:
        return [(1, 1)] * count
    remedy = "give one (height, width) of 1 pixel or more per picture"
    try:
        listed = isinstance(target_sizes, list | tuple)
        plain = [one.tolist() if isinstance(one, Tensor) else one for one in target_sizes]
        given = torch.as_tensor(plain if listed else target_sizes)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ImageError("target_sizes", f"is {target_sizes!r}", remedy) from error
    if given.ndim != 2 or given.shape[1] != 2 or bool((given < 1).any()):
        raise ImageError("target_sizes", f"is {given.tolist()}", remedy)
    return [(int(h), int(w)) for h, w in given.tolist()]
