r"""# Samplers: reading a map between its cells

- **Paper**     Deformable DETR §4.1 (bilinear); RT-DETRv2 §2.1 (discrete)
- **Notebook**  `notebooks/10_deformable_attention.ipynb`
- **Elsewhere** `multi_scale_deformable_attention_v2`, `method="default"` or `"discrete"`

Deformable attention (`deformable_attention.py`) asks for values at real coordinates; a map has
values at whole cells only. The **sampler** decides how the value $x\langle p \rangle$ at a point
$p$ is read. It is an argument of the attention, so you can pass another one:

| sampler | reads | gradient to the location | used for |
|---|---|---|---|
| `Bilinear()` | the 4 cells around, by distance | yes | training, all of v1 |
| `Discrete()` | the cell that contains the point | no: offsets are frozen | RT-DETRv2 deployment |
| `Naive()` | as bilinear, one point at a time | yes | the check of `Bilinear()` |

Cell $i$ of a map of width $W$ has its centre at $(i + \frac12)/W$. So on a map of width 4 the
centres lie at 0.125, 0.375, 0.625 and 0.875. The authors' discrete sampler reads half a cell
further right and down (`Discrete(shift=0.5)`).

**Outside the map** `Bilinear` and `Discrete` differ, as in the authors' code and in transformers.
`Bilinear` reads zeros there, `Discrete` reads the nearest border cell. Take a row of 4 cells with
the values 8, 6, 4, 2, and the point $x = -0.05$. In units of cells it lies at
$-0.05 \cdot 4 - 0.5 = -0.7$, between the cells $-1$ and 0. Cell $-1$ does not exist and counts as
0. `Bilinear()` reads $0.7 \cdot 0 + 0.3 \cdot 8 = 2.4$; `Discrete()` reads 8.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from rtdetr_lab.notation import Size, level_starts
from rtdetr_lab.structures import exportable

Shapes = Sequence[Size]
Points = Sequence[int]


@exportable
@dataclass(frozen=True, eq=False)
class SamplingPlan:
    """Where every head of every query looks, and the weight of every point."""

    locations: Float[Tensor, "B Q M P 2"]
    weights: Float[Tensor, "B Q M P"]


class Sampler(ABC):
    """Read the points of a plan from the value maps, and return their weighted sum.

    Subclasses define `read`. `__call__` states the shapes, so that they are checked once for all.
    """

    trains_offsets: ClassVar[bool] = True

    def __call__(
        self,
        value: Float[Tensor, "B N M d"],
        shapes: Shapes,
        points: Points,
        plan: SamplingPlan,
    ) -> Float[Tensor, "B Q D"]:
        """Read and sum. `points` are the sampling points per head on each level; they sum to P."""
        return self.read(value, shapes, points, plan)

    @abstractmethod
    def read(self, value: Tensor, shapes: Shapes, points: Points, plan: SamplingPlan) -> Tensor:
        """Read and sum; `__call__` has the shapes."""


@dataclass(frozen=True)
class Bilinear(Sampler):
    """Mean of the four cells around a point, weighted by nearness; zero outside the map."""

    def read(self, value: Tensor, shapes: Shapes, points: Points, plan: SamplingPlan) -> Tensor:
        maps = _maps_per_head(_readable(value), shapes)
        # (B M) Q P 2, in [-1, 1]
        grid = (2 * _readable(plan.locations) - 1).transpose(1, 2).flatten(0, 1)
        read = [
            F.grid_sample(level, where, mode="bilinear", align_corners=False)
            for level, where in zip(maps, grid.split(list(points), dim=2), strict=True)
        ]
        return _weighted_sum(torch.cat(read, dim=-1), plan.weights).to(value.dtype)


@dataclass(frozen=True)
class Discrete(Sampler):
    """Read the one cell that contains the point: a gather, which every accelerator has.

    By default a point on a cell centre reads exactly what `Bilinear` reads. The authors' code and
    transformers add 0.5 before they truncate, so they read half a cell further right and down.
    `shift=0.5` does the same, for checkpoints fine-tuned with their code (`docs/differences.md`).
    """

    shift: float = 0.0
    trains_offsets: ClassVar[bool] = False

    def read(self, value: Tensor, shapes: Shapes, points: Points, plan: SamplingPlan) -> Tensor:
        index = self.cells(plan.locations, shapes, points).transpose(1, 2)  # B M Q P
        by_head = value.transpose(1, 2)  # B M N d
        flat = index.flatten(2).unsqueeze(-1).expand(-1, -1, -1, by_head.shape[-1])
        read = by_head.gather(2, flat).unflatten(2, index.shape[2:])  # B M Q P d
        return _weighted_sum(read.flatten(0, 1).permute(0, 3, 1, 2), plan.weights)

    def cells(
        self,
        locations: Float[Tensor, "B Q M P 2"],
        shapes: Shapes,
        points: Points,
    ) -> Int[Tensor, "B Q M P"]:
        """Token index of the cell that each point reads; points outside read the border."""
        index = []
        levels = zip(
            locations.split(list(points), dim=3), shapes, level_starts(shapes), strict=True
        )
        for where, (height, width), start in levels:
            column = (where[..., 0] * width + self.shift).floor().long().clamp(0, width - 1)
            row = (where[..., 1] * height + self.shift).floor().long().clamp(0, height - 1)
            index.append(start + row * width + column)
        return torch.cat(index, dim=3)


@dataclass(frozen=True)
class Naive(Sampler):
    """Bilinear reading, written like its definition, one point after the other. Slow."""

    def read(self, value: Tensor, shapes: Shapes, points: Points, plan: SamplingPlan) -> Tensor:
        levels = [level for level, count in enumerate(points) for _ in range(count)]
        starts = level_starts(shapes)
        batch, queries, heads, _ = plan.weights.shape
        rows = []
        for b, q, m in _product(batch, queries, heads):
            total = value.new_zeros(value.shape[-1])
            for k, level in enumerate(levels):
                x, y = plan.locations[b, q, m, k]
                head = value[b, starts[level] :, m]
                total = total + plan.weights[b, q, m, k] * _read(head, shapes[level], x, y)
            rows.append(total)
        return torch.stack(rows).view(batch, queries, -1)


def _product(*counts: int) -> Iterator[tuple[int, ...]]:
    return (tuple(i.tolist()) for i in torch.cartesian_prod(*map(torch.arange, counts)))


def _read(
    cells: Float[Tensor, "N d"], shape: Size, x: Float[Tensor, ""], y: Float[Tensor, ""]
) -> Float[Tensor, "d"]:
    """Read one point. Cell i has its centre at (i + ½) / width, so we subtract ½."""
    height, width = shape
    u, v = x * width - 0.5, y * height - 0.5
    left, top = math.floor(u.item()), math.floor(v.item())
    value = cells.new_zeros(cells.shape[-1])
    for row, column in [(top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)]:
        if 0 <= row < height and 0 <= column < width:
            nearness = (1 - (u - column).abs()) * (1 - (v - row).abs())
            value = value + nearness * cells[row * width + column]
    return value


def _readable(values: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    # On the CPU, `grid_sample` of half precision computes addresses in 16 bits (torch 2.13). It
    # misreads a map whose last cell lies 32,768 numbers or more behind its first: a strided view.
    half = values.dtype in (torch.float16, torch.bfloat16) and values.device.type == "cpu"
    return values.float() if half else values


def _maps_per_head(
    value: Float[Tensor, "B N M d"], shapes: Shapes
) -> list[Float[Tensor, "BM d _ _"]]:
    by_head = value.permute(0, 2, 3, 1).flatten(0, 1)  # (B M) d N
    levels = by_head.split([height * width for height, width in shapes], dim=-1)
    return [level.unflatten(-1, shape) for level, shape in zip(levels, shapes, strict=True)]


def _weighted_sum(
    read: Float[Tensor, "BM d Q P"], weights: Float[Tensor, "B Q M P"]
) -> Float[Tensor, "B Q D"]:
    batch, queries, heads, num_points = weights.shape
    by_head = weights.transpose(1, 2).reshape(batch * heads, 1, queries, num_points)
    mixed = (read * by_head).sum(-1)  # (B M) d Q
    return mixed.unflatten(0, (batch, heads)).flatten(1, 2).transpose(1, 2)
