r"""# Outlines of the shapes world: what makes a square a square

A class is an outline and nothing else. So each class is a formula that is zero on its outline.
Let $f(x, y)$ be the distance to the outline, negative inside. A pixel belongs to the shape if its
centre does ($f \le 0$). $\operatorname{clip}(\tfrac12 - f, 0, 1)$ is its coverage at a soft edge.

| class       | definition                                              | drawn at         |
|-------------|---------------------------------------------------------|------------------|
| `circle`    | $r \le 1$                                               |                  |
| `ellipse`   | axes 1.6 : 1 … 2.4 : 1                                  | any angle        |
| `ring`      | hole of 0.5 … 0.65 of the outer radius                  |                  |
| `square`    | equal sides, standing on a side                         | 0° ± 12°         |
| `diamond`   | the same square, standing on a corner                   | 45° ± 12°        |
| `rectangle` | sides 1.6 : 1 … 2.6 : 1                                 | any angle        |
| `triangle`  | inside all 3 lines of a regular triangle                | any angle        |
| `pentagon`  | inside all 5 lines of a regular pentagon                | any angle        |
| `star`      | inside at least 4 of those 5 lines: the pentagram       | any angle        |
| `cross`     | two equal bars, a third as wide as long, at a right angle | any angle      |

Squares at 12° to 33° would be neither square nor diamond, so we never draw them. Neither do we draw
rectangles and ellipses with an aspect between 1 and 1.6. A mirrored shape keeps its class. A
shape with a changed aspect does not, so augmentation must keep the aspect. All outlines are scaled
to the same area, so size is independent of the class.

`DISTRACTORS` are outlines without a class: a detector must learn to ignore them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32

Plane = Float32[np.ndarray, "h w"]


@dataclass(frozen=True)
class Outline:
    """A family of outlines around the origin; `parameter` selects one (an aspect, a hole)."""

    name: str
    distance: Callable[[Plane, Plane, float], Plane]
    area: Callable[[float], float]
    reach: Callable[[float], float]
    parameter: tuple[float, float] = (1.0, 1.0)
    turn: tuple[float, float] = (0.0, 360.0)


def circle(x: Plane, y: Plane, _: float) -> Plane:
    """Distance to the unit circle."""
    return np.sqrt(x * x + y * y) - np.float32(1)


def ellipse(x: Plane, y: Plane, aspect: float) -> Plane:
    """Distance to first order: exactly zero on the ellipse, with slope one across it."""
    a, b = np.float32(aspect**0.5), np.float32(aspect**-0.5)
    level = np.sqrt((x / a) ** 2 + (y / b) ** 2)
    slope = np.sqrt((x / a**2) ** 2 + (y / b**2) ** 2)
    return level * (level - 1) / np.maximum(slope, np.float32(1e-6))


def ring(x: Plane, y: Plane, hole: float) -> Plane:
    """Distance to the band between two circles."""
    middle, half_width = np.float32((1 + hole) / 2), np.float32((1 - hole) / 2)
    return np.abs(np.sqrt(x * x + y * y) - middle) - half_width


def rectangle(x: Plane, y: Plane, aspect: float) -> Plane:
    """Distance to a rectangle of area 4, for any aspect; aspect 1 is a square."""
    a, b = np.float32(aspect**0.5), np.float32(aspect**-0.5)
    return np.maximum(np.abs(x) - a, np.abs(y) - b)


def _sides(x: Plane, y: Plane, n: int, apothem: float) -> list[Plane]:
    """Distances to the n lines at `apothem` from the origin."""
    angles = [2 * math.pi * k / n for k in range(n)]
    return [
        np.float32(math.cos(t)) * x + np.float32(math.sin(t)) * y - np.float32(apothem)
        for t in angles
    ]


def triangle(x: Plane, y: Plane, _: float) -> Plane:
    """Distance to a regular triangle with circumradius 1."""
    return np.maximum.reduce(_sides(x, y, 3, math.cos(math.pi / 3)))


def pentagon(x: Plane, y: Plane, _: float) -> Plane:
    """Distance to a regular pentagon with circumradius 1: inside all five lines."""
    return np.maximum.reduce(_sides(x, y, 5, math.cos(math.pi / 5)))


def star(x: Plane, y: Plane, _: float) -> Plane:
    """Distance to a pentagram with circumradius 1: outside at most one of five lines. So it is the
    second largest of the distances to them."""
    first, *others = _sides(x, y, 5, math.cos(2 * math.pi / 5))
    second = np.full_like(first, -np.inf)
    for side in others:
        second = np.maximum(second, np.minimum(first, side))
        first = np.maximum(first, side)
    return second


BAR = 0.34
"""Half the width of the bars of a cross, in half lengths."""


def cross(x: Plane, y: Plane, _: float) -> Plane:
    """Distance to the union of two bars: the smaller of two distances."""
    x, y, bar, one = np.abs(x), np.abs(y), np.float32(BAR), np.float32(1)
    return np.minimum(np.maximum(x - one, y - bar), np.maximum(x - bar, y - one))


def half_disc(x: Plane, y: Plane, _: float) -> Plane:
    """Distance to a circle cut through its centre."""
    return np.maximum(circle(x, y, 1.0), y)


def crescent(x: Plane, y: Plane, _: float) -> Plane:
    """Distance to a circle minus a smaller circle beside its centre."""
    bite = np.sqrt((x - np.float32(0.55)) ** 2 + y * y) - np.float32(0.85)
    return np.maximum(circle(x, y, 1.0), -bite)


def broken_ring(x: Plane, y: Plane, hole: float) -> Plane:
    """Distance to a ring minus a quarter of it."""
    return np.maximum(ring(x, y, hole), (x - np.abs(y)) / np.float32(2**0.5))


def corner(x: Plane, y: Plane, _: float) -> Plane:
    """Distance to a square minus a smaller square in one corner: an L."""
    bite = np.maximum(np.float32(-0.3) - x, np.float32(-0.3) - y)
    return np.maximum(rectangle(x, y, 1.0), -bite)


def tailed(body: Outline, angle: float, length: float, width: float) -> Outline:
    """Add a straight tail from the middle of `body` in a direction; `length` and `width` are in
    square roots of the body's area."""

    def distance(x: Plane, y: Plane, parameter: float) -> Plane:
        unit = np.float32(math.sqrt(body.area(parameter)))
        along = (np.float32(math.cos(angle)) * x + np.float32(math.sin(angle)) * y) / unit
        across = (np.float32(math.cos(angle)) * y - np.float32(math.sin(angle)) * x) / unit
        half = np.float32(length / 2)
        tail = np.maximum(np.abs(along - half) - half, np.abs(across) - np.float32(width / 2))
        return np.minimum(body.distance(x, y, parameter), tail * unit)

    def reach(parameter: float) -> float:
        return max(body.reach(parameter), length * math.sqrt(body.area(parameter)))

    return replace(body, distance=distance, reach=reach)


