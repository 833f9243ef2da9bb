r"""# D-FINE: the complete model

- **Paper**     "D-FINE: Redefine Regression Task in DETRs as Fine-grained Distribution Refinement",
  arXiv 2410.13842
- **Notebook**  `notebooks/21_dfine.ipynb`
- **Elsewhere** authors' `DFINE`; transformers' `DFineForObjectDetection`

D-FINE is RT-DETR with five parts exchanged. Everything between them stays: AIFI, query selection,
denoising, matching. So this chapter only puts values together:

| part      | RT-DETR                   | D-FINE                                  |
|-----------|---------------------------|-----------------------------------------|
| backbone  | ResNet-D, or HGNetv2      | HGNetv2 (`hgnetv2.py`)                  |
| neck      | CCFF                      | GELAN fusion (`gelan.py`)               |
| to memory | a projection of every map | nothing where the widths agree already  |
| decoder   | a step of the box         | distributions of four edges (`fdr.py`)  |
| losses    | class, L1, GIoU           | two more, on the distributions (`dfine_losses.py`) |

What each change is worth, as steps from RT-DETR-L (Table 3 of the paper):

```
RT-DETR-L 53.0 ─ no value and output projections 52.4 ─ gate 52.8 ─ GELAN 53.5 ─ half its width 52.8
  ─ points 3/6/3 52.9 ─ RT-DETRv2's recipe 53.0 ─ distributions and their losses 54.0
```

So speed is bought first and paid back by the distributions.

| preset    | backbone | width, expansion, blocks | layers | parameters | GFLOPs | AP   | ms (T4) |
|-----------|----------|--------------------------|--------|------------|--------|------|---------|
| `dfine_n` | B0       | 128, 0.34, 2             | 3      | 3.8 M      | 7      | 42.8 | 2.12    |
| `dfine_s` | B0       | 256, 0.5, 1              | 3      | 10.3 M     | 25     | 48.5 | 3.49    |
| `dfine_m` | B2       | 256, 1.0, 2              | 4      | 19.6 M     | 57     | 52.3 | 5.62    |
| `dfine_l` | B4       | 256, 1.0, 3              | 6      | 31.2 M     | 91     | 54.0 | 8.07    |
| `dfine_x` | B5       | 384, 1.0, 3              | 6      | 62.6 M     | 202    | 55.8 | 12.89   |

Width, expansion and blocks are those of the neck. GFLOPs and times are the published ones, of the
deployed form; times are with TensorRT in FP16.
N reads only two maps (strides 16 and 32), with six points on each. B0 and B2 train their batch
norms and have learned scales and shifts; B4 and B5 keep the norms of ImageNet.

`dfine_nano` is a model of ours, not the paper's N. It keeps the backbone of `rtdetr_nano`, its
width and its numbers of queries, heads and layers: 1.65 M parameters beside 1.68 M. So the two
differ in nothing but the ideas of this paper. The study `line` compares them.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from rtdetr_lab.aifi import AIFIConfig
from rtdetr_lab.config import extend
from rtdetr_lab.hybrid_encoder import HybridEncoderConfig, MemoryProjection
from rtdetr_lab.rtdetr import RTDETR, RTDETRConfig, rtdetr_nano
from rtdetr_lab.successors.dfine_losses import DFINECriterionConfig
from rtdetr_lab.successors.fdr import FDRConfig
from rtdetr_lab.successors.gelan import GELANConfig
from rtdetr_lab.successors.hgnetv2 import HGNetV2Config, hgnetv2_b4, hgnetv2_b5


@dataclass(frozen=True)
class DFINEConfig(RTDETRConfig):
    """Complete configuration of a D-FINE; the defaults are L."""

    backbone: Any = field(default_factory=hgnetv2_b4)
    encoder: Any = field(default_factory=lambda: _encoder(1.0, 3))
    decoder: FDRConfig = field(default_factory=FDRConfig)
    criterion: Any = field(default_factory=DFINECriterionConfig)

    def build(self) -> "DFINE":
        return DFINE(self)


class DFINE(RTDETR):
    """RT-DETR whose encoder maps are the memory themselves, if they have its width."""

    def make_memory(self, channels: tuple[int, ...]) -> MemoryProjection:
        """Project the maps of another width only."""
        made = super().make_memory(channels)
        for level, count in enumerate(channels):
            if count == self.cfg.decoder.dim:
                made[level] = nn.Identity()
        return made


def hgnetv2_b0() -> HGNetV2Config:
    """Backbone of D-FINE-N and -S."""
    return HGNetV2Config(
        stem=(16, 16),
        widths=(64, 256, 512, 1024),
        mid_widths=(16, 32, 64, 128),
        depths=(1, 1, 2, 1),
        num_layers=(3, 3, 3, 3),
        affine=True,
        norm=nn.BatchNorm2d,
    )


def hgnetv2_b2() -> HGNetV2Config:
    """Backbone of D-FINE-M."""
    return HGNetV2Config(
        stem=(24, 32),
        widths=(96, 384, 768, 1536),
        mid_widths=(32, 64, 128, 256),
        num_layers=(4, 4, 4, 4),
        affine=True,
        norm=nn.BatchNorm2d,
    )


def dfine_n(num_classes: int = 80) -> DFINEConfig:
    """D-FINE-N: two maps, width 128; 42.8 AP, 2.12 ms."""
    return DFINEConfig(
        num_classes,
        backbone=replace(hgnetv2_b0(), outputs=(3, 4)),
        encoder=_encoder(0.34, 2, dim=128, ffn_dim=512),
        decoder=FDRConfig(dim=128, num_layers=3, ffn_dim=512, num_levels=2, num_points=(6, 6)),
    )


def dfine_s(num_classes: int = 80) -> DFINEConfig:
    """D-FINE-S: 48.5 AP, 3.49 ms."""
    encoder, decoder = _encoder(0.5, 1), FDRConfig(num_layers=3)
    return DFINEConfig(num_classes, hgnetv2_b0(), encoder, decoder=decoder)


def dfine_m(num_classes: int = 80) -> DFINEConfig:
    """D-FINE-M: 52.3 AP, 5.62 ms."""
    encoder, decoder = _encoder(1.0, 2), FDRConfig(num_layers=4)
    return DFINEConfig(num_classes, hgnetv2_b2(), encoder, decoder=decoder)


def dfine_l(num_classes: int = 80) -> DFINEConfig:
    """D-FINE-L: 54.0 AP, 8.07 ms."""
    return DFINEConfig(num_classes)


def dfine_x(num_classes: int = 80) -> DFINEConfig:
    """D-FINE-X: 55.8 AP, 12.89 ms."""
    encoder = _encoder(1.0, 3, dim=384, ffn_dim=2048)
    return DFINEConfig(num_classes, hgnetv2_b5(), encoder, decoder=FDRConfig(scale=8.0))


def as_dfine(cfg: RTDETRConfig, expansion: float = 1.0, num_blocks: int = 3) -> DFINEConfig:
    """Exchange neck, decoder and losses of an RT-DETR; its sizes, backbone and queries stay.

    `expansion` and `num_blocks` are those of the neck.
    """
    return extend(
        cfg,
        DFINEConfig,
        encoder=replace(cfg.encoder, ccff=GELANConfig(expansion, num_blocks)),
        decoder=extend(cfg.decoder, FDRConfig, num_points=FDRConfig.num_points),
        criterion=extend(cfg.criterion, DFINECriterionConfig),
    )


def dfine_nano(num_classes: int = 80) -> DFINEConfig:
    """`rtdetr_nano` as a D-FINE, of the same size; not the paper's N."""
    return as_dfine(rtdetr_nano(num_classes), expansion=0.5, num_blocks=2)


def _encoder(
    expansion: float, num_blocks: int, dim: int = 256, ffn_dim: int = 1024
) -> HybridEncoderConfig:
    fusion = GELANConfig(expansion, num_blocks)
    return HybridEncoderConfig(dim, AIFIConfig(ffn_dim=ffn_dim), fusion)
