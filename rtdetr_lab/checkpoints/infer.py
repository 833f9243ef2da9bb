r"""# Inferring: the preset of a file without a config, from its shapes

The authors' `.pth` files contain weights and nothing else. A few numbers distinguish their models,
and all of them follow from names and shapes. What no shape shows (the number of heads, and
RT-DETR's number of queries) comes from the preset. `strict.py` finds tensors that do not fit the
preset.

| number             | RT-DETR                                | DETR                               |
|--------------------|----------------------------------------|------------------------------------|
| depths, block kind | `backbone.stages`; a `conv3` means bottlenecks | the same                   |
| width              | rows of `encoder.project.0`            | rows of `project`                  |
| hidden width       | rows of the first CSP layer's `conv1`  | rows of the decoder's first `fc1`  |
| layers             | `decoder.layers.<i>`                   | these and `encoder.layers.<i>`     |
| classes            | rows of the first class head           | rows of `class_head`, less one     |
| points, queries    | rows of `sampling_offsets`, or v2's $1/K_l$ | rows of `query_positions`     |
| positions, masks   |                                        | `positions.rows`, `mask_head`      |

**DC5 does not change the shapes.** A dilated filter has the same weights. So `detr_r50` and
`detr_r50_dc5` have the same tensors, and give different results. Without a config we assume the
model without dilation, and log a warning. If the file's name contains `dc5`, we refuse it: pass
`config=detr_r50_dc5()`.
"""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtdetr_lab.backbone import Bottleneck
from rtdetr_lab.checkpoints.presets import DFINE_SIZES, HGNET_SIZES, NANOS, SIZES, function_of
from rtdetr_lab.checkpoints.strict import num_classes_of
from rtdetr_lab.config import extend, replace_at, require
from rtdetr_lab.detr.model import DETRConfig
from rtdetr_lab.detr.positions import LearnedPositions
from rtdetr_lab.detr.segmentation import SegmentationConfig, segmentation_criterion
from rtdetr_lab.errors import CheckpointError
from rtdetr_lab.rtdetr import RTDETRConfig
from rtdetr_lab.writing import first_few

log = logging.getLogger("rtdetr_lab")

PRESETS = tuple(function_of(name) for name in (*SIZES, *HGNET_SIZES, *DFINE_SIZES, *NANOS))
"""Presets that a file is compared with. v2's presets have the same shapes."""

DETR_PRESETS = tuple(function_of(name) for name in ("detr_r50", "detr_r101", "detr_nano"))

WIDTHS = ("encoder.project.0.conv.weight", "encoder.ccff.top_down.0.conv1.conv.weight")
DFINE_WIDTHS = (WIDTHS[0], "encoder.ccff.top_down.0.branch1.1.conv.weight")
DETR_WIDTHS = ("project.weight", "decoder.layers.0.ffn.fc1.bias")
"""Tensors whose number of rows is the width of a model, and of its hidden layers."""

OTHERS = {
    "enc_out_bbox_embed.": "RF-DETR or LW-DETR: groups of queries on a vision transformer",
    "dinov3.": "DEIMv2: a D-FINE on features of DINOv3",
}
"""Part of a tensor's name → the family that has it; none of them is among our chapters."""

Signature = dict[str, Any]
"""Numbers that follow from the shapes of a model."""


def infer_config(
    tensors: Mapping[str, Tensor], where: str, scale: Tensor | None = None
) -> RTDETRConfig:
    """Return the preset with the shapes of these tensors (under our names).

    It has their classes and points. `scale` is v2's stored vector of 1/K_l, the only trace of
    unequal points. Raises `CheckpointError` if they are not an RT-DETR's, or not of a published
    size.
    """
    others = [words for part, words in OTHERS.items() if any(part in name for name in tensors)]
    num_classes, found = num_classes_of(tensors), signature(tensors)
    complete = num_classes is not None and found["depths"] and found["decoder_layers"]
    complete = complete and found["width"] and found["hidden"] and not others
    what = f"holds no RT-DETR: it has {first_few(list(tensors))}"
    what = f"holds {others[0]}, which is not among our chapters" if others else what
    remedy = "give weights of RT-DETR: ours, transformers' or the authors'"
    require(complete, where, what, remedy, CheckpointError)
    return _with_points(_published(PRESETS, num_classes, found, where), tensors, scale)


