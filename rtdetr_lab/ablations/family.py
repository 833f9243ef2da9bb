r"""# Family: the first detection transformer against the real-time one

- **Paper**     DETR (42.0 AP after 500 epochs), RT-DETR (53.1 AP after 72)
- **Study**     `rtdetr-lab ablate detr-vs-rtdetr`

The same backbone (RT-DETR's, beginning with the same weights, seeing the same pixels), the same
width and number of pictures; everything else is what lies between two papers: one coarse scale and
learned queries there, three scales, proposals, deformable attention and denoising here.
"""

from dataclasses import replace

from rtdetr_lab.ablations.variant import variant
from rtdetr_lab.detr.model import DETRConfig, detr_nano, detr_r50
from rtdetr_lab.rtdetr import RTDETRConfig

WIDE = 256
"""The decoder's width in all published models; below it is a nano."""


def rt_detr(cfg: RTDETRConfig) -> RTDETRConfig:
    """Several scales, proposals and denoising let a detection transformer learn in a fraction of
    the pictures."""
    return cfg


def detr(cfg: RTDETRConfig) -> DETRConfig:
    """Learned queries and one coarse map: slow to learn, and blind to small objects."""
    preset = detr_r50 if cfg.decoder.dim >= WIDE else detr_nano
    coarse = replace(cfg.backbone, outputs=cfg.backbone.outputs[-1:])
    other = preset(num_classes=cfg.num_classes)
    # RT-DETR's backbone learned on pixels from 0 to 1 as they are.
    return replace(other, backbone=coarse, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


FAMILY = (variant(rt_detr, "RT-DETR"), variant(detr, "DETR"))
