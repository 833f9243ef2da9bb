"""# Paint of the shapes world: backgrounds, fills, light and grain

Nothing here depends on the class. Colour, texture and light are drawn from the same distribution
for each outline. So only the outline distinguishes the classes.

Pictures are `3 H W` floats in [0, 1] until the end. With the channels first, numpy broadcasts a
mask along whole rows. That is several times as fast as along the three numbers of a pixel.
"""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float32, UInt8

from rtdetr_lab.notation import Size

Plane = Float32[np.ndarray, "h w"]
Colour = Float32[np.ndarray, "3"]
Canvas = Float32[np.ndarray, "3 h w"]
Regions = UInt8[np.ndarray, "h w"]
Rng = np.random.Generator

CLUTTER = 5
STUFF_NAMES = ("sky", "ground", "water", "wall", "fabric", "clutter")
"""Kinds of background; `clutter` are strokes and distractors."""


def colour(rng: Rng, saturation: tuple[float, float], value: tuple[float, float]) -> Colour:
    """Draw a colour of any hue."""
    hue, s, v = rng.random(), rng.uniform(*saturation), rng.uniform(*value)
    corners = np.abs((hue * 6 + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1
    return (v * (1 - s + s * np.clip(corners, 0, 1))).astype(np.float32)


def log_uniform(rng: Rng, low: float, high: float) -> float:
    """Draw a number whose logarithm is uniform: as often from 10 to 20 as from 20 to 40."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def coordinates(size: Size, angle: float) -> Plane:
    """Return the position along a direction, -0.5 … 0.5 across the side of the picture."""
    height, width = size
    x = (np.arange(width, dtype=np.float32) + 0.5) / width - 0.5
    y = (np.arange(height, dtype=np.float32) + 0.5) / height - 0.5
    return np.float32(math.cos(angle)) * x[None, :] + np.float32(math.sin(angle)) * y[:, None]


def smooth_noise(rng: Rng, size: Size, cells: int) -> Plane:
    """Interpolate random values on a coarse grid: 0 … 1."""
    grid = rng.random((cells + 1, cells + 1), dtype=np.float32)
    rows, columns = (np.linspace(0, cells, n, endpoint=False, dtype=np.float32) for n in size)
    i, j = rows.astype(np.int64), columns.astype(np.int64)
    down, right = (rows % 1)[:, None], (columns % 1)[None, :]
    down, right = down * down * (3 - 2 * down), right * right * (3 - 2 * right)
    # Columns first, while there are few rows: the second pass then copies whole rows.
    fine = grid[:, j] + right * (grid[:, j + 1] - grid[:, j])
    noise, below = fine[i], fine[i + 1]
    below -= noise  # in place, as in `_scale`
    below *= down
    noise += below
    return noise


def _scale(plane: Plane, factor: float, offset: float) -> Plane:
    """Scale in place: new memory costs more time than the arithmetic."""
    plane *= np.float32(factor)
    plane += np.float32(offset)
    return plane


def _sky(rng: Rng, size: Size) -> Plane:
    return 1 + rng.uniform(0.2, 0.5) * coordinates(size, math.pi / 2 + rng.normal(0, 0.2))


def _ground(rng: Rng, size: Size) -> Plane:
    return _scale(smooth_noise(rng, size, int(rng.integers(20, 60))), 0.8, 0.6)


def _water(rng: Rng, size: Size) -> Plane:
    phase = smooth_noise(rng, size, 5)
    phase *= np.float32(6)
    phase += np.linspace(0, rng.uniform(60, 140), size[0], dtype=np.float32)[:, None]
    return _scale(np.sin(phase, out=phase), 0.15, 1.0)


def _wall(rng: Rng, size: Size) -> Plane:
    height, width = size
    brick, joint = int(rng.integers(8, 20)), np.float32(0.75)
    x = np.arange(width)
    courses = []
    for k in range(-(-height // brick)):
        tone = rng.uniform(0.85, 1.1, width // brick + 2).astype(np.float32)
        along = x + k % 2 * brick  # every second row is shifted by half a brick
        course = np.where(along % (2 * brick) < 2, joint, tone[along // (2 * brick)])
        courses.append(np.broadcast_to(course, (brick, width)).copy())
        courses[-1][:2] = joint
    return np.concatenate(courses)[:height]


def _fabric(rng: Rng, size: Size) -> Plane:
    angle, pitch = rng.uniform(0, math.pi), rng.uniform(80, 250)
    weave = np.sin(coordinates(size, angle) * pitch)
    return 1 + 0.1 * weave * np.sin(coordinates(size, angle + math.pi / 2) * pitch)


_STUFF: tuple[Callable[[Rng, Size], Plane], ...] = (_sky, _ground, _water, _wall, _fabric)


def background(rng: Rng, size: Size, texture: float) -> tuple[Canvas, Regions]:
    """Paint one to three bands of stuff with wavy borders, and return the stuff of each pixel."""
    kinds = rng.permutation(len(_STUFF))[: 1 + rng.integers(3)]
    regions = np.full(size, kinds[0], dtype=np.uint8)
    canvas = _stuff(rng, size, int(kinds[0]), texture)
    across = coordinates(size, rng.normal(math.pi / 2, 0.3))
    along = coordinates(size, 0.0)[0]
    for kind, level in zip(kinds[1:], sorted(rng.uniform(-0.35, 0.35, 2)), strict=False):
        border = level + rng.uniform(0, 0.05) * np.sin(along * rng.uniform(3, 20))
        beyond = across > border[None, :].astype(np.float32)
        regions[beyond] = kind
        np.copyto(canvas, _stuff(rng, size, int(kind), texture), where=beyond)
    return canvas, regions


def _stuff(rng: Rng, size: Size, kind: int, texture: float) -> Canvas:
    base = colour(rng, (0.05, 0.45), (0.3, 0.9))
    pattern = _STUFF[kind](rng, size).astype(np.float32, copy=False)
    return base[:, None, None] * _scale(pattern, texture, 1 - texture)


def _plain(rng: Rng, x: Plane, y: Plane) -> Plane:
    return np.zeros(np.broadcast_shapes(x.shape, y.shape), dtype=np.float32)


def _along(rng: Rng, x: Plane, y: Plane) -> Plane:
    """Return the position along a random direction."""
    angle = rng.uniform(0, 2 * math.pi)
    return np.float32(math.cos(angle)) * x + np.float32(math.sin(angle)) * y


def _shaded(rng: Rng, x: Plane, y: Plane) -> Plane:
    return np.clip(_along(rng, x, y) * np.float32(0.5) + np.float32(0.5), 0, 1)


def _striped(rng: Rng, x: Plane, y: Plane) -> Plane:
    return (np.sin(_along(rng, x, y) * np.float32(rng.uniform(4, 9))) > 0).astype(np.float32)


def _dotted(rng: Rng, x: Plane, y: Plane) -> Plane:
    pitch = np.float32(rng.uniform(5, 10))
    return (np.sin(x * pitch) * np.sin(y * pitch) > 0.35).astype(np.float32)


_FILLS = (_plain, _shaded, _striped, _dotted)


def fill(rng: Rng, x: Plane, y: Plane, base: Colour, texture: float) -> Canvas:
    """Paint a colour, with a pattern towards a similar colour; x, y are in shape radii."""
    pattern = _FILLS[rng.integers(len(_FILLS))] if rng.random() < texture else _plain
    other = np.clip(base + rng.uniform(-0.3, 0.3, 3).astype(np.float32), 0, 1)
    return base[:, None, None] + (other - base)[:, None, None] * pattern(rng, x, y)


def develop(rng: Rng, canvas: Canvas, light: float, noise: float) -> UInt8[np.ndarray, "3 h w"]:
    """Add light from one side and grain, and round to eight bits; overwrites `canvas`."""
    _, height, width = canvas.shape
    slope = rng.uniform(0, light) * 2
    shade = _scale(coordinates((height, width), rng.uniform(0, 2 * math.pi)), slope, 1.0)
    shade *= np.float32(255 * rng.uniform(1 - light / 2, 1 + light / 2))
    grain = rng.standard_normal((height, width), dtype=np.float32)
    canvas *= shade
    canvas += _scale(grain, 255 * rng.uniform(0, noise), 0.5)
    return np.clip(canvas, 0, 255, out=canvas).astype(np.uint8)
