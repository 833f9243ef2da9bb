r"""# Embedding-bag samplers: deformable attention as a weighted sum of table rows

`grid_sample` writes every sampled value to memory before we weight and sum it: 8 heads × 300
queries × 12 points × 32 channels per layer. But a bilinear read *is* a weighted sum of four cells.
So the whole output of a head is one weighted sum of 48 rows of a table:

$$ \sum_k A_{mk}\, x\langle p_{mk} \rangle
   = \sum_k \sum_{c \in \text{4 corners}} A_{mk} \beta_{kc}\, x_{i_{kc}} $$

Language models do the same with bags of words: `embedding_bag`. Corners outside the map get weight
zero, like `grid_sample` with zero padding.

**Project after reading, not before.** `value_proj` is linear and `x⟨p⟩` is a sum, so they commute:
`GatherFirst` sums rows of the *memory*, and projects 300 × 8 sums instead of 8400 tokens. On a CPU
that is a twelfth of the work. On a GPU, products are nearly free and reads are not, so the
chapter's order is faster.

| form | table rows | used by |
|---|---|---|
| `BilinearBag()`, `DiscreteBag()` | token × head, d wide | `deploy` on the CPU, as samplers |
| `BagAttention`, with a bag | token × head, d wide | the CPU engine, where products are fast |
| `GatherFirst` | token, D wide | the CPU engine, instead of the whole module |
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from rtdetr_lab.deformable_attention import DeformableAttention
from rtdetr_lab.layers import cached_by_size
from rtdetr_lab.notation import Size, level_starts
from rtdetr_lab.samplers import Bilinear, Discrete, Points, Sampler, SamplingPlan, Shapes
from rtdetr_lab.taps import tap

Rows = tuple[Tensor, Tensor]
"""Token index and weight of every row that a head of a query reads: both `B Q M R`."""


class BagSampler(Sampler):
    """Sampler that can also return which rows it reads, and their weights."""

    @abstractmethod
    def rows(self, shapes: Shapes, points: Points, plan: SamplingPlan) -> Rows:
        """Return the token index and the weight of every row."""

    def read(self, value: Tensor, shapes: Shapes, points: Points, plan: SamplingPlan) -> Tensor:
        return _bag_of_heads(value, *self.rows(shapes, points, plan))


@dataclass(frozen=True)
class BilinearBag(BagSampler):
    """`Bilinear`, with four rows per point.

    The first of the four cells is moved into the map, so that all four lie in it. The weight of a
    cell is its nearness to the point along both axes, and zero from a distance of one cell on. So
    no case is needed for a point at the border or outside.
    """

    def rows(self, shapes: Shapes, points: Points, plan: SamplingPlan) -> Rows:
        where, weights = plan.locations, plan.weights
        axes = where.movedim(-1, 2).contiguous()  # B Q 2 M P: x and y apart are vectors
        grid = grid_of(tuple(shapes), tuple(points), weights.shape[2], axes.device, axes.dtype)
        # A point two cells outside the map reads nothing, so we clamp far points to there.
        at = (axes * grid.size - 0.5).clamp(min=-2.0).minimum(grid.size + 1.0)
        low = at.floor().clamp(min=0.0).minimum(grid.highest)
        x, y = low.unbind(2)
        first = (y * grid.size[0] + x + grid.start).int().clamp(min=0)  # NaN is no index

        away = at - low
        left, high = (1 - away.abs()).clamp(min=0.0).unbind(2)
        right, deep = (1 - (away - grid.step).abs()).clamp(min=0.0).unbind(2)
        high, deep = weights * high, weights * deep
        parts = torch.stack([high * left, high * right, deep * left, deep * right], dim=3)
        return (first.unsqueeze(3) + grid.cells).flatten(3), parts.flatten(3)


@dataclass(frozen=True)
class DiscreteBag(BagSampler):
    """`Discrete`, with one row per point."""

    shift: float = 0.0
    trains_offsets: ClassVar[bool] = False

    def rows(self, shapes: Shapes, points: Points, plan: SamplingPlan) -> Rows:
        return Discrete(self.shift).cells(plan.locations, shapes, points), plan.weights


def to_embedding_bag(sampler: Sampler) -> Sampler:
    """Return the bag that reads like a chapter's sampler; any other sampler stays as it is."""
    if type(sampler) is Bilinear:
        return BilinearBag()
    if type(sampler) is Discrete:
        return DiscreteBag(sampler.shift)
    return sampler


