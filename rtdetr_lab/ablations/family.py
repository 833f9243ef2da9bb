r"""# Family: the first detection transformer against the real-time one

- **Paper**     DETR (42.0 AP after 500 epochs), RT-DETR (53.1 AP after 72)
- **Study**     `rtdetr-lab ablate detr-vs-rtdetr`

Both models have the same backbone (RT-DETR's, with the same initial weights and the same pixels),
the same width and the same number of pictures. All other differences are those of the two papers:
DETR has one coarse scale and learned queries; RT-DETR has three scales, proposals, deformable
attention and denoising.
"""

from dataclasses import replace

from rtdetr_lab.ablations.variant import variant
from rtdetr_lab.detr.model import DETRConfig, detr_nano, detr_r50
from rtdetr_lab.rtdetr import RTDETRConfig

WIDE = 256
"""Decoder width of all published models; a smaller one means nano."""


def rt_detr(cfg: RTDETRConfig) -> RTDETRConfig:
    """With several scales, proposals and denoising a detection transformer learns from a fraction
    of the pictures."""
    return cfg


def detr(cfg: RTDETRConfig) -> DETRConfig:
    """With learned queries and one coarse map it learns slowly, and misses small objects."""
    preset = detr_r50 if cfg.decoder.dim >= WIDE else detr_nano
    coarse = replace(cfg.backbone, outputs=cfg.backbone.outputs[-1:])
    other = preset(num_classes=cfg.num_classes)
    # RT-DETR's backbone was trained on pixels in [0, 1], without mean and std.
    return replace(other, backbone=coarse, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


FAMILY = (variant(rt_detr, "RT-DETR"), variant(detr, "DETR"))
