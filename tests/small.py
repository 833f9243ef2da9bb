"""A whole RT-DETR that is small enough to be run hundreds of times, and something to show it."""

import torch

from rtdetr_lab.aifi import AIFIConfig
from rtdetr_lab.backbone import ResNetDConfig
from rtdetr_lab.ccff import CCFFConfig
from rtdetr_lab.config import replace_at
from rtdetr_lab.decoder import DecoderConfig
from rtdetr_lab.denoising import DenoisingConfig
from rtdetr_lab.hybrid_encoder import HybridEncoderConfig
from rtdetr_lab.query_selection import TopScore
from rtdetr_lab.rtdetr import RTDETRConfig
from rtdetr_lab.structures import Targets
from rtdetr_lab.successors.dfine import DFINEConfig
from rtdetr_lab.successors.fdr import FDRConfig
from rtdetr_lab.successors.gelan import GELANConfig
from rtdetr_lab.successors.hgnetv2 import HGNetV2Config

SMALL = RTDETRConfig(
    num_classes=5,
    backbone=ResNetDConfig((1, 1, 1, 1), (8, 12, 16, 24), stem_width=8, norm=torch.nn.BatchNorm2d),
    encoder=HybridEncoderConfig(16, AIFIConfig(num_heads=4, ffn_dim=24), CCFFConfig(0.5, 1)),
    selection=TopScore(num_queries=10),
    decoder=DecoderConfig(dim=16, num_layers=3, num_heads=4, ffn_dim=24),
    denoising=DenoisingConfig(num_queries=6),
)

SMALL_HGNET = HGNetV2Config(
    stem=(4, 8),
    widths=(8, 12, 16, 24),
    mid_widths=(4, 4, 6, 6),
    depths=(1, 1, 2, 1),
    num_layers=(2, 2, 2, 2),
    norm=torch.nn.BatchNorm2d,
)
"""Another backbone for it."""

SMALL_DFINE = DFINEConfig(
    num_classes=5,
    backbone=SMALL_HGNET,
    encoder=HybridEncoderConfig(16, AIFIConfig(num_heads=4, ffn_dim=24), GELANConfig(0.5, 1)),
    selection=TopScore(num_queries=10),
    decoder=FDRConfig(16, 3, 4, ffn_dim=24, num_points=2, num_bins=8, quality_dim=8),
    denoising=DenoisingConfig(num_queries=6),
)
"""A whole D-FINE of that size."""


def small(changes=None, **more):
    """With other values: `small({"encoder.aifi.num_heads": 2})`, `small(num_classes=3)`."""
    cfg = SMALL
    for path, value in {**(changes or {}), **more}.items():
        cfg = replace_at(cfg, path, value)
    return cfg


@torch.no_grad()
def shaken(model, scale=1.0):
    """`model` with weights that leave nothing at its start value: heads answer, offsets differ."""
    for p in model.parameters():
        if p.ndim > 1:
            p.copy_(scale * torch.randn(p.shape) * p[0].numel() ** -0.5)
        else:
            p += 0.1 * scale * torch.randn(p.shape)
    return model


def pictures(batch=2, height=96, width=64):
    return torch.rand(batch, 3, height, width)


def targets(*counts, num_classes=5):
    """Objects well inside each picture: `targets(3, 0)` is two pictures, the second empty."""
    return Targets.of(
        {
            "labels": torch.randint(num_classes, (count,)),
            "boxes": torch.cat(
                [0.3 + 0.4 * torch.rand(count, 2), 0.1 + torch.rand(count, 2) / 3], 1
            ),
        }
        for count in counts
    )


def rebuilt(cfg, **of):
    """A shaken model of `cfg` in eval mode and double precision."""
    return shaken(cfg.build(), **of).double().eval()