class BagAttention(DeformableAttention):
    """Deformable attention that computes its plan from one product and reads a bag."""

    def __init__(self, attention: DeformableAttention, sampler: BagSampler) -> None:
        nn.Module.__init__(self)  # we take over the parts and make no new ones
        self.num_heads, self.points = attention.num_heads, attention.points
        self.sampler: BagSampler = sampler
        self.offsets_and_weights = _joined(attention)
        self.value_proj, self.output_proj = attention.value_proj, attention.output_proj

    def plan(
        self, queries: Float[Tensor, "B Q D"], reference_boxes: Float[Tensor, "B Q 4"]
    ) -> SamplingPlan:
        """Compute the plan in the precision of the boxes."""
        exact = reference_boxes.dtype
        made = self.offsets_and_weights(queries).unflatten(2, (3, self.num_heads, -1)).to(exact)
        steps, logits = made[:, :, :2], made[:, :, 2]
        # torch's softmax of a dozen numbers is not vectorised.
        risen = (logits - logits.amax(-1, keepdim=True)).exp()
        weights = tap("weights", risen / risen.sum(-1, keepdim=True))
        centre, size = reference_boxes.unflatten(2, (2, 2, 1, 1)).unbind(2)  # B Q 2 1 1
        share = half_share(self.points, self.num_heads, exact, queries.device)
        axes = torch.addcmul(centre, steps * share, size)
        return SamplingPlan(tap("locations", axes.movedim(2, -1)), weights)


class GatherFirst(BagAttention):
    """`BagAttention` that reads first and projects the sums (Eq. 17.3, notebook 17)."""

    value_weight: Tensor
    value_bias: Tensor

    def __init__(self, attention: DeformableAttention, sampler: BagSampler) -> None:
        super().__init__(attention, sampler)
        del self.value_proj
        weight, bias = attention.value_proj.weight.detach(), attention.value_proj.bias.detach()
        by_head = weight.unflatten(0, (self.num_heads, -1))  # M d D
        self.register_buffer("value_weight", by_head.transpose(1, 2).contiguous())
        self.register_buffer("value_bias", bias.unflatten(0, (self.num_heads, 1, -1)))

    def forward(
        self,
        queries: Float[Tensor, "B Q D"],
        reference_boxes: Float[Tensor, "B Q 4"],
        memory: Float[Tensor, "B N D"],
        shapes: Shapes,
    ) -> Float[Tensor, "B Q D"]:
        plan = self.plan(queries, reference_boxes)
        index, weights = self.sampler.rows(shapes, self.points, plan)
        read = _bag(memory, index, weights).flatten(0, 1).transpose(0, 1)  # M BQ D
        # The bias is added for every cell inside the map, and not outside.
        share = weights.sum(-1).flatten(0, 1).T.unsqueeze(-1).to(read.dtype)  # M BQ 1
        mixed = torch.baddbmm(self.value_bias * share, read, self.value_weight)
        return self.output_proj(mixed.transpose(0, 1).reshape(queries.shape))


def _joined(attention: DeformableAttention) -> nn.Linear:
    """Make one linear map of two: all x, then all y of the offsets, then the weights."""
    offsets, weights = attention.sampling_offsets, attention.attention_weights
    both = []
    for name in ("weight", "bias"):
        steps = offsets.get_parameter(name).detach().unflatten(0, (-1, 2)).transpose(0, 1)
        both.append(torch.cat([steps.flatten(0, 1), weights.get_parameter(name).detach()]))
    made = nn.Linear(offsets.in_features, len(both[1])).to(both[0])
    made.weight, made.bias = (nn.Parameter(part, requires_grad=False) for part in both)
    return made


