r"""# Ladder: from DETR's ideas to RT-DETR's, one step at a time

- **Paper**     none has this table: papers compare their model with the one before, as a whole
- **Study**     `rtdetr-lab ablate ladder`

RT-DETR and DETR differ in five ideas that can be switched one by one in the same model:

| idea | without it | from |
|---|---|---|
| maps | one map of stride 16, as in DETR-DC5 | Deformable DETR §4.2 |
| deformable | every query attends to every token | Deformable DETR §4.1 |
| selected | learned contents and boxes, and no loss for proposals | Deformable DETR §4.3 |
| denoising | none | DN-DETR §3, DINO §3.3 |
| varifocal | focal loss | RT-DETR §4.3 |

Backbone, width, depth and recipe stay the same, so every step has one cause. What a step is worth
depends on what is there already. So the study walks up twice: in the order of the table, and in the
opposite order. If an idea is worth the same on both ways, it works alone. If not, it needs another
one, or replaces it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rtdetr_lab.ablations.variant import Change, Put, Variant, derived
from rtdetr_lab.criterion import Criterion, CriterionConfig
from rtdetr_lab.decoder import DecoderConfig, DecoderLayer
from rtdetr_lab.hybrid_encoder import HybridEncoder, HybridEncoderConfig
from rtdetr_lab.layers import Attention, sine_2d
from rtdetr_lab.losses import Focal
from rtdetr_lab.notation import Size
from rtdetr_lab.query_selection import QuerySelection, Selection, TopScore
from rtdetr_lab.rtdetr import RTDETRConfig
from rtdetr_lab.structures import LayerPrediction, Prediction


@dataclass(frozen=True)
class OneMap(HybridEncoderConfig):
    """Read only the middle one of the backbone's maps."""

    def build(self, channels: Sequence[int]) -> HybridEncoder:
        return _OneMap(self, channels)


class _OneMap(HybridEncoder):
    def __init__(self, cfg: OneMap, channels: Sequence[int]) -> None:
        self.middle = slice(len(channels) // 2, len(channels) // 2 + 1)
        super().__init__(cfg, channels[self.middle])

    def forward(self, maps: Sequence[Float[Tensor, "B _ _ _"]]) -> list[Float[Tensor, "B D _ _"]]:
        return super().forward(maps[self.middle])


@dataclass(frozen=True)
class Dense(DecoderConfig):
    """A decoder whose queries attend to all tokens, as in DETR."""

    def layer(self) -> DecoderLayer:
        return _DenseLayer(self)


class _DenseLayer(DecoderLayer):
    def __init__(self, cfg: Dense) -> None:
        super().__init__(cfg)
        self.cross_attn: Any = _DenseAttention(cfg.dim, cfg.num_heads)


class _DenseAttention(nn.Module):
    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.attention = Attention(dim, num_heads)

    def forward(
        self,
        queries: Float[Tensor, "B Q D"],
        reference_boxes: Float[Tensor, "B Q 4"],
        memory: Float[Tensor, "B N D"],
        shapes: Sequence[Size],
    ) -> Float[Tensor, "B Q D"]:
        place, dim = (memory.device, memory.dtype), memory.shape[-1]
        positions = torch.cat([sine_2d(*shape, dim, 10000.0, *place) for shape in shapes], dim=1)
        return self.attention(queries, memory + positions, memory)


@dataclass(frozen=True)
class Learned(TopScore):
    """Queries with a learned content and a learned box, the same for every picture."""

    def build(self, dim: int) -> QuerySelection:
        return _Learned(self, dim)


class _Learned(QuerySelection):
    def __init__(self, cfg: Learned, dim: int) -> None:
        super().__init__(cfg)
        self.content = nn.Parameter(torch.randn(cfg.num_queries, dim))
        centre = torch.logit(torch.rand(cfg.num_queries, 2), eps=0.02)
        self.box_logits = nn.Parameter(torch.cat([centre, torch.full_like(centre, -2.0)], dim=1))

    def forward(
        self,
        tokens: Float[Tensor, "B N D"],
        logits: Float[Tensor, "B N C"],
        box_logits: Float[Tensor, "B N 4"],
    ) -> Selection:
        batch, count = tokens.shape[0], self.num_kept(logits.amax(-1))
        index = torch.arange(count, device=tokens.device).expand(batch, -1)
        content, boxes = (
            part[:count].to(tokens.dtype).expand(batch, -1, -1)
            for part in (self.content, self.box_logits)
        )
        return Selection(index, content, boxes)


@dataclass(frozen=True)
class DecoderOnly(CriterionConfig):
    """A criterion without a loss for proposals."""

    def build(self) -> Criterion:
        return _DecoderOnly(self)


class _DecoderOnly(Criterion):
    def layers(self, prediction: Prediction) -> Iterator[tuple[str, LayerPrediction]]:
        return (pair for pair in super().layers(prediction) if pair[0] != ".proposals")


def one_map(cfg: RTDETRConfig) -> RTDETRConfig:
    """Read one map."""
    points = cfg.decoder.num_points
    points = points if isinstance(points, int) else points[len(points) // 2]
    decoder = replace(cfg.decoder, num_levels=1, num_points=points)
    return replace(cfg, encoder=derived(OneMap, cfg.encoder), decoder=decoder)


def dense(cfg: RTDETRConfig) -> RTDETRConfig:
    """Attend to all tokens."""
    return replace(cfg, decoder=derived(Dense, cfg.decoder))


def learned(cfg: RTDETRConfig) -> RTDETRConfig:
    """Learn the queries."""
    criterion = derived(DecoderOnly, cfg.criterion)
    return replace(cfg, selection=Learned(cfg.selection.num_queries), criterion=criterion)


IDEAS: dict[str, tuple[Change, str]] = {
    "maps": (one_map, "Small objects need a fine map, large ones a coarse one."),
    "deformable": (dense, "A dozen points near a box are found sooner than one of 8400 tokens."),
    "selected": (learned, "A query that begins on an object has less to learn."),
    "denoising": (
        Put("denoising", None),
        "Noised boxes teach the decoder before the matching is stable.",
    ),
    "varifocal": (
        Put("criterion.classification", Focal()),
        "Scores that say how well a box fits rank better.",
    ),
}
"""Name → what takes the idea away, and why it should help; in the order of the first way up."""


@dataclass(frozen=True)
class Without:
    """A change that takes some of the ideas away."""

    ideas: tuple[str, ...]

    def __call__(self, cfg: RTDETRConfig) -> RTDETRConfig:
        for idea in self.ideas:
            cfg = IDEAS[idea][0](cfg)
        return cfg


def _way_up(names: list[str]) -> tuple[Variant, ...]:
    """Return a row per idea but the last, each with all the ideas before it."""
    return tuple(
        Variant(
            " + ".join(names[:count]), Without(tuple(names[count:])), IDEAS[names[count - 1]][1]
        )
        for count in range(1, len(names))
    )


LADDER = (
    Variant("none", Without(tuple(IDEAS)), "Learning from DETR's ideas alone takes many epochs."),
    *_way_up(list(IDEAS)),
    *_way_up(list(reversed(IDEAS))),
    Variant("RT-DETR", Without(()), "All five ideas."),
)
"""The rows: none, then one idea more in each row, on both ways; the reference has all."""
