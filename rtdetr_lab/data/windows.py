r"""# Windows: zoom out to a larger canvas, or crop

`ZoomOut` puts the picture on a larger black canvas, so objects become small. `IoUCrop` cuts a part
out, so objects become large and are cut off at the border. Both move a window over the plane of the
picture: $x_\text{new} = (x - \text{left}) / \text{width}$.

An object belongs to a crop if its centre lies inside or, in DETR, if any part of it does. Its box
and its mask are then cut off at the border. (The visible part of a slanted object may be smaller
than its cut-off box. We do not shrink the box, because training must not depend on whether masks
are loaded.)

The numbers are those of SSD's crop (Liu et al., 2016); the recipe uses the same.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from rtdetr_lab.boxes import cxcywh_from_xyxy, iou, xyxy_from_cxcywh
from rtdetr_lab.config import require, require_at_least, require_between
from rtdetr_lab.data.batch import Sample
from rtdetr_lab.data.transforms import select
from rtdetr_lab.notation import Size


@dataclass(frozen=True)
class Window:
    """A rectangle of whole pixels in the plane of a picture; it may reach beyond the picture."""

    left: int
    top: int
    width: int
    height: int

    def move(self, boxes: Float[Tensor, "T 4"], size: Size) -> Float[Tensor, "T 4"]:
        """Convert boxes (cxcywh), fractions of a picture of `size`, to fractions of the window."""
        height, width = size
        scale = boxes.new_tensor([width / self.width, height / self.height] * 2)
        shift = boxes.new_tensor([self.left / self.width, self.top / self.height, 0, 0])
        return boxes * scale - shift


def paste(sample: Sample, window: Window) -> Sample:
    """Return a window that contains the whole picture; it is black outside the picture."""
    height, width = sample.image_size
    right, bottom = window.width + window.left - width, window.height + window.top - height
    margins = (-window.left, right, -window.top, bottom)
    # Pad with the three numbers of a pixel side by side: Pillow needs this layout next.
    pixels = pad(sample.image.permute(1, 2, 0), (0, 0, *margins))
    return replace(
        sample,
        image=pixels.permute(2, 0, 1),
        boxes=window.move(sample.boxes, (height, width)),
        masks=sample.masks_after(lambda masks: pad(masks, margins)),
    )


Belongs = Callable[[Tensor], Tensor]
"""Selects the objects that belong to a window; their boxes are fractions of the window."""


def holds_centre(boxes: Float[Tensor, "T 4"]) -> Bool[Tensor, " T"]:
    """Select the objects with their centre inside."""
    return ((boxes[:, :2] > 0) & (boxes[:, :2] < 1)).all(1)


def shows_something(boxes: Float[Tensor, "T 4"]) -> Bool[Tensor, " T"]:
    """Select the objects with any part inside."""
    corners = xyxy_from_cxcywh(boxes)
    return ((corners[:, :2] < 1) & (corners[:, 2:] > 0)).all(1)


def crop(sample: Sample, window: Window, belongs: Belongs = holds_centre) -> Sample:
    """Return a window inside the picture, with the objects that belong to it."""
    size = (sample.image.shape[-2], sample.image.shape[-1])
    boxes = window.move(sample.boxes, size)
    inside = belongs(boxes)
    boxes = cxcywh_from_xyxy(xyxy_from_cxcywh(boxes).clamp(0, 1))
    rows = slice(window.top, window.top + window.height)
    columns = slice(window.left, window.left + window.width)
    masks = sample.masks_after(lambda masks: masks[:, rows, columns])
    part = replace(sample, image=sample.image[:, rows, columns], boxes=boxes, masks=masks)
    return select(part, inside)


@dataclass(frozen=True)
class ZoomOut:
    """Puts the picture, with probability `p`, anywhere on a canvas that is 1 to `largest` times as
    wide and as high."""

    p: float = 0.5
    largest: float = 4.0

    def __post_init__(self) -> None:
        require_between(0, 1, "", p=self.p)
        require_at_least(1, "", largest=self.largest)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.p:
            return sample
        height, width = sample.image_size
        ratio = rng.uniform(1, self.largest)
        tall, wide = int(height * ratio), int(width * ratio)
        left, top = int((wide - width) * rng.random()), int((tall - height) * rng.random())
        return paste(sample, Window(-left, -top, wide, tall))


Tries = Int[np.ndarray, "N 4"]


@dataclass(frozen=True)
class IoUCrop:
    """Crops, with probability `p`, a window that overlaps an object by at least a drawn IoU.

    The sides are `smallest` to 1 of the picture's; their ratio is at most 2. A drawn overlap of 1
    means the whole picture, and so does a picture without objects. After `tries` windows without
    success, another overlap is drawn.
    """

    p: float = 0.8
    smallest: float = 0.3
    overlaps: tuple[float, ...] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
    tries: int = 40

    def __post_init__(self) -> None:
        require_between(0, 1, "", p=self.p)
        require(0 < self.smallest <= 1, "smallest", f"is {self.smallest}", "give a part up to 1")
        ends = self.overlaps and max(self.overlaps) >= 1
        require(ends, "overlaps", f"are {self.overlaps}", "add 1: it means the whole picture")
        require_at_least(1, "", tries=self.tries)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if rng.random() >= self.p or not len(sample.boxes):
            return sample
        height, width = sample.image_size
        edges = np.array([width, height, width, height])
        boxes = xyxy_from_cxcywh(sample.boxes).double().numpy() * edges
        while (overlap := float(rng.choice(self.overlaps))) < 1:
            tried = self._windows((height, width), rng)
            good = np.flatnonzero(holds_an_object(tried, boxes, overlap))
            if len(good):
                left, top, right, bottom = tried[good[0]].tolist()
                return crop(sample, Window(left, top, right - left, bottom - top))
        return sample

    def _windows(self, size: Size, rng: np.random.Generator) -> Tries:
        """Draw `tries` windows (xyxy), and return those that are neither too flat nor too slim."""
        picture = np.array(size[::-1])
        parts, places = rng.random((2, self.tries, 2))
        sides = (picture * (self.smallest + (1 - self.smallest) * parts)).astype(np.int64).clip(1)
        corners = ((picture - sides) * places).astype(np.int64)
        ratio = sides[:, 0] / sides[:, 1]
        return np.concatenate([corners, corners + sides], axis=1)[(ratio >= 0.5) & (ratio <= 2)]


def holds_an_object(
    windows: Tries, boxes_xyxy: Float[np.ndarray, "T 4"], overlap: float
) -> Bool[np.ndarray, "N"]:
    """Return a mask of windows that contain the centre of a box and overlap it by an IoU of at
    least `overlap`."""
    window, box = windows[:, None].astype(np.float64), boxes_xyxy[None]
    centre = (box[..., :2] + box[..., 2:]) / 2
    centred = ((centre > window[..., :2]) & (centre < window[..., 2:])).all(-1)
    shared = iou(torch.from_numpy(window[:, 0]), torch.from_numpy(boxes_xyxy)).numpy()
    return (centred & (shared >= overlap)).any(1)
