r"""# Which DETR is this? Recognised by its shapes

As `infer.py`, for `detr/model.py` and `detr/segmentation.py`:

| number               | read from                                                       |
|----------------------|-----------------------------------------------------------------|
| depths, block kind   | `backbone.stages.<i>.<j>`; a `conv3` means bottlenecks          |
| width, layers, `ffn` | `class_head`, `encoder.layers`, `decoder.layers`                |
| queries, classes     | rows of `decoder.query_positions` and, less one, of `class_head` |
| positions            | `positions.rows` is there if they are learned                   |
| masks                | `mask_head` is there                                            |

**DC5 is not in the shapes.** A dilated filter is a filter; `detr_r50` and `detr_r50_dc5` have the
same tensors and give different answers. Without a config a file is taken for the undilated one,
which is said aloud, and refused if its name says `dc5`: pass `config=detr_r50_dc5()`.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import Tensor

from rtdetr_lab.backbone import Bottleneck
from rtdetr_lab.checkpoints.strict import num_classes_of
from rtdetr_lab.config import replace_at
from rtdetr_lab.detr.model import DETRConfig, detr_nano, detr_r50, detr_r101
from rtdetr_lab.detr.positions import LearnedPositions
from rtdetr_lab.detr.segmentation import SegmentationConfig, segmentation_criterion
from rtdetr_lab.errors import CheckpointError

log = logging.getLogger("rtdetr_lab")

PRESETS = (detr_r50, detr_r101, detr_nano)
"""What a file is compared with."""


def is_detr(tensors: Mapping[str, Tensor]) -> bool:
    """Are these, under our names, a DETR's?"""
    return "decoder.query_positions" in tensors and "class_head.weight" in tensors


def infer_detr(tensors: Mapping[str, Tensor], where: str) -> DETRConfig:
    """The preset whose shapes these tensors (under our names) have, with their classes, queries,
    positions and masks. Raises `CheckpointError` if it is none of the published sizes."""
    num_classes = num_classes_of(tensors) or 0
    found = _signature(tensors)
    for preset in PRESETS:
        cfg = preset(num_classes)
        if _signature_of(cfg) == found:
            _tell_dilation(where)
            return _completed(cfg, tensors)
    what = f"is no published DETR: {found}"
    raise CheckpointError(where, what, "give the config it was trained with as config=")


def with_masks(cfg: DETRConfig) -> SegmentationConfig:
    """The same detector with a mask head, and the losses that teach it."""
    values = {f.name: getattr(cfg, f.name) for f in fields(DETRConfig)}
    values |= {"criterion": segmentation_criterion()}
    values |= {"backbone": replace_at(cfg.backbone, "outputs", (1, 2, 3, 4))}
    return SegmentationConfig(**values, num_mask_heads=cfg.encoder.num_heads)


Signature = dict[str, Any]


def _signature(tensors: Mapping[str, Tensor]) -> Signature:
    blocks = {
        (int(m[1]), int(m[2]))
        for name in tensors
        if (m := re.match(r"backbone\.stages\.(\d+)\.(\d+)\.", name))
    }
    stages = range(max((stage for stage, _ in blocks), default=-1) + 1)
    ffn = tensors.get("decoder.layers.0.ffn.fc1.bias", ())
    return {
        "depths": tuple(sum(1 for stage, _ in blocks if stage == s) for s in stages),
        "bottleneck": "backbone.stages.0.0.conv3.conv.weight" in tensors,
        "width": tensors["class_head.weight"].shape[-1],
        "ffn": len(ffn),
        "encoder_layers": _count(tensors, "encoder"),
        "decoder_layers": _count(tensors, "decoder"),
    }


def _count(tensors: Mapping[str, Tensor], part: str) -> int:
    return len({m[1] for n in tensors if (m := re.match(rf"{part}\.layers\.(\d+)\.", n))})


def _signature_of(cfg: DETRConfig) -> Signature:
    return {
        "depths": cfg.backbone.depths,
        "bottleneck": cfg.backbone.block is Bottleneck,
        "width": cfg.dim,
        "ffn": cfg.decoder.ffn_dim,
        "encoder_layers": cfg.encoder.num_layers,
        "decoder_layers": cfg.decoder.num_layers,
    }


def _completed(cfg: DETRConfig, tensors: Mapping[str, Tensor]) -> DETRConfig:
    cfg = replace_at(cfg, "decoder.num_queries", len(tensors["decoder.query_positions"]))
    if "positions.rows" in tensors:
        cfg = replace_at(cfg, "positions", LearnedPositions(len(tensors["positions.rows"])))
    return with_masks(cfg) if any(n.startswith("mask_head.") for n in tensors) else cfg


def _tell_dilation(where: str) -> None:
    if "dc5" in Path(where).name.lower():
        what = "is a DC5 by its name, which no shape of its tensors shows"
        raise CheckpointError(where, what, "pass config=detr_r50_dc5(), or another DC5 preset")
    log.warning("%s: taken for a DETR without DC5, which its shapes cannot tell", where)
