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
    """`Bilinear`, with four rows per point."""

    def rows(self, shapes: Shapes, points: Points, plan: SamplingPlan) -> Rows:
        where, weights = plan.locations, plan.weights
        height, width, start = layout(tuple(shapes), tuple(points), where.device).unbind(1)
        size = torch.stack([width, height], 1).float()
        # A point two cells outside the map reads nothing, so we clamp far points to there.
        at = (where * size - 0.5).clamp(min=-2.0).minimum(size + 1.0)
        low = at.floor()
        share = at - low
        low, last = low.long(), size.long() - 1
        index, parts = [], []
        for right, below in ((0, 0), (1, 0), (0, 1), (1, 1)):
            cell = low + torch.tensor([right, below], device=low.device)
            inside = ((cell >= 0) & (cell <= last)).all(-1)
            x, y = cell.clamp(min=0).minimum(last).unbind(-1)
            along = share[..., 0] if right else 1 - share[..., 0]
            down = share[..., 1] if below else 1 - share[..., 1]
            index.append(start + y * (last[:, 0] + 1) + x)
            parts.append(weights * (along * down * inside).to(weights.dtype))
        return torch.cat(index, dim=-1), torch.cat(parts, dim=-1)


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


class GatherFirst(DeformableAttention):
    """Deformable attention that reads first and projects the sums (Eq. 17.3, notebook 17)."""

    value_weight: Tensor
    value_bias: Tensor

    def __init__(self, attention: DeformableAttention, sampler: BagSampler) -> None:
        nn.Module.__init__(self)  # we take over the parts and make no new ones
        self.num_heads, self.points = attention.num_heads, attention.points
        self.bag = sampler
        self.sampling_offsets = attention.sampling_offsets
        self.attention_weights = attention.attention_weights
        self.output_proj = attention.output_proj
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
        index, weights = self.bag.rows(shapes, self.points, plan)
        read = _bag(memory, index, weights).flatten(0, 1).transpose(0, 1)  # M BQ D
        # The bias is added for every cell inside the map, and not outside.
        share = weights.sum(-1).flatten(0, 1).T.unsqueeze(-1)  # M BQ 1
        mixed = torch.baddbmm(self.value_bias * share, read, self.value_weight)
        return self.output_proj(mixed.transpose(0, 1).reshape(queries.shape))


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
    first = torch.arange(batch, device=index.device).view(-1, 1, 1, 1) * num_tokens
    return _sum_rows(table.flatten(0, 1), index + first, weights)


def _bag_of_heads(
    value: Float[Tensor, "B N M d"],
    index: Int[Tensor, "B Q M R"],
    weights: Float[Tensor, "B Q M R"],
) -> Float[Tensor, "B Q D"]:
    """Sum weighted rows of a table with a row per token *and* head; a head reads its own rows."""
    batch, num_tokens, heads, _ = value.shape
    first = torch.arange(batch, device=index.device).view(-1, 1, 1, 1) * num_tokens
    head = torch.arange(heads, device=index.device).view(1, 1, -1, 1)
    row = (index + first) * heads + head
    return _sum_rows(value.flatten(0, 2), row, weights).flatten(2)


def _sum_rows(
    table: Float[Tensor, "T D"], row: Int[Tensor, "B Q M R"], weights: Float[Tensor, "B Q M R"]
) -> Float[Tensor, "B Q M D"]:
    rows, shares = row.flatten(0, 2), weights.flatten(0, 2).to(table.dtype)
    summed = F.embedding_bag(rows, table, mode="sum", per_sample_weights=shares)
    return summed.unflatten(0, row.shape[:3])
