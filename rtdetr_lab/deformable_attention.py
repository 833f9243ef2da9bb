r"""# Deformable attention: where to look, how much, and what is there

- **Paper**     Deformable DETR §4.1, Eq. 3; RT-DETRv2 §2.1 (points per level, discrete sampling)
- **Notebook**  `notebooks/10_deformable_attention.ipynb`
- **Elsewhere** `MSDeformableAttention` (authors), `MultiscaleDeformableAttention` (transformers)

A query that attended to all 8400 tokens would compute 8400 weights to use a dozen. Deformable
attention asks the query itself where to look: two linear maps of its content give, for each of
$M$ heads, $P$ offsets and $P$ weights. It reads $M \cdot P = 96$ points and nothing else.

$$ p_{mk} = c + \frac{o_{mk}}{K_l} \cdot \frac{(w, h)}{2}, \qquad
   \mathrm{out} = \sum_m W_m \sum_{k=1}^{P} A_{mk} \, x\langle p_{mk} \rangle, \qquad
   \sum_k A_{mk} = 1 $$

$c, w, h$ are those of the reference box, so a large object is looked at in large strides. Dividing
by the number of points $K_l$ of the level makes the outermost initial point touch the box edge.

How a value is read *between* cells, $x\langle p \rangle$, is a separate choice, the **sampler**:

| sampler | reads | gradient to the location | used for |
|---|---|---|---|
| `Bilinear()` | the 4 cells around, by distance | yes | training, all of v1 |
| `Discrete()` | the cell that contains the point | no: offsets are frozen | RT-DETRv2 deployment |
| `Naive()` | as bilinear, one point at a time | yes | the check of the other two |

Outside the map bilinear reads zeros; discrete takes the nearest border cell, as in RT-DETRv2.

| symbol | name         | shape       | meaning                                                    |
|--------|--------------|-------------|------------------------------------------------------------|
| $x$    | `value`      | `B N M d`   | the tokens, projected and cut into heads                   |
| $p$    | `locations`  | `B Q M P 2` | (x, y) in [0, 1] of the picture, levels one after another  |
| $A$    | `weights`    | `B Q M P`   | softmax over all points of a head, of all levels together  |
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from rtdetr_lab.config import require
from rtdetr_lab.notation import Size, level_starts
from rtdetr_lab.structures import exportable
from rtdetr_lab.taps import tap


@exportable
@dataclass(frozen=True, eq=False)
class SamplingPlan:
    """Where every head of every query looks, and how much each look counts."""

    locations: Float[Tensor, "B Q M P 2"]
    weights: Float[Tensor, "B Q M P"]


class Sampler(Protocol):
    """Reads the plan's points from the value maps and adds them up, weighted."""

    trains_offsets: ClassVar[bool]

    def __call__(
        self,
        value: Float[Tensor, "B N M d"],
        shapes: Sequence[Size],
        points: Sequence[int],
        plan: SamplingPlan,
    ) -> Float[Tensor, "B Q D"]:
        """`points` are the sampling points per head on each level; they sum to P."""


@dataclass(frozen=True)
class Bilinear:
    """The mean of the four cells around a point, weighted by nearness; zero outside the map."""

    trains_offsets: ClassVar[bool] = True

    def __call__(
        self,
        value: Float[Tensor, "B N M d"],
        shapes: Sequence[Size],
        points: Sequence[int],
        plan: SamplingPlan,
    ) -> Float[Tensor, "B Q D"]:
        grid = (2 * plan.locations - 1).transpose(1, 2).flatten(0, 1)  # (B M) Q P 2, in [-1, 1]
        read = [
            F.grid_sample(level, where, mode="bilinear", align_corners=False)
            for level, where in zip(
                _maps_per_head(value, shapes), grid.split(list(points), dim=2), strict=True
            )
        ]
        return _weighted_sum(torch.cat(read, dim=-1), plan.weights)


