"""# The scene: which thing lies in front, and what remains visible

A thing becomes a stamp once: its coverage and its mask on a patch that is just large enough. To try
another place, we move the patch and compute nothing again. That makes crowds cheap.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from rtdetr_lab.data.shapes_outlines import Outline, Plane
from rtdetr_lab.data.shapes_paint import Canvas, Colour, Rng, colour, fill
from rtdetr_lab.data.shapes_plan import ShapesConfig, Thing
from rtdetr_lab.data.sheets import Sheet, Sticker

TRIES = 8
"""The number of places that we try for a thing before we leave it out."""

KEPT = -2
"""Stands for pixels that nothing may hide."""

Patch = tuple[slice, slice]
"""Rows and columns of a picture, or of a stamp."""


@dataclass(frozen=True, eq=False)
class Stamp:
    """An outline, rotated, scaled and placed on pixels; x, y are in units of the outline."""

    x: Plane
    y: Plane
    distance: Plane
    half: int

    @classmethod
    def of(cls, outline: Outline, side: float, rng: Rng) -> "Stamp":
        """Draw a parameter and an angle; the centre lies anywhere within a pixel."""
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

    @property
    def mask(self) -> Bool[np.ndarray, "n n"]:
        """The pixels whose centres are inside."""
        return self.distance <= 0


def patches(half: int, centre: tuple[int, int], size: int) -> tuple[Patch, Patch] | None:
    """Return the part of the picture that a stamp of 2 `half` pixels covers, and the same part of
    the stamp, or None if they do not overlap."""
    low = [max(0, middle - half) for middle in centre]
    high = [min(size, middle + half) for middle in centre]
    if low[0] >= high[0] or low[1] >= high[1]:
        return None
    y, x = (middle - half for middle in centre)
    picture = slice(low[0], high[0]), slice(low[1], high[1])
    return picture, (slice(low[0] - y, high[0] - y), slice(low[1] - x, high[1] - x))


def _stamp(thing: Thing, rng: Rng) -> Stamp | Sticker:
    if isinstance(thing.outline, Sheet):
        return Sticker.of(thing.outline, thing.side, rng)
    return Stamp.of(thing.outline, thing.side, rng)


@dataclass(eq=False)
class Painted:
    """A labelled thing in the picture: its place, and the number of its pixels `seen` so far."""

    label: int
    patch: Patch
    whole: int
    seen: int


class Scene:
    """A canvas, and the visible object at each of its pixels (0: none, -1: clutter)."""

    def __init__(self, config: ShapesConfig, rng: Rng, canvas: Canvas) -> None:
        self.config, self.rng, self.canvas = config, rng, canvas
        self.instances = np.zeros(canvas.shape[1:], dtype=np.int16)
        self.objects: list[Painted] = []

    def add(self, thing: Thing) -> None:
        """Paint a thing at the first place that is allowed, or leave it out."""
        stamp = _stamp(thing, self.rng)
        mask = stamp.mask
        whole = int(np.count_nonzero(mask))
        for _ in range(TRIES):
            places = patches(stamp.half, self._centre(thing, stamp.half), self.config.size)
            if places is None:
                continue
            patch, part = places
            inside = mask[part]
            seen = int(np.count_nonzero(inside))
            shown = seen >= self.config.min_visible * whole or thing.label is None
            if not shown or not self._cover(patch, inside):
                continue
            self._paint(stamp, patch, part)
            if thing.mark is not None and isinstance(stamp, Stamp):
                self._print(_stamp(thing.mark, self.rng), stamp, patch, part)
            if thing.label is not None:
                self.objects.append(Painted(thing.label, patch, whole, seen))
            number = len(self.objects) if thing.label is not None else KEPT if thing.keep else -1
            self.instances[patch][inside] = number
            return

    def box(self, number: int) -> tuple[int, int, int, int]:
        """Return the left, top, right and bottom edge of an object's visible pixels. `number`
        counts from 1."""
        rows, columns = patch = self.objects[number - 1].patch
        mask = self.instances[patch] == number
        y = np.flatnonzero(mask.any(1)) + rows.start
        x = np.flatnonzero(mask.any(0)) + columns.start
        return int(x[0]), int(y[0]), int(x[-1]) + 1, int(y[-1]) + 1

    def _centre(self, thing: Thing, half: int) -> tuple[int, int]:
        if thing.near is not None:
            y, x = (n + self.rng.normal(0, thing.spread) for n in thing.near)
            return round(y), round(x)
        # Up to about a quarter of a thing may lie outside the picture.
        margin = min(half * 0.4, self.config.size / 2)
        y, x = self.rng.uniform(margin, self.config.size - margin, 2)
        return round(y), round(x)

    def _cover(self, patch: Patch, mask: Bool[np.ndarray, "h w"]) -> bool:
        """Subtract the pixels that this mask hides from the other objects; if one of them would
        show too little, or if it hides what must stay, return False and change nothing."""
        if (self.instances[patch][mask] == KEPT).any():
            return False
        lost = np.bincount(self.instances[patch][mask] + 1, minlength=2)[2:].tolist()
        hidden = list(zip(self.objects, lost, strict=False))
        if any(o.seen - count < self.config.min_visible * o.whole for o, count in hidden):
            return False
        for painted, count in hidden:
            painted.seen -= count
        return True

    def _paint(self, stamp: Stamp | Sticker, patch: Patch, part: Patch) -> None:
        view = self.canvas[:, *patch]
        if isinstance(stamp, Sticker):
            view += stamp.pixels[3, *part] * (stamp.pixels[:3, *part] - view)
            return
        base = self._colour_on(view)
        x, y, distance = stamp.x[part], stamp.y[part], stamp.distance[part]
        paint = fill(self.rng, x, y, base, self.config.texture)
        if self.rng.random() < 0.3:  # a darker rim, too thin to look like a ring
            rim = distance > -np.float32(max(1.0, 0.05 * stamp.half))
            paint = paint * np.where(rim, np.float32(0.6), np.float32(1))
        coverage = np.clip(np.float32(0.5) - distance, 0, 1)
        view += coverage * (paint - view)

    def _print(self, stamp: Stamp | Sticker, on: Stamp, patch: Patch, part: Patch) -> None:
        """Paint a mark at a random place of a thing, where all of it fits, or at its middle."""
        room = -on.distance[part] - np.float32(stamp.half)
        rows, columns = np.nonzero(room >= min(0, room.max()))
        choice = int(self.rng.integers(len(rows)))
        centre = int(rows[choice]) + patch[0].start, int(columns[choice]) + patch[1].start
        placed = patches(stamp.half, centre, self.config.size)
        assert placed is not None  # its centre is inside the picture
        self._paint(stamp, *placed)

    def _colour_on(self, view: Canvas) -> Colour:
        """Draw a colour that differs enough from the background, or the best of six."""
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
