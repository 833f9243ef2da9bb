r"""# Which preset is this? A file without a config, recognised by its shapes

The authors' `.pth` files hold weights and nothing else. Seven numbers tell their models apart, and
all can be read off names and shapes; everything a shape cannot say (queries, heads) is then the
preset's. Whatever does not agree with the preset in the end is found by `strict.py`.

| number             | read from                                                                |
|--------------------|--------------------------------------------------------------------------|
| depths, block kind | `backbone.stages.<i>.<j>`; a `conv3` means bottlenecks                   |
| encoder width      | rows of `encoder.project.0`                                              |
| CCFF expansion     | rows of the first CSP layer's `conv1`, over the width                    |
| decoder layers     | `decoder.layers.<i>`                                                     |
| points per level   | rows of `sampling_offsets`, or v2's vector of $1/K_l$                    |
| classes            | rows of the first class head                                             |
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rtdetr_lab.backbone import Bottleneck
from rtdetr_lab.checkpoints.strict import num_classes_of
from rtdetr_lab.config import replace_at
from rtdetr_lab.errors import CheckpointError
from rtdetr_lab.rtdetr import (
    RTDETRConfig,
    rtdetr_nano,
    rtdetr_r18,
    rtdetr_r34,
    rtdetr_r50,
    rtdetr_r50_m,
    rtdetr_r101,
)

PRESETS = (rtdetr_r18, rtdetr_r34, rtdetr_r50_m, rtdetr_r50, rtdetr_r101, rtdetr_nano)
"""What a file is compared with. v2's presets have the same shapes."""


@dataclass(frozen=True)
class Signature:
    """What shapes say about a model."""

    depths: tuple[int, ...]
    bottleneck: bool
    width: int
    hidden: int
    decoder_layers: int


def infer_config(
    tensors: Mapping[str, Tensor], where: str, scale: Tensor | None = None
) -> RTDETRConfig:
    """The preset whose shapes these tensors (under our names) have, with their classes and points.

    `scale` is v2's stored vector of 1/K_l, the only trace of unequal points.

    Raises `CheckpointError` if they are no RT-DETR's, or none of the published sizes.
    """
    num_classes, found = num_classes_of(tensors), signature(tensors)
    if num_classes is None or found is None:
        remedy = "give weights of RT-DETR: ours, transformers' or the authors'"
        raise CheckpointError(where, f"holds no RT-DETR: it has {_sample(tensors)}", remedy)
    for preset in PRESETS:
        cfg = preset(num_classes)
        if _signature_of(cfg) == found:
            return _with_points(cfg, tensors, scale)
    what = f"is no published size: {found}"
    raise CheckpointError(where, what, "give the config it was trained with as config=")


def signature(tensors: Mapping[str, Tensor]) -> Signature | None:
    """The signature of tensors under our names, `None` if they are no complete RT-DETR's."""
    blocks = {_numbers(n) for n in tensors if re.match(r"backbone\.stages\.\d+\.\d+\.", n)}
    width = tensors.get("encoder.project.0.conv.weight")
    hidden = tensors.get("encoder.ccff.top_down.0.conv1.conv.weight")
    layers = {_numbers(n)[0] for n in tensors if re.match(r"decoder\.layers\.\d+\.", n)}
    if not blocks or width is None or hidden is None or not layers:
        return None
    stages = range(max(stage for stage, _ in blocks) + 1)
    return Signature(
        depths=tuple(sum(1 for stage, _ in blocks if stage == s) for s in stages),
        bottleneck="backbone.stages.0.0.conv3.conv.weight" in tensors,
        width=len(width),
        hidden=len(hidden),
        decoder_layers=len(layers),
    )


def points_from_scale(scale: Tensor) -> tuple[int, ...]:
    """Points per level from v2's stored vector: K_l times the value 1/K_l, level by level."""
    points, rest = [], [round(1 / float(s)) for s in scale.flatten()]
    while rest:
        points.append(rest[0])
        rest = rest[rest[0] :]
    return tuple(points)


def _signature_of(cfg: RTDETRConfig) -> Signature:
    encoder: Any = cfg.encoder
    return Signature(
        depths=cfg.backbone.depths,
        bottleneck=cfg.backbone.block is Bottleneck,
        width=encoder.dim,
        hidden=int(encoder.dim * encoder.ccff.expansion),
        decoder_layers=cfg.decoder.num_layers,
    )


def _with_points(
    cfg: RTDETRConfig, tensors: Mapping[str, Tensor], scale: Tensor | None
) -> RTDETRConfig:
    points = () if scale is None else points_from_scale(scale)
    if len(set(points)) > 1:
        return replace_at(cfg, "decoder.num_points", points)
    offsets = tensors.get("decoder.layers.0.cross_attn.sampling_offsets.weight", torch.empty(0))
    total = len(offsets) // (2 * cfg.decoder.num_heads)  # over all levels, for one head
    per_level, rest = divmod(total, cfg.decoder.num_levels)
    if rest or not per_level or per_level == cfg.decoder.num_points:
        return cfg  # an uneven split cannot be told from its sum: strict.py asks for config=
    return replace_at(cfg, "decoder.num_points", per_level)


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\.(\d+)(?=\.)", name)[:2])


def _sample(tensors: Mapping[str, Tensor]) -> str:
    return ", ".join(list(tensors)[:3]) + (" …" if len(tensors) > 3 else "")