def _always(value: float) -> Callable[[float], float]:
    return lambda _: value


def _diagonal(aspect: float) -> float:
    return math.sqrt(aspect + 1 / aspect)


def _regular(n: int) -> float:
    return n / 2 * math.sin(2 * math.pi / n)


_PENTAGRAM = 5 * math.sin(math.pi / 5) * math.cos(2 * math.pi / 5) / math.cos(math.pi / 5)
_ANY, _ONE, _FOUR, _PI = (0.0, 360.0), _always(1.0), _always(4.0), _always(math.pi)

CLASSES = (
    Outline("circle", circle, _PI, _ONE),
    Outline("ellipse", ellipse, _PI, math.sqrt, (1.6, 2.4)),
    Outline("ring", ring, lambda hole: math.pi * (1 - hole**2), _ONE, (0.5, 0.65)),
    Outline("square", rectangle, _FOUR, _diagonal, turn=(-12.0, 12.0)),
    Outline("diamond", rectangle, _FOUR, _diagonal, turn=(33.0, 57.0)),
    Outline("rectangle", rectangle, _FOUR, _diagonal, (1.6, 2.6)),
    Outline("triangle", triangle, _always(_regular(3)), _ONE),
    Outline("pentagon", pentagon, _always(_regular(5)), _ONE),
    Outline("star", star, _always(_PENTAGRAM), _ONE),
    Outline("cross", cross, _always(8 * BAR - 4 * BAR**2), _always(math.hypot(1, BAR))),
)
"""The classes, in the order of their labels."""

DISTRACTORS = (
    Outline("half disc", half_disc, _always(math.pi / 2), _ONE),
    Outline("crescent", crescent, _always(1.477), _ONE),
    Outline("broken ring", broken_ring, lambda h: 0.75 * math.pi * (1 - h**2), _ONE, (0.5, 0.65)),
    Outline("corner", corner, _always(4 - 1.3**2), _always(math.sqrt(2))),
)

STROKE = Outline("stroke", rectangle, _FOUR, _diagonal, (20.0, 60.0))
"""A line: too long and thin to be a rectangle."""
