r"""# transformers' configuration of a backbone, and ours

RT-DETR's backbone is a `backbone_config` of `rt_detr_resnet`. A DETR's config gives its ResNet in
one of three ways, and the hub has all of them:

| their config                                            | names in the file | DC5                |
|---------------------------------------------------------|-------------------|--------------------|
| `backbone: resnet50` (`use_timm_backbone`, or nothing)  | timm's            | `dilation`         |
| `backbone_config` of `timm_backbone`                    | timm's            | `output_stride` 16 |
| `backbone_config` of `resnet`                           | transformers'     | impossible         |

In the last case transformers ignores `dilation`. We refuse it, because it is not clear which model
was meant. So we write a DC5 in the first way, one with three maps in the second, for their numbers,
and everything else in the third.
"""

import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from torch import nn

from rtdetr_lab.backbone import BasicBlock, Bottleneck
from rtdetr_lab.checkpoints import transformers_table as table
from rtdetr_lab.checkpoints.transformers_backbone import ForeignBackbone
from rtdetr_lab.checkpoints.transformers_fields import ResNetFields
from rtdetr_lab.config import require
from rtdetr_lab.detr.model import DETRConfig
from rtdetr_lab.detr.resnet import ResNetConfig
from rtdetr_lab.layers import Activation, ConvNormAct, Norm
from rtdetr_lab.rtdetr import rtdetr_r50

TIMM = {
    "resnet18": ((2, 2, 2, 2), (64, 128, 256, 512), BasicBlock),
    "resnet34": ((3, 4, 6, 3), (64, 128, 256, 512), BasicBlock),
    "resnet50": ((3, 4, 6, 3), (256, 512, 1024, 2048), Bottleneck),
    "resnet101": ((3, 4, 23, 3), (256, 512, 1024, 2048), Bottleneck),
    "resnet152": ((3, 8, 36, 3), (256, 512, 1024, 2048), Bottleneck),
}
"""timm's plain ResNets: depths, widths, block."""

NO_TIMM = {"backbone": None, "use_timm_backbone": False, "use_pretrained_backbone": False}
"""Keys that release 4 needs beside a `backbone_config`: its defaults name a backbone of timm."""


class UnpooledBlock(BasicBlock):
    """Basic block of transformers: where the width stays, its shortcut does not pool."""

    def __init__(
        self, channels_in: int, width: int, stride: int, first: bool, act: Activation, norm: Norm
    ) -> None:
        super().__init__(channels_in, width, stride, first, act, norm)
        if first and stride == 2 and channels_in == width:
            self.shortcut = nn.Sequential(ConvNormAct(width, width, 1, stride, norm=norm))


def resnet_d_values(inner: Mapping[str, Any], at: str) -> dict[str, Any]:
    """Return our path → our value, from an RT-DETR's `backbone_config`."""
    kind = inner.get("model_type", "rt_detr_resnet")
    what = f"is {kind!r}, only 'rt_detr_resnet' works"
    require(kind == "rt_detr_resnet", f"{at}[model_type]", what, table.REMEDY)
    values = table.values_of(ResNetFields, inner, at, rtdetr_r50())
    values["backbone.outputs"] = outputs_of(inner, at)
    stays = any(a == b for a, b in pairwise(values["backbone.widths"]))
    unpooled = stays and values["backbone.block"] is BasicBlock
    return values | ({"backbone.block": UnpooledBlock} if unpooled else {})


def outputs_of(inner: Mapping[str, Any], at: str) -> tuple[int, ...]:
    """Return the stages that a `backbone_config` of an RT-DETR names as outputs."""
    return table.whole_numbers(_outputs(inner) or (2, 3, 4), f"{at}[out_indices]")


def resnet_values(tree: Mapping[str, Any], where: str, base: DETRConfig) -> dict[str, Any]:
    """Return our path → our value for a DETR's ResNet, in any of the three ways."""
    inner, at = tree.get("backbone_config") or {}, f"{where}[backbone_config]"
    require(isinstance(inner, Mapping), at, f"is {inner!r}", "give an object, or null")
    if speaks_timm(tree):
        return _timm_values(tree, inner, where, base.backbone.outputs)
    kind = inner.get("model_type", "resnet")
    require(kind == "resnet", f"{at}[model_type]", f"is {kind!r}", "give resnet or timm_backbone")
    what = "is set, but transformers ignores it for its own ResNet"
    require(not tree.get("dilation"), f"{where}[dilation]", what, "unset it, or use timm's ResNet")
    found = {"backbone.outputs": _maps_read(inner, at, base.backbone.outputs)}
    return table.values_of(ResNetFields, inner, at, base) | found


