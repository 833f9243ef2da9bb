r"""# Tiling: small things in large pictures

A 6000 px photograph squeezed into 640 px makes ten pixels one, and what was ten pixels large is
gone. Tiling looks at overlapping windows one by one, and at the whole picture for what is larger
than a window.

Putting the answers together is where tilings go wrong. A window's border *cuts* things, and the
half that is left is found too, with a good score. So a box that touches an inner border is only
kept if no other window has found the same class covering most of it. What is left of the others
twice, from two windows, is recognised by its IoU. Boxes of one and the same window are never
compared with each other: RT-DETR does not repeat itself, and two in a crowd are two.

A mask moves with its box: who stays shows the pixels its own window saw, and nothing beyond.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from rtdetr_lab.boxes import area, iou
from rtdetr_lab.config import require
from rtdetr_lab.images.postprocess import Found, survivors
from rtdetr_lab.notation import Size

Window = tuple[int, int, int, int]
"""(top, left, bottom, right) in pixels."""


@dataclass(frozen=True)
class Tiling:
    """Square windows of `tile` pixels, neighbours sharing `overlap` of that.

    What is smaller than the shared strip lies whole in some window. `touch` is how near, as a
    fraction of the window, to an inner border counts as cut.
    """

    tile: int = 640
    overlap: float = 0.25
    touch: float = 0.01
    max_iou: float = 0.5
    max_covered: float = 0.7

    def __post_init__(self) -> None:
        require(self.tile >= 32, "tile", f"{self.tile} px is too small", "take 32 or more")
        what = f"{self.overlap} is no fraction of a tile"
        require(0 <= self.overlap < 1, "overlap", what, "take 0.1 to 0.5")

    def windows(self, size: Size) -> list[Window]:
        """The whole picture first, then the tiles row by row; alone if it is no larger than one."""
        height, width = size
        whole = (0, 0, height, width)
        if max(size) <= self.tile:
            return [whole]
        rows, columns = self._spans(height), self._spans(width)
        return [whole, *((t, x, b, y) for (t, b), (x, y) in product(rows, columns))]

    def _spans(self, length: int) -> list[tuple[int, int]]:
        # Evenly spread, so that the last two tiles do not share nearly everything.
        if length <= self.tile:
            return [(0, length)]
        step = max(1, int(self.tile * (1 - self.overlap)))
        count = -(-(length - self.tile) // step) + 1
        starts = [round(i * (length - self.tile) / (count - 1)) for i in range(count)]
        return [(start, start + self.tile) for start in starts]

    def merge(self, found: Sequence[Found], windows: Sequence[Window], size: Size) -> Found:
        """Merge detections of all windows, in window pixels, into one list in pixels of the
        picture."""
        moved = [_moved(f, w) for f, w in zip(found, windows, strict=True)]
        cut = torch.cat([self._cut(m, w, size) for m, w in zip(moved, windows, strict=True)])
        window = torch.cat([torch.full_like(f.labels, i) for i, f in enumerate(found)])
        names = ("boxes_xyxy", "scores", "labels", "queries")
        both = Found(*(torch.cat([getattr(m, n) for m in moved]) for n in names))
        # Whole ones before cut ones, each by score: who comes first may remove who comes later.
        order = both.scores.argsort(descending=True, stable=True)
        order = order[cut[order].long().argsort(stable=True)]
        order = order[self._kept(both.at(order), cut[order], window[order])]
        order = order[both.scores[order].argsort(descending=True, stable=True)]
        return replace(both.at(order), masks=_pasted(found, windows, size, order))

    def _kept(self, found: Found, cut: Tensor, window: Tensor) -> Bool[Tensor, " n"]:
        boxes, labels = found.boxes_xyxy, found.labels
        rival = (labels[:, None] == labels[None]) & (window[:, None] != window[None])
        same = iou(boxes, boxes) > self.max_iou
        part = cut[:, None] & (_covered(boxes) > self.max_covered)
        return survivors(rival & (same | part))

    def _cut(self, found: Found, window: Window, size: Size) -> Bool[Tensor, " n"]:
        top, left, bottom, right = window
        boxes, near = found.boxes_xyxy, self.touch * self.tile
        corners = ((left, top), (right, bottom), size[::-1])
        low, high, edge = (boxes.new_tensor(corner) for corner in corners)
        cut = (boxes[:, :2] < low + near) & (low > 0) | (boxes[:, 2:] > high - near) & (high < edge)
        return cut.any(1)


def _moved(found: Found, window: Window) -> Found:
    top, left, _, _ = window
    shift = found.boxes_xyxy.new_tensor([left, top, left, top])
    return replace(found, boxes_xyxy=found.boxes_xyxy + shift)


def _pasted(
    found: Sequence[Found], windows: Sequence[Window], size: Size, order: Int[Tensor, " n"]
) -> Bool[Tensor, "n _ _"] | None:
    """The masks of those in `order`, counted through all windows, in the picture's pixels."""
    drawn = [f.masks for f in found if f.masks is not None]
    if len(drawn) < len(found):
        return None
    places = [(mask, w) for masks, w in zip(drawn, windows, strict=True) for mask in masks]
    pasted = drawn[0].new_zeros((len(order), *size))
    for one, i in zip(pasted, order.tolist(), strict=True):
        mask, (top, left, bottom, right) = places[i]
        one[top:bottom, left:right] = mask
    return pasted


def _covered(boxes: Tensor) -> Tensor:
    """[i, j]: how much of box i lies inside box j."""
    low = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    inside = (high - low).clamp(min=0).prod(-1)
    return inside / area(boxes).clamp(min=1e-9)[:, None]
