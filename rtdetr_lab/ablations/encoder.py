r"""# Encoder: what should happen to the scales before boxes are proposed?

- **Paper**     RT-DETR §4.2, Fig. 3, Table 3 (R50, 12 epochs)
- **Study**     `rtdetr-lab ablate encoder`

The paper derives its encoder in five steps. The first transformer encoders mix two tasks, and the
steps separate them: exchange *within* a scale, and exchange *across* scales.

| variant | within a scale                    | across scales        | AP   | params | ms   |
|---------|-----------------------------------|----------------------|------|--------|------|
| A       | none                              | none                 | 43.0 | 31 M   | 7.2  |
| B       | attention, one layer for all      | none                 | 44.9 | 32 M   | 11.1 |
| C       | attention over all tokens at once | the same attention   | 45.6 | 32 M   | 13.3 |
| D       | attention, one layer for all      | PANet's convolutions | 46.4 | 35 M   | 12.2 |
| D_S5    | attention on S5 only              | PANet's convolutions | 46.8 | 35 M   | 7.9  |
| E       | attention on S5 only (AIFI)       | CCFF                 | 47.9 | 42 M   | 9.3  |

`StagedEncoder` runs `project`, then `within`, then `across`. Each of the last two is a config with
`build()`, or None. E is the model's own `HybridEncoderConfig`, which we do not rebuild here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rtdetr_lab.ablations.variant import variant
from rtdetr_lab.aifi import AIFIConfig, AIFILayer
from rtdetr_lab.ccff import upsample_to
from rtdetr_lab.layers import ConvNormAct, sine_2d
from rtdetr_lab.notation import maps_from_tokens, tokens_from_maps
from rtdetr_lab.rtdetr import RTDETRConfig


@dataclass(frozen=True)
class EachScale:
    """One transformer layer, applied with the same weights to every scale."""

    layer: AIFIConfig = field(default_factory=AIFIConfig)

    def build(self, dim: int, num_levels: int) -> nn.Module:
        return _Attend(self.layer.build(dim), first=0)


@dataclass(frozen=True)
class CoarsestScale(EachScale):
    """A transformer layer on the coarsest map only, as in AIFI; the other maps pass unchanged."""

    def build(self, dim: int, num_levels: int) -> nn.Module:
        return _Attend(self.layer.build(dim), first=-1)


@dataclass(frozen=True)
class AllScales(EachScale):
    """A transformer layer over the tokens of all scales in one sequence."""

    def build(self, dim: int, num_levels: int) -> nn.Module:
        return _AllScales(self.layer, dim, num_levels)


@dataclass(frozen=True)
class PANet:
    """Top-down, then bottom-up: add the neighbour scale, then a 3×3 convolution (Liu et al. 2018).

    CCFF takes the same paths, but concatenates and fuses with RepVGG blocks.
    """

    def build(self, dim: int, num_levels: int) -> nn.Module:
        return _PANet(dim, num_levels)


@dataclass(frozen=True)
class StagedEncoder:
    """Project to `dim`, then `within` each scale, then `across` them; None leaves a stage out."""

    dim: int = 256
    within: Any = None
    across: Any = None

    def build(self, channels: Sequence[int]) -> "Staged":
        """`channels` are those of the backbone's maps, from fine to coarse."""
        return Staged(self, channels)


class Staged(nn.Module):
    """Convert the maps of a backbone to as many maps of width D."""

    def __init__(self, cfg: StagedEncoder, channels: Sequence[int]) -> None:
        super().__init__()
        self.cfg = cfg
        self.channels = (cfg.dim,) * len(channels)
        self.project = nn.ModuleList(ConvNormAct(c, cfg.dim, 1) for c in channels)
        stages = [s for s in (cfg.within, cfg.across) if s is not None]
        self.stages = nn.ModuleList(s.build(cfg.dim, len(channels)) for s in stages)

    def forward(self, maps: Sequence[Float[Tensor, "B _ _ _"]]) -> list[Float[Tensor, "B D _ _"]]:
        seen = [project(m) for project, m in zip(self.project, maps, strict=True)]
        for stage in self.stages:
            seen = stage(seen)
        return seen