def speaks_timm(tree: Mapping[str, Any]) -> bool:
    """Return whether the tensors of this DETR's backbone have timm's names."""
    inner = tree.get("backbone_config") or {"model_type": "timm_backbone"}
    return bool(inner.get("model_type") == "timm_backbone")


def _timm_values(
    tree: Mapping[str, Any], inner: Mapping[str, Any], where: str, outputs: tuple[int, ...]
) -> dict[str, Any]:
    told = {**(tree.get("backbone_kwargs") or {}), **inner}
    name = told.get("backbone") or tree.get("backbone") or "resnet50"
    short = str(name).removeprefix("timm/").partition(".")[0]  # a tag names the training
    what, remedy = f"is {name!r}", f"use one of {', '.join(TIMM)}, or give config="
    require(short in TIMM, f"{where}[backbone]", what, remedy)
    stride = told.get("output_stride") or (16 if tree.get("dilation") else 32)
    at = f"{where}[backbone_config][output_stride]"
    require(stride in (16, 32), at, f"is {stride!r}", "give 32, or 16 for DC5")
    channels = told.get("num_channels", told.get("in_chans", 3))
    require(channels == 3, f"{where}[backbone_config]", f"reads {channels} channels", "give 3")
    values = dict(zip(("depths", "widths", "block"), TIMM[short], strict=True))
    values |= {"dilated": stride == 16, "outputs": _maps_read(told, where, outputs)}
    return {f"backbone.{name}": value for name, value in values.items()}


def _outputs(inner: Mapping[str, Any]) -> Any:
    """Return the stages of the backbone's outputs, by number or name; empty if none are given."""
    numbers = {f"stage{i}": i for i in range(1, 9)}
    named = [numbers.get(name, 0) for name in inner.get("out_features") or ()]
    return inner.get("out_indices") or named


def _maps_read(inner: Any, where: str, outputs: tuple[int, ...]) -> tuple[int, ...]:
    """Return the maps of the backbone that we read; raise `ConfigError` if it lacks some.

    A detector reads the last map; a mask head reads the last and the three finest.
    """
    found = tuple(_outputs(inner) or outputs)
    masks = len(outputs) > 1
    fits = found in (outputs, outputs[1:]) if masks else found[-1] == outputs[-1]
    what, remedy = f"returns the maps {found}", f"let it return {outputs}"
    require(fits, f"{where}[out_indices]", what, remedy)
    return found if masks else outputs


def spelled_resnet(cfg: DETRConfig, base: DETRConfig) -> dict[str, Any]:
    """Return their keys for the ResNet of our config."""
    if isinstance(cfg.backbone, ForeignBackbone):
        told = dict(json.loads(cfg.backbone.config))
        return {"backbone_config": told, "dilation": False, **NO_TIMM}
    resnet = table.spelled(ResNetFields, cfg, base)
    backbone: ResNetConfig = cfg.backbone
    if not getattr(backbone, "dilated", False):
        resnet |= {"model_type": "resnet", "out_indices": list(backbone.outputs)}
        resnet |= {"out_features": [f"stage{i}" for i in backbone.outputs]}
        return {"backbone_config": resnet, "dilation": False, **NO_TIMM}
    sizes = (backbone.depths, backbone.widths, backbone.block)
    found = [name for name, known in TIMM.items() if known == sizes]
    what = "is not a ResNet of timm; only those can be dilated there"
    require(found, "backbone", what, table.KEEP)
    plain = ResNetConfig()
    same = backbone.stem_width == plain.stem_width and backbone.act is plain.act
    require(same, "backbone", "has another stem or activation than timm's ResNets", table.KEEP)
    if backbone.outputs != base.backbone.outputs:
        told = {"model_type": "timm_backbone", "backbone": found[0], "output_stride": 16}
        told |= {"out_indices": list(backbone.outputs), "use_pretrained_backbone": False}
        return {"backbone_config": told, "dilation": True, **NO_TIMM}
    return {
        "backbone": found[0],
        "backbone_config": None,
        "use_timm_backbone": True,
        "use_pretrained_backbone": False,
        "dilation": True,
    }
