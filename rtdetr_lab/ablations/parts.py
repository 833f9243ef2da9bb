r"""# Parts: what does it cost to leave a part out?

- **Paper**     none has this table: RT-DETR's tables change one part on one data set
- **Study**     `rtdetr-lab ablate parts --world far`

Each row takes one part away, or weakens it. The worlds (`data/shapes_worlds.py`) decide whether the
part had a job: a row that costs nothing in the plain world may cost much in another one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from rtdetr_lab.ablations.decoder import once
from rtdetr_lab.ablations.encoder import a, d_s5
from rtdetr_lab.ablations.selection import vanilla
from rtdetr_lab.ablations.variant import Put, Variant, derived, variant
from rtdetr_lab.ccff import CCFF, CCFFConfig
from rtdetr_lab.decoder import DecoderConfig, DecoderLayer
from rtdetr_lab.losses import BinaryCrossEntropy
from rtdetr_lab.notation import Size
from rtdetr_lab.query_selection import QuerySelection, TopScore
from rtdetr_lab.rtdetr import RTDETRConfig


@dataclass(frozen=True)
class OneWay(CCFFConfig):
    """CCFF with only one of its two paths."""

    down: bool = True

    def build(self, dim: int, num_levels: int) -> "CCFF":
        return _OneWay(self, dim, num_levels)


class _OneWay(CCFF):
    def __init__(self, cfg: OneWay, dim: int, num_levels: int) -> None:
        super().__init__(cfg, dim, num_levels)
        self.path = self._top_down if cfg.down else self._bottom_up
        for unused in ("downsample", "bottom_up") if cfg.down else ("lateral", "top_down"):
            setattr(self, unused, nn.ModuleList())

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return self.path(list(maps))


@dataclass(frozen=True)
class RandomTokens(TopScore):
    """Take tokens at random, not those with the best scores."""

    def build(self, dim: int) -> QuerySelection:
        return _RandomTokens(self)


class _RandomTokens(QuerySelection):
    def forward(self, tokens: Tensor, logits: Tensor, box_logits: Tensor) -> Any:
        # a fixed order: what is chosen must not change between two evaluations
        draw = torch.Generator().manual_seed(tokens.shape[1])
        score = torch.rand(logits.shape[1], generator=draw).to(logits)
        return super().forward(tokens, score[None, :, None].expand_as(logits), box_logits)


@dataclass(frozen=True)
class Alone(DecoderConfig):
    """A decoder whose queries do not see each other."""

    def layer(self) -> DecoderLayer:
        return _Alone(self)


class _Alone(DecoderLayer):
    def forward(
        self,
        content: Tensor,
        position: Tensor,
        reference: Tensor,
        memory: Tensor,
        shapes: Sequence[Size],
        blocked: Tensor | None,
    ) -> Tensor:
        others = ~torch.eye(content.shape[1], dtype=torch.bool, device=content.device)
        return super().forward(content, position, reference, memory, shapes, others)


def full(cfg: RTDETRConfig) -> RTDETRConfig:
    """The whole model."""
    return cfg


def no_top_down(cfg: RTDETRConfig) -> RTDETRConfig:
    """Fine maps then lack the context of coarse ones: small objects are named less well."""
    return _with_ccff(cfg, OneWay(expansion=cfg.encoder.ccff.expansion, down=False))


def no_bottom_up(cfg: RTDETRConfig) -> RTDETRConfig:
    """Coarse maps then lack the detail of fine ones: boxes of large objects fit less tightly."""
    return _with_ccff(cfg, OneWay(expansion=cfg.encoder.ccff.expansion, down=True))


def random_tokens(cfg: RTDETRConfig) -> RTDETRConfig:
    """Queries that begin anywhere have a long way to the objects, and more layers to go."""
    return replace(cfg, selection=RandomTokens(cfg.selection.num_queries))


def alone(cfg: RTDETRConfig) -> RTDETRConfig:
    """Queries that do not see each other find the same object several times."""
    return replace(cfg, decoder=derived(Alone, cfg.decoder))


def _with_ccff(cfg: RTDETRConfig, ccff: CCFFConfig) -> RTDETRConfig:
    return replace(cfg, encoder=replace(cfg.encoder, ccff=ccff))


_FEWER_LAYERS = "Each layer refines boxes and scores again."
_FEWER_POINTS = "Fewer points see less of an object."

PARTS = (
    variant(full),
    Variant("no AIFI", Put("encoder.aifi", None), "S5 then sees only what convolutions bring."),
    variant(no_top_down),
    variant(no_bottom_up),
    variant(d_s5, "PANet"),
    variant(a, "no encoder"),
    variant(vanilla, "vanilla selection"),
    variant(random_tokens),
    variant(alone, "no query attention"),
    Variant("2 layers", Put("decoder.num_layers", 2), _FEWER_LAYERS),
    Variant("1 layer", Put("decoder.num_layers", 1), _FEWER_LAYERS),
    Variant("2 points", Put("decoder.num_points", 2), _FEWER_POINTS),
    Variant("1 point", Put("decoder.num_points", 1), _FEWER_POINTS),
    Variant("middle level only", Put("decoder.num_points", (0, 4, 0)), "Levels divide the work."),
    Variant("no denoising", Put("denoising", None), "The decoder must wait for a stable matching."),
    Variant("BCE", Put("criterion.classification", BinaryCrossEntropy()), "Background dominates."),
    variant(once, "look forward once"),
)
"""The rows of the matrix; the first is the base."""