class _Attend(nn.Module):
    """Attention inside each map from `first` on; the finer maps pass unchanged."""

    def __init__(self, attend: nn.Module, first: int) -> None:
        super().__init__()
        self.attend, self.first = attend, first

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return [*maps[: self.first], *(self.attend(m) for m in maps[self.first :])]


class _AllScales(nn.Module):
    """One transformer layer over all scales; a learned vector per map distinguishes the maps."""

    def __init__(self, cfg: AIFIConfig, dim: int, num_levels: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.layers = nn.ModuleList(AIFILayer(cfg, dim) for _ in range(cfg.num_layers))
        self.level = nn.Parameter(torch.empty(num_levels, dim))
        nn.init.normal_(self.level)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        shapes = [(m.shape[-2], m.shape[-1]) for m in maps]
        x, where = tokens_from_maps(maps), []
        for (height, width), level in zip(shapes, self.level, strict=True):
            sine = sine_2d(height, width, len(level), self.cfg.temperature, x.device, x.dtype)
            where.append(sine + level)
        positions = torch.cat(where, dim=1)
        for layer in self.layers:
            x = layer(x, positions)
        return list(maps_from_tokens(x, shapes))


class _PANet(nn.Module):
    def __init__(self, dim: int, num_levels: int) -> None:
        super().__init__()
        steps = range(num_levels - 1)
        self.top_down = nn.ModuleList(ConvNormAct(dim, dim, 3) for _ in steps)
        self.downsample = nn.ModuleList(ConvNormAct(dim, dim, 3, stride=2) for _ in steps)
        self.bottom_up = nn.ModuleList(ConvNormAct(dim, dim, 3) for _ in steps)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        down = [maps[-1]]
        for finer, fuse in zip(reversed(maps[:-1]), self.top_down, strict=True):
            down.insert(0, fuse(finer + upsample_to(down[0], finer)))
        up = [down[0]]
        for coarser, shrink, fuse in zip(down[1:], self.downsample, self.bottom_up, strict=True):
            up.append(fuse(coarser + shrink(up[-1])))
        return up


def _staged(cfg: RTDETRConfig, within: type | None, across: Any) -> RTDETRConfig:
    layer = cfg.encoder.aifi or AIFIConfig()
    stage = None if within is None else within(layer)
    return replace(cfg, encoder=StagedEncoder(cfg.encoder.dim, stage, across))


def a(cfg: RTDETRConfig) -> RTDETRConfig:
    """Without an encoder the decoder reads the backbone's maps directly: fastest and worst."""
    return _staged(cfg, None, None)


def b(cfg: RTDETRConfig) -> RTDETRConfig:
    """Attention within each scale gives every cell more context: better than A, slower."""
    return _staged(cfg, EachScale, None)


def c(cfg: RTDETRConfig) -> RTDETRConfig:
    """Attention over all tokens of all scales also fuses the scales: a little better than B, and
    the slowest of all."""
    return _staged(cfg, AllScales, None)


def d(cfg: RTDETRConfig) -> RTDETRConfig:
    """Attention within scales, then convolution across scales: better than C, and faster."""
    return _staged(cfg, EachScale, PANet())


def d_s5(cfg: RTDETRConfig) -> RTDETRConfig:
    """Fine maps need no attention between distant cells: attention on S5 alone loses nothing
    against D and saves a third of the time."""
    return _staged(cfg, CoarsestScale, PANet())


def e(cfg: RTDETRConfig) -> RTDETRConfig:
    """The hybrid encoder: CCFF in place of PANet fuses the scales best of all."""
    return cfg


ENCODERS = tuple(variant(row, row.__name__.upper()) for row in (a, b, c, d, d_s5, e))
"""The rows of Table 3, in the paper's order."""
