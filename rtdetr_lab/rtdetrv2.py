r"""# RT-DETRv2: what changes

- **Paper**     "RT-DETRv2: Improved Baseline with Bag-of-Freebies", arXiv 2407.17140, §2
- **Notebook**  `notebooks/14_rtdetrv2.ipynb`
- **Elsewhere** authors' `RTDETRTransformerv2`; transformers' `RTDetrV2ForObjectDetection`

With its default settings, the network of v2 computes the same as v1. v2 adds two options and a
better training recipe:

| what | v1 | v2 |
|---|---|---|
| points per level | one number for all | one per level: `num_points=(4, 2, 1)` |
| reading a point | bilinear | bilinear, or `Discrete()`: a plain gather |
| offset scale | by the level's points | the same, stored as a vector |
| last epochs | full augmentation | no photometric, zoom-out, crop or multi-scale |
| backbone learning rate | 1e-5 for all | 1e-4 (r18), 5e-5 (r34), 1e-5 (r50), 1e-6 (r101) |

So **a v2 model with equal points and bilinear sampling is a v1 model**, to the last bit, and this
chapter needs no model of its own. Fewer points cost little: with 86,400 points read per picture
v2-S has 47.9 AP, with a quarter of them 47.3 (Table 3). Discrete sampling costs 0.5 AP (Table 4)
and does not need `grid_sample`, which many accelerators lack.

Discrete sampling is a *fine-tune*: train with bilinear sampling, then continue with
`discrete(cfg)`. Its offsets are frozen, because a gather has no derivative with respect to its
index.
"""

from dataclasses import replace

from rtdetr_lab.rtdetr import (
    RTDETRConfig,
    rtdetr_r18,
    rtdetr_r34,
    rtdetr_r50,
    rtdetr_r50_m,
    rtdetr_r101,
)
from rtdetr_lab.samplers import Discrete


def with_points(cfg: RTDETRConfig, num_points: int | tuple[int, ...]) -> RTDETRConfig:
    """Change the number of sampling points: one number for all levels, or one per level."""
    return replace(cfg, decoder=replace(cfg.decoder, num_points=num_points))


def discrete(cfg: RTDETRConfig, shift: float = 0.0) -> RTDETRConfig:
    """Read whole cells instead; `shift=0.5` is what checkpoints of the references expect."""
    return replace(cfg, decoder=replace(cfg.decoder, sampler=Discrete(shift)))


def rtdetrv2_r18(num_classes: int = 80) -> RTDETRConfig:
    """v2-S: 47.9 AP (v1: 46.5)."""
    return rtdetr_r18(num_classes)


def rtdetrv2_r34(num_classes: int = 80) -> RTDETRConfig:
    """v2-M: 49.9 AP (v1: 48.9)."""
    return rtdetr_r34(num_classes)


def rtdetrv2_r50_m(num_classes: int = 80) -> RTDETRConfig:
    """v2-M*: 51.9 AP (v1: 51.3)."""
    return rtdetr_r50_m(num_classes)


def rtdetrv2_r50(num_classes: int = 80) -> RTDETRConfig:
    """v2-L: 53.4 AP (v1: 53.1)."""
    return rtdetr_r50(num_classes)


def rtdetrv2_r101(num_classes: int = 80) -> RTDETRConfig:
    """v2-X: 54.3 AP, as v1."""
    return rtdetr_r101(num_classes)
