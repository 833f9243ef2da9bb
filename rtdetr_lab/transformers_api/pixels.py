r"""# Pixels: sizes, canvases and tensors of the documented processors"""

from collections.abc import Iterable, Mapping, Sequence
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


class BatchFeature(dict[str, Any]):
    """Dictionary with its entries as attributes; `to` moves them to a device."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error

    @property
    def data(self) -> dict[str, Any]:
        """Entries as a plain dictionary."""
        return dict(self)

    def to(self, *args: Any, **kwargs: Any) -> "BatchFeature":
        """Move all tensors; a dtype changes only tensors of floats."""
        return BatchFeature({key: _moved(value, args, kwargs) for key, value in self.items()})


def _moved(value: Any, args: Any, kwargs: Any) -> Any:
    if isinstance(value, BatchFeature):
        return value.to(*args, **kwargs)
    if isinstance(value, list):
        return [_moved(one, args, kwargs) for one in value]
    if not isinstance(value, Tensor):
        return value
    if value.is_floating_point():
        return value.to(*args, **kwargs)
    places = [a for a in args if not isinstance(a, torch.dtype)]
    return value.to(*places, **{k: v for k, v in kwargs.items() if k != "dtype"})


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


def on_canvas(
    arrays: Sequence[np.ndarray], labels: Sequence[Any], pad_size: Any, fractions: bool
) -> tuple[list[np.ndarray], list[np.ndarray], list[Any]]:
    """Put pictures in the upper left of one canvas; return its mask, and boxes in its fractions."""
    room = max(a.shape[-2] for a in arrays), max(a.shape[-1] for a in arrays)
    if pad_size is not None:
        given = int(pad_size["height"]), int(pad_size["width"])
        fits = given[0] >= room[0] and given[1] >= room[1]
        what = f"is {given}, but the pictures need {room}"
        require(fits, "pad_size", what, "give a canvas at least as large")
        room = given
    canvases, masks, moved = [], [], []
    for array, label in zip(arrays, labels, strict=True):
        size = (array.shape[-2], array.shape[-1])
        canvases.append(_extended(array, room))
        masks.append(_extended(np.ones(size, np.int64), room))
        moved.append(_moved_label(label, size, room, fractions))
    return canvases, masks, moved


def _extended(array: np.ndarray, room: Size) -> np.ndarray:
    """Pad with zeros below and to the right."""
    beside = [(0, 0)] * (array.ndim - 2)
    beside += [(0, most - side) for most, side in zip(room, array.shape[-2:], strict=True)]
    return np.pad(array, beside)


def _moved_label(label: Any, inner: Size, outer: Size, fractions: bool) -> Any:
    if label is None or inner == outer:
        return label
    found: dict[str, Any] = {**label, "size": np.asarray(outer)}
    if fractions:
        ratio = np.asarray([inner[1] / outer[1], inner[0] / outer[0]] * 2)
        found["boxes"] = (label["boxes"] * ratio).astype(np.float32)
    if "masks" in label:
        found["masks"] = _extended(label["masks"], outer)
    return found


def formatted(array: np.ndarray, data_format: str) -> np.ndarray:
    """Put the channels first or last."""
    remedy = f"use {FIRST!r} or {LAST!r}"
    require(data_format in (FIRST, LAST), "data_format", f"is {data_format!r}", remedy)
    return array if data_format == FIRST else array.transpose(1, 2, 0)


def batched(values: Any, return_tensors: str | None) -> Any:
    """Return a list, one numpy array or one tensor, as requested."""
    known = return_tensors in (None, "pt", "np")
    require(known, "return_tensors", f"is {return_tensors!r}", "use 'pt', 'np' or None")
    if return_tensors is None:
        return values
    if isinstance(values, list) and len({np.shape(one) for one in values}) > 1:
        sizes = ", ".join(str(np.shape(one)) for one in values)
        remedy = "set do_pad=True or a fixed size"
        raise ImageError("images", f"have different sizes ({sizes})", remedy)
    stacked = np.stack(values) if isinstance(values, list) else np.asarray(values)
    return torch.from_numpy(np.ascontiguousarray(stacked)) if return_tensors == "pt" else stacked


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
