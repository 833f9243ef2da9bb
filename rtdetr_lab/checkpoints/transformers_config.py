r"""# transformers' configuration: their flat fields ↔ our tree

`transformers_fields.py` maps their fields to ours; `transformers_resnet.py` and
`transformers_hgnet.py` read a backbone.
This file converts whole configurations in both directions. A value that we do not support is not
ignored: the error names it. Their config states some widths twice; if the two differ, that is an
error, too. Keys that no computation reads are ignored.

Our v1 and v2 are one model. So we write `rt_detr` if that is enough, and `rt_detr_v2` only for
discrete sampling. Their discrete sampling reads half a cell too far (`docs/differences.md`). Here
that is `Discrete(shift=0.5)`.

Three facts about a DETR are not in the values below. Its batch norms are always frozen there. Its
pixels are described in `preprocessor_config.json`. The name of its class shows whether it draws
masks.
"""

from collections.abc import Mapping
from typing import Any

from rtdetr_lab.checkpoints import transformers_table as table
from rtdetr_lab.checkpoints.transformers_backbone import foreign_backbone, maps_of, timm_config
from rtdetr_lab.checkpoints.transformers_dfine import DFineFields, dfine_values, spelled_dfine
from rtdetr_lab.checkpoints.transformers_fields import DetrFields, RTDetrFields, RTDetrV2Fields
from rtdetr_lab.checkpoints.transformers_hgnet import BACKBONES, backbone_tree
from rtdetr_lab.checkpoints.transformers_layers import NormFirstConfig, every_dropout, own_dropouts
from rtdetr_lab.checkpoints.transformers_resnet import resnet_values, spelled_resnet
from rtdetr_lab.config import diff, replace_all, replace_at, require
from rtdetr_lab.deformable_attention import points_per_level
from rtdetr_lab.detr.model import DETRConfig, detr_r50
from rtdetr_lab.detr.segmentation import SegmentationConfig, detr_r50_panoptic
from rtdetr_lab.query_selection import LearnedContent
from rtdetr_lab.rtdetr import RTDETRConfig, rtdetr_r50
from rtdetr_lab.samplers import Bilinear
from rtdetr_lab.successors.dfine import DFINEConfig, dfine_l

HARMLESS = (
    "criterion",
    "denoising",
    "decoder.box_gradient",
    "frozen_detector",
    "backbone.norm",
    "backbone.frozen_stages",
    "mean",
    "std",
)
"""Paths whose value affects only training, or is written elsewhere."""


KINDS = ("rt_detr", "rt_detr_v2", "d_fine", "detr")
OTHER_FAMILIES = {
    "deimv2": "DEIMv2, a D-FINE on DINOv3 features, is not among our chapters",
    "lw_detr": "LW-DETR, a ViT with groups of queries, is not among our chapters",
    "rf_detr": "RF-DETR, a DINOv2 with groups of queries, is not among our chapters",
}
"""Model types of the family that we know by name only."""


def draws(cfg: Any) -> bool:
    """Return whether this config has a mask head."""
    return isinstance(cfg, SegmentationConfig)


def from_transformers(
    tree: Mapping[str, Any], where: str, masks: bool | None = None
) -> tuple[Any, tuple[str, ...]]:
    """Return our config and the class names for their `config.json`.

    `masks` tells whether a DETR draws masks; without it, its `architectures` decide. Raises
    `ConfigError` for values that no model can be built from, or that our model does not support.
    """
    kind = tree.get("model_type")
    family = f": {OTHER_FAMILIES[kind]}" if kind in OTHER_FAMILIES else ""
    remedy = f"give one of {', '.join(KINDS)}"
    require(kind in KINDS, where, f"model_type is {kind!r}{family}", remedy)
    with table.placed(where):
        if masks is None:
            masks = "DetrForSegmentation" in (tree.get("architectures") or ())
        names = table.class_names(tree, where)
        if kind == "detr":
            return _detr(tree, where, len(names), masks), names
        return _rtdetr(tree, where, len(names)), names


DEFAULTS = {key: getattr(RTDetrFields, key) for key in ("encoder_in_channels", "feat_strides")}
"""Channels and strides of the backbone, for a file that leaves them out (their defaults)."""


def _rtdetr(tree: Mapping[str, Any], where: str, num_classes: int) -> RTDETRConfig:
    is_dfine = tree["model_type"] == "d_fine"
    inner, at = tree.get("backbone_config") or timm_config(tree, where), f"{where}[backbone_config]"
    kind = inner.get("model_type", "hgnet_v2" if is_dfine else "rt_detr_resnet")
    remedy = f"use one of {', '.join(BACKBONES)}"
    require(kind in BACKBONES or not is_dfine, f"{at}[model_type]", f"is {kind!r}", remedy)
    preset = dfine_l if is_dfine else rtdetr_r50  # has their defaults
    backbone, read = BACKBONES.get(kind) or (
        foreign_backbone(DEFAULTS | dict(tree), inner, at),
        lambda *_: {},
    )
    base = replace_at(preset(num_classes), "backbone", backbone)
    fields = DFineFields if is_dfine else RTDetrV2Fields
    early = table.yes_or_no(tree, "normalize_before", where)
    if early:
        base = replace_at(base, "encoder.aifi", NormFirstConfig(act=base.encoder.aifi.act))
    values = table.values_of(fields, tree, where, every_dropout(base)) | read(inner, at)
    values |= dfine_values(tree, where) if is_dfine else {}
    if table.yes_or_no(tree, "learn_initial_query", where):
        base = replace_at(base, "selection", LearnedContent())
    if not values["denoising.num_queries"]:
        values = {p: v for p, v in values.items() if not p.startswith("denoising.")}
        values["denoising"] = None
    cfg: RTDETRConfig = own_dropouts(replace_all(base, values))
    for key, value in _said_twice(cfg).items():
        found = list(tree.get(key, getattr(RTDetrFields, key)))
        what = f"is {found}, but {value} follows from the other values"
        require(found == value, f"{where}[{key}]", what, "make them agree")
    return cfg