def is_detr(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether these tensors, under our names, are a DETR's."""
    return "decoder.query_positions" in tensors and "class_head.weight" in tensors


def infer_detr(tensors: Mapping[str, Tensor], where: str) -> DETRConfig:
    """Return the preset with the shapes of these tensors (under our names).

    It has their classes, queries, positions and masks. Raises `CheckpointError` for a size that is
    not published.
    """
    count, found = num_classes_of(tensors) or 0, signature(tensors)
    cfg: DETRConfig = _published(DETR_PRESETS, count, found, where)
    plain = "dc5" not in Path(where).name.lower()
    what = "has a DC5 name, and shapes do not show whether it is a DC5"
    remedy = "pass config=detr_r50_dc5(), or another DC5 preset"
    require(plain, where, what, remedy, CheckpointError)
    log.warning("%s: loaded as a DETR without DC5; its shapes do not show which it is", where)
    cfg = replace_at(cfg, "decoder.num_queries", len(tensors["decoder.query_positions"]))
    if "positions.rows" in tensors:
        cfg = replace_at(cfg, "positions", LearnedPositions(len(tensors["positions.rows"])))
    return with_masks(cfg) if any(n.startswith("mask_head.") for n in tensors) else cfg


def with_masks(cfg: DETRConfig) -> SegmentationConfig:
    """Add a mask head to a detector's configuration, and the losses that train it."""
    return extend(
        cfg,
        SegmentationConfig,
        criterion=segmentation_criterion(),
        backbone=replace_at(cfg.backbone, "outputs", (1, 2, 3, 4)),
        num_mask_heads=cfg.encoder.num_heads,
    )


def signature(tensors: Mapping[str, Tensor]) -> Signature:
    """Return the signature of tensors under our names; missing parts give 0 or nothing."""
    pattern = re.compile(r"backbone\.stages\.(\d+)\.(?:blocks\.)?(\d+)\.")
    blocks = {(int(m[1]), int(m[2])) for name in tensors if (m := pattern.match(name))}
    stages = range(max((stage for stage, _ in blocks), default=-1) + 1)
    width, hidden = DFINE_WIDTHS if DFINE_WIDTHS[1] in tensors else WIDTHS
    if is_detr(tensors):
        width, hidden = DETR_WIDTHS
    return {
        "depths": tuple(sum(1 for stage, _ in blocks if stage == s) for s in stages),
        "bottleneck": "backbone.stages.0.0.conv3.conv.weight" in tensors,
        "width": len(tensors.get(width, ())),
        "hidden": len(tensors.get(hidden, ())),
        "encoder_layers": _num_layers(tensors, "encoder"),
        "decoder_layers": _num_layers(tensors, "decoder"),
    }


def points_from_scale(scale: Tensor) -> tuple[int, ...]:
    """Return the points per level from v2's stored vector.

    The vector contains K_l times the value 1/K_l, level by level.
    """
    points, rest = [], [round(1 / float(s)) for s in scale.flatten()]
    while rest:
        points.append(rest[0])
        rest = rest[rest[0] :]
    return tuple(points)


def _published(
    presets: Sequence[Callable[[int], Any]], num_classes: Any, found: Signature, where: str
) -> Any:
    cfg = next((cfg for p in presets if _signature_of(cfg := p(num_classes)) == found), None)
    what = f"is not a published size: {found}"
    require(cfg, where, what, "give the config it was trained with as config=", CheckpointError)
    return cfg


def _signature_of(cfg: Any) -> Signature:
    detr, encoder, decoder = isinstance(cfg, DETRConfig), cfg.encoder, cfg.decoder
    return {
        "depths": cfg.backbone.depths,
        "bottleneck": getattr(cfg.backbone, "block", None) is Bottleneck,
        "width": cfg.dim if detr else encoder.dim,
        "hidden": decoder.ffn_dim if detr else encoder.ccff.hidden(encoder.dim),
        "encoder_layers": encoder.num_layers if detr else 0,
        "decoder_layers": decoder.num_layers,
    }


def _num_layers(tensors: Mapping[str, Tensor], part: str) -> int:
    return len({m[1] for n in tensors if (m := re.match(rf"{part}\.layers\.(\d+)\.", n))})


def _with_points(
    cfg: RTDETRConfig, tensors: Mapping[str, Tensor], scale: Tensor | None
) -> RTDETRConfig:
    points = () if scale is None else points_from_scale(scale)
    if len(set(points)) > 1:
        return replace_at(cfg, "decoder.num_points", points)
    offsets = tensors.get("decoder.layers.0.cross_attn.sampling_offsets.weight", torch.empty(0))
    total = len(offsets) // (2 * cfg.decoder.num_heads)  # over all levels, for one head
    per_level, rest = divmod(total, cfg.decoder.num_levels)
    if rest or not per_level or total == sum(cfg.decoder.points):
        return cfg  # the sum does not show an uneven split: the error of strict.py names config=
    return replace_at(cfg, "decoder.num_points", per_level)
