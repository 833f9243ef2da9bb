r"""# Deformable attention: where to look, how much, and what is there

- **Paper**     Deformable DETR §4.1, Eq. 3; RT-DETRv2 §2.1 (points per level, discrete sampling)
- **Notebook**  `notebooks/10_deformable_attention.ipynb`
- **Elsewhere** `MSDeformableAttention` (authors), `MultiscaleDeformableAttention` (transformers)

A query that attends to all 8400 tokens computes 8400 weights, and nearly all of them end up close
to zero. Deformable attention lets the query choose where to look. Two linear layers predict $P$
offsets $o$ and $P$ weights $A$ from the query, for each of $M$ heads. So a query reads only $M
\cdot P = 8 \cdot 12 = 96$ points in a layer.

The location of point $k$ of head $m$ is measured from the centre $c$ of the reference box:

$$ p_{mk} = c + \frac{o_{mk}}{K_l} \cdot \frac{(w, h)}{2} \tag{10.1} $$

The output is a weighted sum of the values read there. The weights of a head sum to 1, and $W_m$ is
the part of the output projection for head $m$:

$$ \mathrm{out} = \sum_m W_m \sum_{k=1}^{P} A_{mk} \, x\langle p_{mk} \rangle, \qquad
   \sum_k A_{mk} = 1 \tag{10.2} $$

In Eq. 10.1 $w$ and $h$ are the width and height of the reference box, so $w/2$ and $h/2$ are the
distances from its centre to its edges. So the points of a large box lie further apart. $K_l$ is the
number of points on the level. At the start of training the points of a head lie 1, 2, … $K_l$ steps
away. We divide by $K_l$, so the last one lies on the edge of the box.

Few points are enough: RT-DETRv2-S (Table 3) has 47.9 AP with four points per level, and 47.3 with
one.

How a value is read *between* cells, $x\langle p \rangle$, is a choice of its own: `samplers.py`.

| symbol | name         | shape       | meaning                                                    |
|--------|--------------|-------------|------------------------------------------------------------|
| $x$    | `value`      | `B N M d`   | the memory, projected and cut into heads of $d = D / M$    |
| $p$    | `locations`  | `B Q M P 2` | (x, y) in [0, 1] of the picture, levels one after another  |
| $A$    | `weights`    | `B Q M P`   | softmax over all points of a head, on all levels together  |
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rtdetr_lab.config import require
from rtdetr_lab.notation import Size
from rtdetr_lab.samplers import Bilinear, Sampler, SamplingPlan
from rtdetr_lab.taps import tap


def points_per_level(num_points: int | Sequence[int], num_levels: int) -> tuple[int, ...]:
    """Expand 4 to (4, 4, 4); check and keep a list. Raises `ConfigError`."""
    points = (num_points,) * num_levels if isinstance(num_points, int) else tuple(num_points)
    good = len(points) == num_levels and min(points) >= 0 and sum(points) > 0
    what = f"{num_points} does not say how many points each of {num_levels} levels gets"
    remedy = f"give one number, or {num_levels} numbers that are not all zero"
    require(good, "decoder.num_points", what, remedy)
    return points


class DeformableAttention(nn.Module):
    """Predict where to look and how much each point counts; a sampler reads the values."""

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
        # A gather has no derivative with respect to its index. Offsets without a gradient would
        # still drift by weight decay, so a sampler that cannot train them freezes them.
        self.sampling_offsets.requires_grad_(self.sampler.trains_offsets)

    def reset_parameters(self) -> None:
        """Start as a star: the k-th point of head m lies k steps from the centre, at angle 2πm/M.

        All points start with equal weights.
        """
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
        """Compute Eq. 10.2 for `queries` (content plus position) and boxes cxcywh in [0, 1]."""
        plan = self.plan(queries, reference_boxes)
        value = self.value_proj(memory).unflatten(2, (self.num_heads, -1))
        return self.output_proj(self.sampler(value, shapes, self.points, plan))

    def plan(
        self, queries: Float[Tensor, "B Q D"], reference_boxes: Float[Tensor, "B Q 4"]
    ) -> SamplingPlan:
        """Compute locations (Eq. 10.1) and weights, without reading any value."""
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
