r"""# Batches: canvases and tensors of the documented processors"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rtdetr_lab.config import require
from rtdetr_lab.errors import ImageError
from rtdetr_lab.notation import Size
from rtdetr_lab.transformers_api.pixels import FIRST, LAST


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


def padded(images: Sequence[Any], pad_size: Any, with_mask: bool, tensors: Any) -> BatchFeature:
    """Put prepared pictures (C H W) on one canvas, with its mask if requested."""
    arrays = [np.asarray(one) for one in images]
    canvases, masks, _ = on_canvas(arrays, [None] * len(arrays), pad_size, True)
    found = {"pixel_values": canvases, **({"pixel_mask": masks} if with_mask else {})}
    return BatchFeature({name: batched(values, tensors) for name, values in found.items()})


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
