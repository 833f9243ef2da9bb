"""# The scene: what lies in front of what, and what remains visible

A thing becomes a stamp once: its coverage and its mask on a window just large enough. Trying
another place moves the window and computes nothing anew, which is what makes crowds affordable.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64

from rtdetr_lab.data.shapes_outlines import Outline, Plane
from rtdetr_lab.data.shapes_paint import Canvas, Colour, Rng, colour, fill
from rtdetr_lab.data.shapes_plan import ShapesConfig, Thing

TRIES = 8
"""How often a thing looks for a place before it stays out of the picture."""

Window = tuple[slice, slice]
Mask = Bool[np.ndarray, "h w"]


@dataclass(frozen=True, eq=False)
class Stamp:
    """An outline turned, scaled and laid on pixels; x, y are in units of the outline."""

    x: Plane
    y: Plane
    distance: Plane
    half: int

    @classmethod
    def of(cls, outline: Outline, side: float, rng: Rng) -> "Stamp":
        """With a random parameter and turn, and its centre anywhere within a pixel."""
        parameter = rng.uniform(*outline.parameter)
        turn = math.radians(rng.uniform(*outline.turn))
        scale = side / math.sqrt(outline.area(parameter))
        half = math.ceil(scale * outline.reach(parameter)) + 2
        steps = np.arange(-half, half, dtype=np.float32) + np.float32(0.5)
        across = (steps - np.float32(rng.random() - 0.5)) / np.float32(scale)
        down = ((steps - np.float32(rng.random() - 0.5)) / np.float32(scale))[:, None]
        cosine, sine = np.float32(math.cos(turn)), np.float32(math.sin(turn))
        x, y = cosine * across + sine * down, cosine * down - sine * across
        return cls(x, y, outline.distance(x, y, parameter) * np.float32(scale), half)

    def windows(self, centre: tuple[int, int], size: int) -> tuple[Window, Window] | None:
        """The part of the picture, and the same part of the stamp; None if they do not meet."""
        picture, stamp = [], []
        for middle in centre:
            low, high = max(0, middle - self.half), min(size, middle + self.half)
            if low >= high:
                return None
            picture.append(slice(low, high))
            stamp.append(slice(low - middle + self.half, high - middle + self.half))
        return (picture[0], picture[1]), (stamp[0], stamp[1])


class Scene:
    """A canvas, and which object is seen at each of its pixels (0: none, -1: clutter)."""

    def __init__(self, config: ShapesConfig, rng: Rng, canvas: Canvas) -> None:
        self.config, self.rng, self.canvas = config, rng, canvas
        self.instances = np.zeros(canvas.shape[1:], dtype=np.int16)
        self.labels: list[int] = []
        self.whole: list[int] = []
        self.seen: list[int] = []
        self.windows: list[Window] = []

    def add(self, thing: Thing) -> None:
        """Paint a thing where it may be, or nowhere."""
        stamp = Stamp.of(thing.outline, thing.side, self.rng)
        mask = stamp.distance <= 0
        whole = int(np.count_nonzero(mask))
        for _ in range(TRIES):
            windows = stamp.windows(self._centre(thing, stamp.half), self.config.size)
            if windows is None:
                continue
            window, part = windows
            inside = mask[part]
            num_inside = int(np.count_nonzero(inside))
            shown = num_inside >= self.config.min_visible * whole or thing.label is None
            if not shown or not self._spare(window, inside):
                continue
            self._paint(stamp, window, part)
            self._write(thing.label, window, inside, whole, num_inside)
            return

    def truth(
        self,
    ) -> tuple[Int64[np.ndarray, "T"], Float32[np.ndarray, "T 4"], Float32[np.ndarray, "T"]]:
        """Labels, boxes of the visible pixels, and the visible part of every object."""
        boxes = np.zeros((len(self.labels), 4), dtype=np.float32)
        for i, window in enumerate(self.windows):
            rows, columns = window
            mask = self.instances[window] == i + 1
            y, x = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            boxes[i] = (x[0], y[0], x[-1] + 1, y[-1] + 1)
            boxes[i] += (columns.start, rows.start, columns.start, rows.start)
        visible = np.array(self.seen, np.float32) / np.array(self.whole, np.float32)
        return np.array(self.labels, np.int64), boxes, visible

    def _centre(self, thing: Thing, half: int) -> tuple[int, int]:
        if thing.near is not None:
            spread = thing.side * 1.6
            y, x = (n + self.rng.normal(0, spread) for n in thing.near)
            return round(y), round(x)
        # Up to about a quarter of a thing may lie outside the picture.
        margin = min(half * 0.4, self.config.size / 2)
        y, x = self.rng.uniform(margin, self.config.size - margin, 2)
        return round(y), round(x)

    def _spare(self, window: Window, mask: Mask) -> bool:
        """May these pixels be covered? And if so, count what is lost."""
        lost = np.bincount(self.instances[window][mask] + 1, minlength=2)[2:]
        for i, count in enumerate(lost):
            if self.seen[i] - count < self.config.min_visible * self.whole[i]:
                return False
        for i, count in enumerate(lost):
            self.seen[i] -= int(count)
        return True

    def _paint(self, stamp: Stamp, window: Window, part: Window) -> None:
        view = self.canvas[:, *window]
        base = self._colour_on(view)
        x, y, distance = stamp.x[part], stamp.y[part], stamp.distance[part]
        paint = fill(self.rng, x, y, base, self.config.texture)
        if self.rng.random() < 0.3:  # a darker rim, thin enough not to look like a ring
            rim = distance > -np.float32(max(1.0, 0.05 * stamp.half))
            paint = paint * np.where(rim, np.float32(0.6), np.float32(1))
        coverage = np.clip(np.float32(0.5) - distance, 0, 1)
        view += coverage * (paint - view)

    def _colour_on(self, view: Canvas) -> Colour:
        """Unlike what lies there; the most unlike of a few where nothing is unlike enough."""
        ground = view[:, ::4, ::4].mean(axis=(1, 2))
        best, distance = ground, -1.0
        for _ in range(6):
            base = colour(self.rng, (0.2, 1.0), (0.15, 1.0))
            new = float(np.abs(base - ground).max())
            if new > distance:
                best, distance = base, new
            if distance >= self.config.contrast:
                break
        return best

    def _write(
        self, label: int | None, window: Window, mask: Mask, whole: int, inside: int
    ) -> None:
        self.instances[window][mask] = -1 if label is None else len(self.labels) + 1
        if label is not None:
            self.labels.append(label)
            self.whole.append(whole)
            self.seen.append(inside)
            self.windows.append(window)