def _detr(tree: Mapping[str, Any], where: str, num_classes: int, masks: bool) -> DETRConfig:
    scaled, at = tree.get("scale_embedding", False), f"{where}[scale_embedding]"
    what = f"is {scaled!r}, only False works"  # from releases before 5
    require(not scaled, at, what, table.REMEDY)
    base = detr_r50_panoptic(num_classes) if masks else detr_r50(num_classes)
    values = table.values_of(DetrFields, tree, where, every_dropout(base))
    inner = tree.get("backbone_config") or {}
    if inner.get("model_type", "resnet") in ("resnet", "timm_backbone"):
        values |= resnet_values(tree, where, base)
    else:
        values["backbone"] = foreign_backbone({}, inner, f"{where}[backbone_config]")
    values["decoder.norm_between"] = bool(tree.get("auxiliary_loss"))
    if masks:
        values["num_mask_heads"] = values["encoder.num_heads"]
    cfg: DETRConfig = own_dropouts(replace_all(base, values))
    return cfg


def to_transformers(cfg: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Convert our config to their `config.json`; raise `ConfigError` if that is impossible."""
    names = names or tuple(f"LABEL_{i}" for i in range(cfg.num_classes))  # as in transformers
    known = isinstance(cfg, RTDETRConfig | DETRConfig)
    require(known, "transformers", "is not an RT-DETR or DETR", table.KEEP)
    cfg = every_dropout(cfg)
    if isinstance(cfg, DETRConfig):
        tree = _detr_tree(cfg)
    else:
        cfg = cfg if isinstance(cfg, DFINEConfig) else _with_equal_points(cfg)
        tree = _rtdetr_tree(cfg)
    tree["id2label"] = {str(i): name for i, name in enumerate(names)}
    tree["label2id"] = {name: i for i, name in enumerate(names)}
    back, _ = from_transformers(tree, "transformers")
    for path, (here, there) in diff(own_dropouts(cfg), back).items():
        trimmed = path.endswith("inference_layers")
        remedy = f"save model.trim({here}), or {table.KEEP}" if trimmed else table.KEEP
        what = f"is {here}, transformers can only express {there}"
        require(path.startswith(HARMLESS), path, what, remedy)
    return tree


def _with_equal_points(cfg: RTDETRConfig) -> RTDETRConfig:
    points = set(points_per_level(cfg.decoder.num_points, cfg.decoder.num_levels))
    what = f"is {cfg.decoder.num_points}, transformers has one number for all levels"
    require(len(points) == 1, "decoder.num_points", what, table.KEEP)
    equal: RTDETRConfig = replace_at(cfg, "decoder.num_points", points.pop())
    return equal


def _rtdetr_tree(cfg: RTDETRConfig) -> dict[str, Any]:
    is_dfine = isinstance(cfg, DFINEConfig)
    v2 = cfg.decoder.sampler != Bilinear() and not is_dfine
    base = dfine_l() if is_dfine else rtdetr_r50()
    fields = DFineFields if is_dfine else RTDetrV2Fields if v2 else RTDetrFields
    name = "DFine" if is_dfine else "RTDetrV2" if v2 else "RTDetr"
    tree = {
        "model_type": "d_fine" if is_dfine else "rt_detr_v2" if v2 else "rt_detr",
        "architectures": [f"{name}ForObjectDetection"],
        "num_denoising": 0,
        **table.spelled(fields, cfg, every_dropout(base)),
        **(spelled_dfine(cfg) if is_dfine else {}),
        "backbone_config": backbone_tree(cfg),
        "learn_initial_query": isinstance(cfg.selection, LearnedContent),
        "normalize_before": isinstance(getattr(cfg.encoder, "aifi", None), NormFirstConfig),
        **_said_twice(cfg),
    }
    return tree | ({"decoder_n_levels": cfg.decoder.num_levels} if v2 else {})


def _detr_tree(cfg: DETRConfig) -> dict[str, Any]:
    base = detr_r50_panoptic() if draws(cfg) else detr_r50()
    return {
        "model_type": "detr",
        "architectures": [f"DetrFor{'Segmentation' if draws(cfg) else 'ObjectDetection'}"],
        **table.spelled(DetrFields, cfg, every_dropout(base)),
        "auxiliary_loss": cfg.decoder.norm_between,
        **spelled_resnet(cfg, base),
    }


def _said_twice(cfg: RTDETRConfig) -> dict[str, list[int]]:
    """Return the values that their config repeats: they follow from other values."""
    channels, strides = maps_of(cfg.backbone)
    return {
        "encoder_in_channels": list(channels),
        "feat_strides": list(strides),
        "encode_proj_layers": [len(strides) - 1],
        "decoder_in_channels": [cfg.encoder.dim] * len(strides),
    }