@dataclass(frozen=True)
class Discrete:
    """The one cell that contains the point: a gather, which any accelerator has.

    `shift=0.5` looks half a cell further right and down, because the references add 0.5 before
    they truncate; checkpoints fine-tuned with theirs need it (`docs/differences.md`). With the
    default a point on a cell centre reads exactly what `Bilinear` reads.
    """

    shift: float = 0.0
    trains_offsets: ClassVar[bool] = False

    def __call__(
        self,
        value: Float[Tensor, "B N M d"],
        shapes: Sequence[Size],
        points: Sequence[int],
        plan: SamplingPlan,
    ) -> Float[Tensor, "B Q D"]:
        index = self.cells(plan.locations, shapes, points).transpose(1, 2)  # B M Q P
        by_head = value.transpose(1, 2)  # B M N d
        flat = index.flatten(2).unsqueeze(-1).expand(-1, -1, -1, by_head.shape[-1])
        read = by_head.gather(2, flat).unflatten(2, index.shape[2:])  # B M Q P d
        return _weighted_sum(read.flatten(0, 1).permute(0, 3, 1, 2), plan.weights)

    def cells(
        self,
        locations: Float[Tensor, "B Q M P 2"],
        shapes: Sequence[Size],
        points: Sequence[int],
    ) -> Int[Tensor, "B Q M P"]:
        """Token index of the cell each point reads; points outside read the border."""
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
class Naive:
    """Bilinear reading written as the definition says it, one point after the other. Slow."""

    trains_offsets: ClassVar[bool] = True

    def __call__(
        self,
        value: Float[Tensor, "B N M d"],
        shapes: Sequence[Size],
        points: Sequence[int],
        plan: SamplingPlan,
    ) -> Float[Tensor, "B Q D"]:
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
    """One point: cell i has its centre at (i + ½) / width, hence the half."""
    height, width = shape
    u, v = x * width - 0.5, y * height - 0.5
    left, top = math.floor(u), math.floor(v)
    value = cells.new_zeros(cells.shape[-1])
    for row, column in [(top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)]:
        if 0 <= row < height and 0 <= column < width:
            nearness = (1 - (u - column).abs()) * (1 - (v - row).abs())
            value = value + nearness * cells[row * width + column]
    return value


def _maps_per_head(
    value: Float[Tensor, "B N M d"], shapes: Sequence[Size]
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


def points_per_level(num_points: int | Sequence[int], num_levels: int) -> tuple[int, ...]:
    """4 → (4, 4, 4); a list is checked and kept. Raises `ConfigError`."""
    points = (num_points,) * num_levels if isinstance(num_points, int) else tuple(num_points)
    require(
        len(points) == num_levels and min(points) >= 0 and sum(points) > 0,
        "decoder.num_points",
        f"{num_points} does not say how many points each of {num_levels} levels gets",
        f"give one number, or {num_levels} numbers that are not all zero",
    )
    return points


class DeformableAttention(nn.Module):
    """The query says where to look and how much each look counts; a sampler reads."""

    def __init__(
        self, dim: int, num_heads: int, points: Sequence[int], sampler: Sampler | None = None
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.points = tuple(points)
        self.sampler = sampler or Bilinear()
        total = num_heads * sum(self.points)
        self.sampling_offsets = nn.Linear(dim, total * 2)
        self.attention_weights = nn.Linear(dim, total)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)
        self.reset_parameters()
        # A gather has no derivative by its index. Offsets that cannot learn must not drift by
        # weight decay either, so they are frozen with the choice of the sampler.
        self.sampling_offsets.requires_grad_(self.sampler.trains_offsets)

    def reset_parameters(self) -> None:
        """Head m starts looking in direction 2πm/M, its k-th point k steps out, all alike in
        weight: a star of rays over the box, before anything is learned."""
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
        for layer in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(layer.weight)
        for layer in (self.value_proj, self.output_proj, self.attention_weights):
            nn.init.zeros_(layer.bias)
        angle = torch.arange(self.num_heads) * (2 * math.pi / self.num_heads)
        ray = torch.stack([angle.cos(), angle.sin()], dim=-1)
        ray = ray / ray.abs().amax(-1, keepdim=True)
        steps = torch.cat([torch.arange(1, count + 1) for count in self.points])
        star = ray[:, None] * steps[None, :, None]  # M P 2
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(star.flatten())

    def forward(
        self,
        queries: Float[Tensor, "B Q D"],
        reference_boxes: Float[Tensor, "B Q 4"],
        memory: Float[Tensor, "B N D"],
        shapes: Sequence[Size],
    ) -> Float[Tensor, "B Q D"]:
        """`queries` are content plus position; `reference_boxes` are cxcywh in [0, 1]."""
        plan = self.plan(queries, reference_boxes)
        value = self.value_proj(memory).unflatten(2, (self.num_heads, -1))
        return self.output_proj(self.sampler(value, shapes, self.points, plan))

    def plan(
        self, queries: Float[Tensor, "B Q D"], reference_boxes: Float[Tensor, "B Q 4"]
    ) -> SamplingPlan:
        """Where to look and how much, without looking."""
        logits = self.attention_weights(queries).unflatten(2, (self.num_heads, -1))
        weights = tap("weights", logits.softmax(-1))
        offsets = self.sampling_offsets(queries).unflatten(2, (self.num_heads, -1, 2))
        centre, size = reference_boxes[:, :, None, None].split(2, dim=-1)
        per_level = [
            centre + part / count * size * 0.5
            for part, count in zip(offsets.split(self.points, dim=3), self.points, strict=True)
            if count
        ]
        return SamplingPlan(tap("locations", torch.cat(per_level, dim=3)), weights)
