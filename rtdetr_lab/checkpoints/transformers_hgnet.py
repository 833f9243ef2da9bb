r"""# transformers' configuration of an HGNetv2, and ours; which backbone a config has

| theirs                       | ours                                    |
|------------------------------|-----------------------------------------|
| `stem_channels: [3, 32, 48]` | `stem=(32, 48)`                         |
| `stage_light_block`          | `light`, the numbers of the light stages |
| `stage_in_channels`          | follows from `stem` and `widths`        |
| `hidden_sizes`               | `widths` again, read at the outputs only |
| `use_learnable_affine_block` | `affine`                                |

The other keys are fields with one value each (`transformers_fields.py`). transformers applies
`hidden_act` to the stem only, and ReLU inside the stages. So only `relu` is possible there.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rtdetr_lab.backbone import BasicBlock
from rtdetr_lab.checkpoints.transformers_backbone import ForeignBackbone
from rtdetr_lab.checkpoints.transformers_fields import HGNetV2Fields, ResNetFields
from rtdetr_lab.checkpoints.transformers_resnet import UnpooledBlock, outputs_of, resnet_d_values
from rtdetr_lab.checkpoints.transformers_table import spelled, values_of, whole_numbers
from rtdetr_lab.config import replace_at, require
from rtdetr_lab.rtdetr import RTDETRConfig, rtdetr_r50
from rtdetr_lab.successors.hgnetv2 import HGNetV2Config, hgnetv2_b4, rtdetr_l

BY_HAND = (
    "stem_channels",
    "stage_in_channels",
    "hidden_sizes",
    "stage_light_block",
    "use_learnable_affine_block",
)
"""Fields that are more than one value of ours, or follow from others."""


def hgnet_values(inner: Mapping[str, Any], at: str) -> dict[str, Any]:
    """Return our path → our value, from a `backbone_config` of `hgnet_v2`."""
    told = {f: inner.get(f, getattr(HGNetV2Fields, f)) for f in BY_HAND}
    channels, *stem = whole_numbers(told["stem_channels"], f"{at}[stem_channels]")
    good, remedy = channels == 3 and len(stem) == 2, "give three numbers, the first of them 3"
    require(good, f"{at}[stem_channels]", f"is {told['stem_channels']!r}", remedy)
    light, affine = told["stage_light_block"], told["use_learnable_affine_block"]
    for key, flags in (("stage_light_block", light), ("use_learnable_affine_block", [affine])):
        good = isinstance(flags, list | tuple) and all(type(flag) is bool for flag in flags)
        require(good, f"{at}[{key}]", f"is {inner.get(key)!r}", "give true or false")
    values = values_of(HGNetV2Fields, inner, at, rtdetr_l())
    widths, outputs = values["backbone.widths"], outputs_of(inner, at)
    _agree(told, "stage_in_channels", [stem[-1], *widths[:-1]], range(len(widths)), at)
    _agree(told, "hidden_sizes", list(widths), [stage - 1 for stage in outputs], at)
    return {
        **values,
        "backbone.stem": tuple(stem),
        "backbone.light": tuple(i for i, is_light in enumerate(light, start=1) if is_light),
        "backbone.affine": affine,
        "backbone.outputs": outputs,
    }


def _agree(
    told: Mapping[str, Any], key: str, expected: list[int], read: Sequence[int], at: str
) -> None:
    """Raise `ConfigError` unless a field says what follows from others, where it is read."""
    found = told[key]
    same = len(found) == len(expected) and all(found[i] == expected[i] for i in read)
    what = f"is {list(found)}, but {expected} follows from the other values"
    require(same, f"{at}[{key}]", what, "make them agree")


def spelled_hgnet(cfg: Any) -> dict[str, Any]:
    """Return their `backbone_config` for the HGNetv2 of our config."""
    backbone = cfg.backbone
    stages = range(1, len(backbone.widths) + 1)
    return {
        "model_type": "hgnet_v2",
        **spelled(HGNetV2Fields, cfg, rtdetr_l()),
        "stem_channels": [3, *backbone.stem],
        "stage_in_channels": [backbone.stem[-1], *backbone.widths[:-1]],
        "hidden_sizes": list(backbone.widths),
        "stage_light_block": [stage in backbone.light for stage in stages],
        "use_learnable_affine_block": backbone.affine,
        "out_indices": list(backbone.outputs),
    }


BACKBONES: dict[str, tuple[Any, Callable[..., dict[str, Any]]]] = {
    "rt_detr_resnet": (rtdetr_r50().backbone, resnet_d_values),
    "hgnet_v2": (hgnetv2_b4(), hgnet_values),
}
"""Their kind of backbone → ours with their defaults, and the reader of its `backbone_config`."""


def backbone_tree(cfg: RTDETRConfig) -> dict[str, Any]:
    """Return their `backbone_config` for the backbone of our config."""
    if isinstance(cfg.backbone, HGNetV2Config):
        return spelled_hgnet(cfg)
    if isinstance(cfg.backbone, ForeignBackbone):
        return dict(json.loads(cfg.backbone.config))
    if cfg.backbone.block is UnpooledBlock:
        cfg = replace_at(cfg, "backbone.block", BasicBlock)  # their word for both
    resnet = spelled(ResNetFields, cfg, rtdetr_r50())
    outputs = list(cfg.backbone.outputs)
    return {"model_type": "rt_detr_resnet", **resnet, "out_indices": outputs}
