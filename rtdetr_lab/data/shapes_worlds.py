r"""# Worlds: pictures in which one part of the detector has a job

In the plain world the outline of an object decides its class. There, attention over the whole
picture has little to do, and so has a point that reads a detail. A study cannot show what a part is
for if its pictures do not need the part. So each world here needs *one thing*.

| world    | what decides the class, or the box                         | it calls for           |
|----------|------------------------------------------------------------|------------------------|
| `plain`  | the outline                                                | nothing: the control   |
| `far`    | the outline, and a sun or a moon in a corner               | AIFI                   |
| `scales` | the outline; small objects lie on large ones, 8 to 110 px  | CCFF                   |
| `crowds` | the outline; 24 to 40 objects touch each other             | attention of queries   |
| `tight`  | a long thin tail belongs to the box                        | decoder layers         |
| `marks`  | a small mark, printed anywhere on the object               | sampling points        |

All worlds have ten classes, so the same model fits each. A world is a `ShapesConfig`: its numbers
say how many and how large, and its `rule` says what decides.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from rtdetr_lab.data.shapes_outlines import CLASSES, DISTRACTORS, tailed
from rtdetr_lab.data.shapes_paint import Rng
from rtdetr_lab.data.shapes_plan import Rule, ShapesConfig, Thing

FIVE = tuple(CLASSES[label] for label in (0, 3, 6, 8, 9))
"""Circle, square, triangle, star and cross: five outlines that are easy to tell apart."""

SUN = Thing(CLASSES[2], None, 0.0, keep=True, colour=(1.0, 0.8, 0.1))
MOON = Thing(DISTRACTORS[1], None, 0.0, keep=True, colour=(0.5, 0.75, 1.0))
"""The signs: a yellow ring and a light blue crescent. No object has these outlines."""


@dataclass(frozen=True)
class FarSign(Rule):
    """A sun or a moon in a corner decides between two classes for each of five outlines."""

    names: ClassVar[tuple[str, ...]] = tuple(
        f"{outline.name} by {time}" for time in ("day", "night") for outline in FIVE
    )
    side: float = 18.0
    """Side of the sign, in pixels."""

    def __call__(self, config: ShapesConfig, rng: Rng, things: list[Thing]) -> list[Thing]:
        night = int(rng.integers(2))
        inside = self.side * rng.uniform(0.7, 1.0, 2)
        y, x = np.where(rng.random(2) < 0.5, inside, config.size - inside).tolist()
        sign = replace(MOON if night else SUN, side=self.side, near=(y, x))
        return [sign, *(self._named(thing, night) for thing in things)]

    def _named(self, thing: Thing, night: int) -> Thing:
        if thing.label is None:
            return thing
        kind = thing.label % len(FIVE)
        return replace(thing, outline=FIVE[kind], label=kind + len(FIVE) * night)


@dataclass(frozen=True)
class Marked(Rule):
    """The class is a mark, one of the ten outlines, printed on a circle or a square."""

    side: float = 8.0
    """Side of a mark, in pixels."""

    def __call__(self, config: ShapesConfig, rng: Rng, things: list[Thing]) -> list[Thing]:
        return [self._marked(rng, thing) for thing in things]

    def _marked(self, rng: Rng, thing: Thing) -> Thing:
        if thing.label is None:
            return thing
        mark = Thing(CLASSES[thing.label], None, self.side)
        return replace(thing, outline=FIVE[int(rng.integers(2))], mark=mark)


@dataclass(frozen=True)
class Tailed(Rule):
    """Each object has a thin tail, one to two and a half of its radii long."""

    width: float = 2.0
    """Width of a tail, in pixels."""

    def __call__(self, config: ShapesConfig, rng: Rng, things: list[Thing]) -> list[Thing]:
        return [self._tailed(rng, thing) for thing in things]

    def _tailed(self, rng: Rng, thing: Thing) -> Thing:
        if thing.label is None:
            return thing
        angle, length = rng.uniform(0, 2 * math.pi), rng.uniform(2.0, 3.5)
        return replace(thing, outline=tailed(thing.outline, angle, length, self.width / thing.side))


@dataclass(frozen=True)
class Nested(Rule):
    """Small objects lie on large ones."""

    large: float = 40.0
    """From this side on, in pixels, an object is large."""

    def __call__(self, config: ShapesConfig, rng: Rng, things: list[Thing]) -> list[Thing]:
        hosts = [t for t in things if t.label is not None and t.side >= self.large]
        places = [tuple(rng.uniform(0.25, 0.75, 2) * config.size) for _ in hosts]
        hosts = [replace(h, near=p, spread=0.0) for h, p in zip(hosts, places, strict=True)]
        others = [t for t in things if t.label is None or t.side < self.large]
        if not hosts:
            return others
        chosen = [hosts[int(rng.integers(len(hosts)))] for _ in others]
        return [*hosts, *(_on(host, other) for host, other in zip(chosen, others, strict=True))]


def _on(host: Thing, thing: Thing) -> Thing:
    return thing if thing.label is None else replace(thing, near=host.near, spread=host.side / 4)


def worlds(size: int = 128) -> dict[str, ShapesConfig]:
    """Return name → world, for pictures of this side in pixels."""
    plain = ShapesConfig(
        size=size,
        max_objects=6,
        min_side=12.0,
        max_side=size / 2,
        crowd_size=6,
        texture=0.3,
        light=0.2,
        noise=0.03,
        distractors=2,
    )
    calm = replace(plain, crowding=0.0, small_share=0.0, min_side=24.0, max_objects=5)
    return {
        "plain": plain,
        "far": replace(calm, rule=FarSign(), distractors=0),
        "scales": replace(plain, rule=Nested(), min_side=8.0, max_side=size * 0.85),
        "crowds": replace(
            plain, min_objects=24, max_objects=40, max_side=22.0, crowding=0.0, min_visible=0.4
        ),
        "tight": replace(calm, rule=Tailed(), max_side=40.0, min_side=16.0),
        "marks": replace(calm, rule=Marked(), min_visible=1.0, min_side=30.0),
    }
