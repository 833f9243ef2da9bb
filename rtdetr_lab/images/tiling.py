r"""# Tiling: small objects in large pictures

If a 6000 px photograph is shrunk to 640 px, ten pixels become one, and an object of ten pixels is
lost. Tiling runs the model on overlapping windows, and on the whole picture for objects that are
larger than a window.

The difficult part is merging the detections. The border of a window *cuts* objects, and the model
finds the remaining half with a good score. So a box that touches an inner border is kept only if no
other window has a box of the same class that covers most of it. What is still found twice, in two
windows, is recognised by its IoU. Boxes of the same window are never compared: RT-DETR does not
predict an object twice, and two boxes in a crowd are two objects.

A mask moves with its box: a detection that is kept has the mask from its own window, and no more.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from rtdetr_lab.boxes import iou
from rtdetr_lab.config import require
from rtdetr_lab.images.postprocess import Found, covered, survivors
from rtdetr_lab.notation import Size

Window = tuple[int, int, int, int]
"""(top, left, bottom, right) in pixels."""


@dataclass(frozen=True)
class Tiling:
    """Square windows of `tile` pixels; neighbours share the fraction `overlap` of a window.

    An object that is smaller than the shared strip is complete in some window. A box counts as cut
    if it is nearer to an inner border than `touch`, a fraction of the window.
    """

    tile: int = 640
    overlap: float = 0.25
    touch: float = 0.01
    max_iou: float = 0.5
    max_covered: float = 0.7

    def __post_init__(self) -> None:
        require(self.tile >= 32, "tile", f"{self.tile} px is too small", "take 32 or more")
        what = f"{self.overlap} is not a fraction of a tile"
        require(0 <= self.overlap < 1, "overlap", what, "take 0.1 to 0.5")

    def windows(self, size: Size) -> list[Window]:
        """Return the whole picture first, then the tiles row by row.

        There are no tiles if the picture is no larger than a tile.
        """
        height, width = size
        whole = (0, 0, height, width)
        if max(size) <= self.tile:
            return [whole]
        rows, columns = self._spans(height), self._spans(width)
        return [whole, *((t, x, b, y) for (t, b), (x, y) in product(rows, columns))]

    def _spans(self, length: int) -> list[tuple[int, int]]:
        # Evenly spaced, so the last two tiles do not overlap almost completely.
        if length <= self.tile:
            return [(0, length)]
        step = max(1, int(self.tile * (1 - self.overlap)))
        count = -(-(length - self.tile) // step) + 1
        starts = [round(i * (length - self.tile) / (count - 1)) for i in range(count)]
        return [(start, start + self.tile) for start in starts]

    def merge(self, found: Sequence[Found], windows: Sequence[Window], size: Size) -> Found:
        """Merge the detections of all windows into one list.

        They come in pixels of their window, and the result is in pixels of the picture.
        """
        moved = [_moved(f, w) for f, w in zip(found, windows, strict=True)]
        cut = torch.cat([self._cut(m, w, size) for m, w in zip(moved, windows, strict=True)])
        window = torch.cat([torch.full_like(f.labels, i) for i, f in enumerate(found)])
        names = ("boxes_xyxy", "scores", "labels", "queries")
        both = Found(*(torch.cat([getattr(m, n) for m in moved]) for n in names))
        # Whole boxes before cut ones, each by score: an earlier box may remove a later one.
        order = both.scores.argsort(descending=True, stable=True)
        order = order[cut[order].long().argsort(stable=True)]
        order = order[self._kept(both.at(order), cut[order], window[order])]
        order = order[both.scores[order].argsort(descending=True, stable=True)]
        return replace(both.at(order), masks=_pasted(found, windows, size, order))

    def _kept(self, found: Found, cut: Tensor, window: Tensor) -> Bool[Tensor, " n"]:
        boxes, labels = found.boxes_xyxy, found.labels
        rival = (labels[:, None] == labels[None]) & (window[:, None] != window[None])
        same = iou(boxes, boxes) > self.max_iou
        part = cut[:, None] & (covered(boxes, boxes) > self.max_covered)
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
    """Return the masks of the detections in `order`, in pixels of the picture.

    `order` counts through all windows.
    """
    drawn = [f.masks for f in found if f.masks is not None]
    if len(drawn) < len(found):
        return None
    places = [(mask, w) for masks, w in zip(drawn, windows, strict=True) for mask in masks]
    pasted = drawn[0].new_zeros((len(order), *size))
    for one, i in zip(pasted, order.tolist(), strict=True):
        mask, (top, left, bottom, right) = places[i]
        one[top:bottom, left:right] = mask
    return pasted
