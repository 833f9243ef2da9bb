r"""# Segment map: the segment of each pixel

The map has a number per pixel (0 for no segment) and a list that says what each number means. As a
picture, the number is a colour: $R + 256\,G + 256^2 B$. So black belongs to no segment. COCO stores
the truth of panoptic segmentation in this way, and panoptic quality compares such maps.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from rtdetr_lab.errors import DataError


def rgb_to_id(rgb: UInt8[np.ndarray, "H W 3"]) -> Int[np.ndarray, "H W"]:
    """Convert colours to segment ids."""
    return rgb.astype(np.int64) @ np.array([1, 256, 65536])


def id_to_rgb(ids: Int[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """Convert segment ids, 0 to 256³ - 1, to colours. Raises `DataError` for other ids."""
    if ids.size and not 0 <= ids.min() <= ids.max() < 256**3:
        what = f"ids from {ids.min()} to {ids.max()} do not fit into colours"
        raise DataError("ids", what, "number segments from 1 to 16777215")
    return np.stack([ids // 256**i % 256 for i in range(3)], axis=-1).astype(np.uint8)


@dataclass(frozen=True)
class TrueSegment:
    """A segment: its number in the map, its category's id, and whether it is a crowd."""

    id: int
    category_id: int
    is_crowd: bool = False


@dataclass(frozen=True, eq=False)
class SegmentMap:
    """The number of a segment per pixel, 0 for none, and the list of segments."""

    ids: Int[Tensor, "H W"]
    segments: tuple[TrueSegment, ...]


def check_listed(ids: Int[np.ndarray, "H W"], listed: set[int], where: str, remedy: str) -> None:
    """Raise `DataError` if a map and the list of its segments have different ids."""
    painted = set(np.unique(ids).tolist()) - {0}
    for what, odd in (
        ("painted and not listed", painted - listed),
        ("listed and not painted", listed - painted),
    ):
        if odd:
            some = ", ".join(map(str, sorted(odd)[:3]))
            message = f"{len(odd)} of {len(listed | painted)} segment ids are {what}: {some}"
            raise DataError(where, message, remedy)


def boxes_of(masks: Bool[Tensor, "T H W"]) -> Float[Tensor, "T 4"]:
    """Return the smallest box around each mask, as corners at the outer edges of pixels."""
    boxes = torch.zeros((len(masks), 4))
    for i, mask in enumerate(masks):
        ys, xs = mask.nonzero(as_tuple=True)
        if len(ys):
            boxes[i] = torch.stack((xs.min(), ys.min(), xs.max() + 1, ys.max() + 1))
    return boxes
