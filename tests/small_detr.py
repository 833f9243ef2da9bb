"""A DETR small enough for every test, one that draws, and what they learn from."""

import dataclasses

import torch

from rtdetr_lab.backbone import BasicBlock
from rtdetr_lab.config import replace_at
from rtdetr_lab.detr.model import DETRConfig
from rtdetr_lab.detr.resnet import ResNetConfig
from rtdetr_lab.detr.segmentation import (
    SegmentationConfig,
    segmentation_criterion,
)
from rtdetr_lab.detr.transformer import DETRDecoderConfig, DETREncoderConfig
from rtdetr_lab.structures import Targets

# Not fewer than sixteen channels: eight into a 1×1 with stride 2 crash the `backward` of torch 2.13
# on a CPU with AVX-512, in the memory format that training uses.
DETECTOR = DETRConfig(
    num_classes=5,
    dim=16,
    backbone=ResNetConfig(
        (1, 1, 1, 1), (16, 16, 24, 32), BasicBlock, stem_width=8, norm=torch.nn.BatchNorm2d
    ),
    encoder=DETREncoderConfig(2, 4, 24, dropout=0.0),
    decoder=DETRDecoderConfig(6, 2, 4, 24, dropout=0.0),
)


def corner(batch=2, height=96, width=64, kept=(50, 40)):
    """The first picture fills the canvas, the others its upper left corner."""
    padding = torch.zeros(batch, height, width, dtype=torch.bool)
    padding[1:, kept[0] :] = padding[1:, :, kept[1] :] = True
    return padding


PARTS = {f.name: getattr(DETECTOR, f.name) for f in dataclasses.fields(DETECTOR)}
PARTS |= {
    "backbone": replace_at(DETECTOR.backbone, "outputs", (1, 2, 3, 4)),
    "criterion": segmentation_criterion(),
}
SEGMENTER = SegmentationConfig(**PARTS, num_mask_heads=4)


def objects(*counts, size=(96, 64)):
    return Targets.of(
        {
            "labels": torch.randint(5, (n,)),
            "boxes": 0.3 + 0.3 * torch.rand(n, 4),
            "masks": torch.rand(n, *size) > 0.5,
        }
        for n in counts
    )
