"""# The plan of a picture: how hard, how many, how large, in which order

This module holds the settings of the shapes world, and draws from them what to paint. Large things
mostly come first, so that they lie behind small things more often than in front of them.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from rtdetr_lab.config import require, require_between
from rtdetr_lab.data.shapes_outlines import CLASSES, DISTRACTORS, STROKE, Outline
from rtdetr_lab.data.shapes_paint import Canvas, Regions, Rng, background, log_uniform
from rtdetr_lab.data.sheets import Sheet

SMALL = 32.0
"""COCO calls an object small below 32² pixels of area."""


@dataclass(frozen=True)
class ShapesConfig:
    """Settings for how hard the pictures are. A side is the square root of an outline's area, in
    pixels."""

    size: int = 320
    min_objects: int = 1
    max_objects: int = 10
    min_side: float = 14.0
    max_side: float = 130.0
    small_share: float = 0.4
    """Share of objects outside crowds with a side below 32 pixels."""
    crowding: float = 0.25
    """Share of pictures with a crowd: up to `crowd_size` more small objects in one place."""
    crowd_size: int = 8
    min_visible: float = 0.6
    """The smallest visible part of a labelled object; 1 forbids occlusion."""
    distractors: int = 3
    """The largest number of outlines without a class, and of strokes."""
    texture: float = 0.6
    """Strength of background patterns, and share of objects with one: 0 … 1."""
    light: float = 0.4
    """How much darker one side of the picture may be than the other: 0 … 1."""
    noise: float = 0.05
    """The most grain: a standard deviation, for values in 0 … 1."""
    contrast: float = 0.3
    """The colour distance that we try to reach between object and background: 0 … 1."""
    names: ClassVar[tuple[str, ...]] = tuple(outline.name for outline in CLASSES)
    """Class names by label."""

    def __post_init__(self) -> None:
        counts, most = 0 <= self.min_objects <= self.max_objects <= 1000, self.max_objects
        require(counts, "max_objects", f"is {most}", "keep 0 ≤ min_objects ≤ max_objects")
        sides = 4 <= self.min_side <= self.max_side <= self.size
        require(sides, "min_side", f"is {self.min_side}", "keep 4 ≤ min_side ≤ max_side ≤ size")
        shares = ("small_share", "crowding", "texture", "light", "noise", "contrast")
        require_between(0, 1, "", **{name: getattr(self, name) for name in shares})
        require_between(0, 1000, "", crowd_size=self.crowd_size, distractors=self.distractors)
        seen = 0 < self.min_visible <= 1
        require(seen, "min_visible", f"is {self.min_visible}", "give a share above 0, up to 1")

    def background(self, rng: Rng) -> tuple[Canvas, Regions]:
        """Paint what lies behind all things, and return the kind of stuff of each pixel."""
        return background(rng, (self.size, self.size), self.texture)

    def changed(self, rng: Rng, things: "list[Thing]") -> "list[Thing]":
        """Change the things before they are painted: here not, so the outline is the class."""
        return things


@dataclass(frozen=True, eq=False)
class Thing:
    """Something to paint: an outline or a sheet with a side, anywhere or about `near` (y, x), give
    or take `spread` pixels. A `mark` lies on an outline. Nothing may hide a thing with
    `keep`."""

    outline: Outline | Sheet
    label: int | None
    side: float
    near: tuple[float, float] | None = None
    spread: float = 0.0
    mark: "Thing | None" = None
    keep: bool = False


def plan(config: ShapesConfig, rng: Rng) -> list[Thing]:
    """Draw the things of one picture, from back to front."""
    count = int(rng.integers(config.min_objects, config.max_objects + 1))
    things = [_object(rng, _side(config, rng)) for _ in range(count)]
    if config.crowd_size and rng.random() < config.crowding:
        things += _crowd(config, rng)
    for _ in range(int(rng.integers(config.distractors + 1))):
        outline = DISTRACTORS[int(rng.integers(len(DISTRACTORS)))]
        things.append(Thing(outline, None, _side(config, rng)))
    for _ in range(int(rng.integers(config.distractors + 1))):
        things.append(Thing(STROKE, None, rng.uniform(0.04, 0.09) * config.size))
    height = [rng.normal(0, 0.4) - math.log(thing.side) for thing in things]
    things = [things[i] for i in sorted(range(len(things)), key=height.__getitem__)]
    return config.changed(rng, things)


def _object(rng: Rng, side: float, near: tuple[float, float] | None = None) -> Thing:
    label = int(rng.integers(len(CLASSES)))
    return Thing(CLASSES[label], label, side, near, spread=1.6 * side)


def _crowd(config: ShapesConfig, rng: Rng) -> list[Thing]:
    """Draw objects of similar size around one place."""
    near = (rng.uniform(0.2, 0.8) * config.size, rng.uniform(0.2, 0.8) * config.size)
    side = log_uniform(rng, config.min_side, _border(config))
    count = int(rng.integers((config.crowd_size + 1) // 2, config.crowd_size + 1))
    sides = [side * rng.uniform(0.85, 1.15) for _ in range(count)]
    return [_object(rng, max(config.min_side, s), near) for s in sides]


def _side(config: ShapesConfig, rng: Rng) -> float:
    """Draw a side, log-uniform below and above COCO's limit of small."""
    if rng.random() < config.small_share:
        return log_uniform(rng, config.min_side, _border(config))
    return log_uniform(rng, _border(config), config.max_side)


def _border(config: ShapesConfig) -> float:
    return min(max(SMALL, config.min_side), config.max_side)