@cached_by_size
def half_share(
    points: tuple[int, ...], heads: int, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "M P"]:
    """Return half of one over the number of points of every point's level."""
    counts = torch.tensor([count for count in points for _ in range(count)], device=device)
    return (0.5 / counts.to(dtype)).repeat(heads, 1)


@dataclass(frozen=True)
class Grid:
    """Constants of the level of every point, for every head."""

    size: Float[Tensor, "2 M P"]
    """Width and height."""
    highest: Float[Tensor, "2 M P"]
    """Largest column and row of the first of four cells."""
    step: Float[Tensor, "2 M P"]
    """Distance to the next cell; infinite where there is none."""
    start: Float[Tensor, "M P"]
    """First token."""
    cells: Int[Tensor, "4 P"]
    """Tokens from the first cell to each of the four."""


@cached_by_size
def grid_of(
    shapes: tuple[Size, ...],
    points: tuple[int, ...],
    heads: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Grid:
    """Build the constants; tokens are counted in floating point, exact below 2²⁴."""
    height, width, start = layout(shapes, points, device).unbind(1)
    size = torch.stack([width, height])
    several = size > 1
    step = torch.ones_like(size, dtype=dtype).masked_fill(~several, torch.inf)
    right, below = several.int() * torch.stack([torch.ones_like(width), width])
    cells = torch.stack([torch.zeros_like(right), right, below, right + below])

    def per_head(part: Tensor) -> Tensor:
        return part.unsqueeze(-2).expand(*part.shape[:-1], heads, -1).to(dtype).contiguous()

    highest = per_head((size - 2).clamp(min=0))
    return Grid(per_head(size), highest, per_head(step), per_head(start), cells)


@cached_by_size
def layout(
    shapes: tuple[Size, ...], points: tuple[int, ...], device: torch.device
) -> Int[Tensor, "P 3"]:
    """Return the height, width and first token of every point's level."""
    rows = [(h, w, s) for (h, w), s in zip(shapes, level_starts(shapes), strict=True)]
    table = torch.tensor(rows, dtype=torch.int32, device=device)
    return table.repeat_interleave(torch.tensor(points, device=device), 0).contiguous()


def _bag(
    table: Float[Tensor, "B N D"], index: Int[Tensor, "B Q M R"], weights: Float[Tensor, "B Q M R"]
) -> Float[Tensor, "B Q M D"]:
    """Sum weighted rows, for every query and head, from the table of its own picture."""
    batch, num_tokens, _ = table.shape
    first = _first_rows(batch, num_tokens, index)
    return _sum_rows(table.flatten(0, 1), index + first, weights)


def _bag_of_heads(
    value: Float[Tensor, "B N M d"],
    index: Int[Tensor, "B Q M R"],
    weights: Float[Tensor, "B Q M R"],
) -> Float[Tensor, "B Q D"]:
    """Sum weighted rows of a table with a row per token *and* head; a head reads its own rows."""
    batch, num_tokens, heads, _ = value.shape
    first = _first_rows(batch, num_tokens * heads, index)
    head = torch.arange(heads, device=index.device, dtype=index.dtype).view(1, 1, -1, 1)
    row = index * heads + head + first
    return _sum_rows(value.flatten(0, 2), row, weights).flatten(2)


def _first_rows(batch: int, rows: int, index: Tensor) -> Int[Tensor, "B 1 1 1"]:
    """Return the row in the table where every picture begins; 64 bits where they are needed."""
    dtype = index.dtype if batch * rows < 2**31 else torch.int64
    return torch.arange(batch, device=index.device, dtype=dtype).view(-1, 1, 1, 1) * rows


def _sum_rows(
    table: Float[Tensor, "T D"], row: Int[Tensor, "B Q M R"], weights: Float[Tensor, "B Q M R"]
) -> Float[Tensor, "B Q M D"]:
    rows, shares = row.flatten(0, 2), weights.flatten(0, 2).to(table.dtype)
    summed = F.embedding_bag(rows, table, mode="sum", per_sample_weights=shares)
    return summed.unflatten(0, row.shape[:3])
