r"""# Worlds: pictures in which one part of the detector should have a job

In the plain world the outline of an object decides its class. There, attention over the whole
picture has little to do, and so has a point that reads a detail. A study cannot show what a part is
for if its pictures do not need the part. So each world here is made for *one part*. Whether it
needs that part is a question for a study (`rtdetr-lab ablate parts --world far`).

| world    | what decides the class, or the box                         | made for               |
|----------|------------------------------------------------------------|------------------------|
| `plain`  | the outline                                                | nothing: the control   |
| `far`    | a sign in a corner of the picture                          | AIFI                   |
| `scales` | the outline; small objects lie on large ones, 8 to 110 px  | CCFF                   |
| `crowds` | the outline; 24 to 40 objects touch each other             | attention of queries   |
| `tight`  | a long thin tail belongs to the box                        | decoder layers         |
| `marks`  | a small mark, printed anywhere on the object               | sampling points        |

All worlds have the same ten classes (`far` and `marks` use three), so the same model fits each. A
world is a `ShapesConfig`: its numbers say how many and how large, and its `rule`, if it has one,
what decides.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from rtdetr_lab.data.shapes_outlines import CLASSES, Outline, tailed
from rtdetr_lab.data.shapes_paint import Rng
from rtdetr_lab.data.shapes_plan import ShapesConfig, Thing

Rule = Callable[[ShapesConfig, Rng, list[Thing]], list[Thing]]
"""Change the things of a picture; they are painted from first to last."""


@dataclass(frozen=True)
class Ruled(ShapesConfig):
    """A world with a rule. Without one, a `ShapesConfig` stays what it was before there were rules:
    runs that were made with it are found again."""

    rule: Rule = field(kw_only=True)

    def changed(self, rng: Rng, things: list[Thing]) -> list[Thing]:
        """Change the things as the rule says."""
        return self.rule(self, rng, things)


CARRIERS = CLASSES[0], CLASSES[3]
"""A circle and a square: in some worlds, all objects have these outlines."""

KINDS = 2, 8, 9
"""Labels of signs and marks: ring, star, cross. Three are learned sooner than ten."""


@dataclass(frozen=True)
class Signed:
    """The class of all objects of a picture is that of a sign in one of its corners."""

    side: float = 18.0
    """Side of the sign, in pixels."""

    def __call__(self, config: ShapesConfig, rng: Rng, things: list[Thing]) -> list[Thing]:
        label = KINDS[int(rng.integers(len(KINDS)))]
        inside = self.side * rng.uniform(0.7, 1.0, 2)
        y, x = np.where(rng.random(2) < 0.5, inside, config.size - inside).tolist()
        sign = Thing(CLASSES[label], None, self.side, (y, x), keep=True)
        return [sign, *(_carrier(rng, thing, label) for thing in things)]


@dataclass(frozen=True)
class Marked:
    """The class of an object is that of a mark, printed anywhere on it."""

    side: float = 14.0
    """Side of a mark, in pixels."""

    def __call__(self, config: ShapesConfig, rng: Rng, things: list[Thing]) -> list[Thing]:
        labels = [KINDS[int(rng.integers(len(KINDS)))] for _ in things]
        carriers = [_carrier(rng, *each) for each in zip(things, labels, strict=True)]
        return [self._marked(thing) for thing in carriers]

    def _marked(self, thing: Thing) -> Thing:
        if thing.label is None:
            return thing
        return replace(thing, mark=Thing(CLASSES[thing.label], None, self.side))


def _carrier(rng: Rng, thing: Thing, label: int) -> Thing:
    if thing.label is None:
        return thing
    return replace(thing, outline=CARRIERS[int(rng.integers(2))], label=label)


@dataclass(frozen=True)
class Tailed:
    """Each object has a thin tail. It begins in the middle, and its length is 2 to 3.5 square roots
    of the area of the object."""

    width: float = 2.0
    """Width of a tail, in pixels."""

    def __call__(self, config: ShapesConfig, rng: Rng, things: list[Thing]) -> list[Thing]:
        return [self._tailed(rng, thing) for thing in things]

    def _tailed(self, rng: Rng, thing: Thing) -> Thing:
        if thing.label is None or not isinstance(thing.outline, Outline):
            return thing
        angle, length = rng.uniform(0, 2 * math.pi), rng.uniform(2.0, 3.5)
        return replace(thing, outline=tailed(thing.outline, angle, length, self.width / thing.side))


@dataclass(frozen=True)
class Nested:
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


def plain(size: int = 128) -> ShapesConfig:
    """Return the control: the outline decides. Objects have 12 pixels or more; some are crowded."""
    return ShapesConfig(
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


def crowds(size: int = 128) -> ShapesConfig:
    """Return a world of 24 to 40 objects that touch each other."""
    few = plain(size)
    return replace(
        few, min_objects=24, max_objects=40, max_side=22.0, crowding=0.0, min_visible=0.4
    )


def far(size: int = 128) -> ShapesConfig:
    """Return a world in which a sign in a corner decides."""
    return _calm(size, Signed(), distractors=0)


def marks(size: int = 128) -> ShapesConfig:
    """Return a world in which a mark on the object decides."""
    return _calm(size, Marked(), min_visible=1.0, min_side=34.0)


def tight(size: int = 128) -> ShapesConfig:
    """Return a world in which boxes hold tails."""
    return _calm(size, Tailed(), min_side=16.0, max_side=40.0, distractors=0)


def scales(size: int = 128) -> ShapesConfig:
    """Return a world in which small objects lie on large ones."""
    return Ruled(**{**vars(plain(size)), "min_side": 8.0, "max_side": size * 0.85}, rule=Nested())


def _calm(size: int, rule: Rule, **changes: Any) -> ShapesConfig:
    """Few large objects, not crowded."""
    calm = {"crowding": 0.0, "small_share": 0.0, "min_side": 24.0, "max_objects": 5}
    return Ruled(**{**vars(plain(size)), **calm, **changes}, rule=rule)


WORLDS: dict[str, Callable[[int], ShapesConfig]] = {
    made.__name__: made for made in (plain, far, scales, crowds, tight, marks)
}
"""Name → function of the size of a picture, in pixels."""

SMALLEST = 96
"""Side of the smallest pictures of a world other than `plain`, in pixels."""
