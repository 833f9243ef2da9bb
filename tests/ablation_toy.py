"""A study small enough for tests: a detector of 30,000 numbers on pictures of 64 pixels."""

from dataclasses import replace
from pathlib import Path

from rtdetr_lab.ablations import Setup, Study
from rtdetr_lab.aifi import AIFIConfig
from rtdetr_lab.backbone import ResNetDConfig
from rtdetr_lab.ccff import CCFFConfig
from rtdetr_lab.config import replace_at
from rtdetr_lab.data.shapes import TRAIN, VAL, ShapesConfig, ShapesDataset
from rtdetr_lab.decoder import DecoderConfig
from rtdetr_lab.denoising import DenoisingConfig
from rtdetr_lab.hybrid_encoder import HybridEncoderConfig
from rtdetr_lab.layers import FrozenBatchNorm2d
from rtdetr_lab.query_selection import TopScore
from rtdetr_lab.rtdetr import RTDETRConfig
from rtdetr_lab.training import from_scratch

WORLD = ShapesConfig(size=64, max_side=40.0, max_objects=3, crowding=0.0)


def tiny(layers=1):
    """The smallest RT-DETR with all its parts."""
    return RTDETRConfig(
        num_classes=10,
        backbone=ResNetDConfig((1, 1, 1, 1), (8, 8, 16, 16), stem_width=8, norm=FrozenBatchNorm2d),
        encoder=HybridEncoderConfig(16, AIFIConfig(num_heads=2, ffn_dim=16), CCFFConfig(0.5, 1)),
        selection=TopScore(10),
        decoder=DecoderConfig(dim=16, num_layers=layers, num_heads=2, ffn_dim=16),
        denoising=DenoisingConfig(4),
    )


def no_aifi(cfg: RTDETRConfig) -> RTDETRConfig:
    """Attention on S5 is worth its time."""
    return replace_at(cfg, "encoder.aifi", None)


def broken(cfg: RTDETRConfig) -> RTDETRConfig:
    """This one cannot be built: fifteen channels and two heads."""
    return replace_at(cfg, "encoder.dim", 15)


def study(folder, variants=(no_aifi,), seeds=(0, 1), **changes):
    """Two variants, two seeds, four steps."""
    recipe = from_scratch(16, batch_size=4, warmup_steps=1, ema_decay=0.5, save_every=1)
    data = (ShapesDataset(WORLD, TRAIN, 16), ShapesDataset(WORLD, VAL, 4))
    made = Study(
        Setup(tiny(), recipe),
        list(variants),
        seeds=seeds,
        budget=16,
        data=data,
        name="toy",
        folder=Path(folder),
        curve_points=2,
        latency_rounds=0,
    )
    return replace(made, **changes)
