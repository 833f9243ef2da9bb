r"""# Line: what each successor of RT-DETR adds

- **Papers**    D-FINE (arXiv 2410.13842) §5, Table 3; DEIM (2412.04234) Tables 4 and 6; RT-DETRv3
  (2409.08475) Table 4
- **Studies**   `rtdetr-lab ablate line`, `rtdetr-lab ablate backbone --backbone-weights none`

Every row changes one thing, or leaves one out, on the same base: its backbone, its sizes and its
number of queries. D-FINE is three things at once: a neck, distributions, and their
losses. One row has the neck alone, and three rows lack a part of the losses.

DEIM is two things: its loss changes the model, mosaic and mixup change the pictures, and the last
row of it has both. Their schedule is a share of the run, as in the paper's 58 epochs.

The other backbone has a study of its own: nano's is a ResNet-D, and HGNetv2 cannot begin with its
weights. So both rows begin without any.
"""

from dataclasses import replace
from typing import Any

from rtdetr_lab.ablations.family import WIDE
from rtdetr_lab.ablations.variant import Setup, variant
from rtdetr_lab.config import replace_all, replace_at
from rtdetr_lab.data.dense import DenseAugmentation
from rtdetr_lab.rtdetr import RTDETRConfig
from rtdetr_lab.successors.deim import matchability_aware
from rtdetr_lab.successors.dfine import DFINEConfig, as_dfine
from rtdetr_lab.successors.hgnetv2 import HGNetV2Config
from rtdetr_lab.successors.rtdetrv3 import as_rtdetrv3
from rtdetr_lab.training import TrainConfig


def rt_detr(cfg: RTDETRConfig) -> RTDETRConfig:
    """The model that all others change: a box moves by one step per layer."""
    return cfg


def hgnetv2(cfg: RTDETRConfig) -> Any:
    """A backbone that keeps the map of every layer is as good with fewer weights."""
    if cfg.decoder.dim >= WIDE:
        return replace_at(cfg, "backbone", HGNetV2Config())
    widths, norm, ones = cfg.backbone.widths, cfg.backbone.norm, (1, 1, 1, 1)
    mid = tuple(width // 2 for width in widths)
    small = HGNetV2Config((16, 32), widths, mid, depths=ones, num_layers=(3, 3, 3, 3), norm=norm)
    return replace_at(cfg, "backbone", small)


def d_fine(cfg: RTDETRConfig) -> DFINEConfig:
    """Distributions of edges, their losses and GELAN fusion find the same objects with tighter
    boxes, at the same size: AP rises, and AP50 less."""
    ccff = cfg.encoder.ccff
    # GELAN's half width: 0.5 where RT-DETR has it (nano, r18), else 1.0, as in the presets.
    return as_dfine(cfg, ccff.expansion, ccff.num_blocks - (ccff.expansion < 1))


def gelan(cfg: RTDETRConfig) -> Any:
    """The other neck alone is a trade: fewer weights, about the same AP (Table 3: +0.7, and back
    by the half width)."""
    return replace_at(cfg, "encoder.ccff", d_fine(cfg).encoder.ccff)


def no_distribution_losses(cfg: RTDETRConfig) -> Any:
    """A distribution that only L1 and GIoU train has no reason to be sharp: most of the gain is in
    its losses."""
    return replace_all(d_fine(cfg), {"criterion.fgl_weight": 0.0, "criterion.ddf_weight": 0.0})


def no_distillation(cfg: RTDETRConfig) -> Any:
    """Early layers also learn from their own labels: without the last layer as a teacher, the last
    layer loses little."""
    return replace_at(d_fine(cfg), "criterion.ddf_weight", 0.0)


def one_matching_per_layer(cfg: RTDETRConfig) -> Any:
    """If every layer trains its own pairs, a query that loses its object loses its distribution,
    too: lower AP, most of all early in training."""
    return replace_at(d_fine(cfg), "criterion.one_matching", False)


def deim_loss(cfg: RTDETRConfig) -> Any:
    """A loss that hears poor matches lowers the scores of poor boxes: a better ranking, earlier."""
    return matchability_aware(cfg)


def dense_one_to_one(recipe: TrainConfig) -> TrainConfig:
    """Mosaic and mixup put more objects into a picture, so a step trains more queries: higher AP
    from the same steps (Table 4: +0.8 after 12 epochs)."""
    return replace(recipe, augment=DenseAugmentation(mild=(), size=None))


def deim(setup: Setup) -> Setup:
    """Mosaic and mixup make more matches, but poorer ones, and the loss learns from those: both
    together give more than either alone."""
    return replace(setup, cfg=deim_loss(setup.cfg), recipe=dense_one_to_one(setup.recipe))


def rt_detr_v3(cfg: RTDETRConfig) -> Any:
    """More positives per picture teach more: higher AP from the same pictures, at the same speed
    in use; training is slower."""
    return as_rtdetrv3(cfg)


def no_masked_groups(cfg: RTDETRConfig) -> Any:
    """One-to-many and the dense head alone give a part of the gain (R18: 47.5 or 47.4 of 48.1)."""
    return replace_at(as_rtdetrv3(cfg), "num_groups", 0)


LINE = (
    variant(rt_detr, "RT-DETR"),
    variant(gelan, "GELAN"),
    variant(d_fine, "D-FINE"),
    *map(variant, (no_distribution_losses, no_distillation, one_matching_per_layer)),
    variant(deim_loss, "DEIM's loss"),
    variant(dense_one_to_one, "mosaic and mixup"),
    variant(deim, "DEIM"),
    variant(rt_detr_v3, "RT-DETRv3"),
    variant(no_masked_groups),
)
"""RT-DETR, and its successors."""

BACKBONES = (variant(rt_detr, "ResNet-D"), variant(hgnetv2, "HGNetv2"))
"""RT-DETR with each of its two backbones."""
