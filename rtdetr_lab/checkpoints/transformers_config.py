r"""# transformers' configuration: their flat fields ↔ our tree

`transformers_fields.py` maps their fields to ours, and `transformers_resnet.py` reads a backbone.
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

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rtdetr_lab.backbone import BasicBlock
from rtdetr_lab.checkpoints.transformers_fields import (
    DetrFields,
    ResNetFields,
    RTDetrFields,
    RTDetrV2Fields,
)
from rtdetr_lab.checkpoints.transformers_resnet import (
    UnpooledBlock,
    resnet_d_values,
    resnet_values,
    spelled_resnet,
)
from rtdetr_lab.checkpoints.transformers_table import KEEP, REMEDY, spelled, values_of
from rtdetr_lab.config import diff, replace_all, replace_at, require
from rtdetr_lab.deformable_attention import points_per_level
from rtdetr_lab.detr.model import DETRConfig, detr_r50
from rtdetr_lab.detr.segmentation import SegmentationConfig, detr_r50_panoptic
from rtdetr_lab.errors import ConfigError, LabError
from rtdetr_lab.query_selection import LearnedContent
from rtdetr_lab.rtdetr import RTDETRConfig, rtdetr_r50
from rtdetr_lab.samplers import Bilinear

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
    known = kind in ("rt_detr", "rt_detr_v2", "detr")
    require(known, where, f"model_type is {kind!r}", "give an rt_detr, rt_detr_v2 or detr")
    with placed(where):
        if masks is None:
            masks = "DetrForSegmentation" in (tree.get("architectures") or ())
        names = class_names(tree, where)
        if kind == "detr":
            return _detr(tree, where, len(names), masks), names
        return _rtdetr(tree, where, len(names)), names


def _rtdetr(tree: Mapping[str, Any], where: str, num_classes: int) -> RTDETRConfig:
    base = rtdetr_r50(num_classes)  # has their defaults
    values = values_of(RTDetrV2Fields, tree, where, base)
    values |= resnet_d_values(tree.get("backbone_config") or {}, f"{where}[backbone_config]")
    learned, at = tree.get("learn_initial_query", False), f"{where}[learn_initial_query]"
    require(type(learned) is bool, at, f"is {learned!r}", "give true or false")
    if learned:
        base = replace_at(base, "selection", LearnedContent())
    if not values["denoising.num_queries"]:
        values = {p: v for p, v in values.items() if not p.startswith("denoising.")}
        values["denoising"] = None
    cfg: RTDETRConfig = replace_all(base, values)
    for key, value in _said_twice(cfg).items():
        found = list(tree.get(key, getattr(RTDetrFields, key)))
        what = f"is {found}, but {value} follows from the other values"
        require(found == value, f"{where}[{key}]", what, "make them agree")
    return cfg


def _detr(tree: Mapping[str, Any], where: str, num_classes: int, masks: bool) -> DETRConfig:
    scaled, at = tree.get("scale_embedding", False), f"{where}[scale_embedding]"
    require(not scaled, at, f"is {scaled!r}, only False works", REMEDY)  # from releases before 5
    base = detr_r50_panoptic(num_classes) if masks else detr_r50(num_classes)
    values = values_of(DetrFields, tree, where, base) | resnet_values(tree, where, base)
    values["decoder.norm_between"] = bool(tree.get("auxiliary_loss"))
    if masks:
        values["num_mask_heads"] = values["encoder.num_heads"]
    cfg: DETRConfig = replace_all(base, values)
    return cfg


@contextmanager
def placed(where: str) -> Iterator[None]:
    """Add `where` to every error inside the block; foreign errors become `ConfigError`."""
    try:
        yield
    except LabError as error:
        place = error.where if error.where.startswith(where) else f"{where}: {error.where}"
        raise type(error)(place, error.what, error.remedy) from error
    except Exception as error:  # a list for a number, or a word for a list
        what = f"has a value of the wrong type ({error})"
        raise ConfigError(where, what, "correct its values") from error


def to_transformers(cfg: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Convert our config to their `config.json`; raise `ConfigError` if that is impossible."""
    names = names or tuple(f"LABEL_{i}" for i in range(cfg.num_classes))  # as in transformers
    known = isinstance(cfg, RTDETRConfig | DETRConfig)
    require(known, "transformers", "is not an RT-DETR or DETR", KEEP)
    if isinstance(cfg, DETRConfig):
        tree = _detr_tree(cfg)
    else:
        cfg = _with_equal_points(cfg)
        tree = _rtdetr_tree(cfg)
    tree["id2label"] = {str(i): name for i, name in enumerate(names)}
    tree["label2id"] = {name: i for i, name in enumerate(names)}
    back, _ = from_transformers(tree, "transformers")
    for path, (here, there) in diff(cfg, back).items():
        trimmed = path.endswith("inference_layers")
        remedy = f"save model.trim({here}), or {KEEP}" if trimmed else KEEP
        what = f"is {here}, transformers can only express {there}"
        require(path.startswith(HARMLESS), path, what, remedy)
    return tree


def _with_equal_points(cfg: RTDETRConfig) -> RTDETRConfig:
    points = set(points_per_level(cfg.decoder.num_points, cfg.decoder.num_levels))
    what = f"is {cfg.decoder.num_points}, transformers has one number for all levels"
    require(len(points) == 1, "decoder.num_points", what, KEEP)
    equal: RTDETRConfig = replace_at(cfg, "decoder.num_points", points.pop())
    return equal


def _rtdetr_tree(cfg: RTDETRConfig) -> dict[str, Any]:
    base, v2 = rtdetr_r50(), cfg.decoder.sampler != Bilinear()
    if cfg.backbone.block is UnpooledBlock:
        cfg = replace_at(cfg, "backbone.block", BasicBlock)  # their word for both
    resnet = spelled(ResNetFields, cfg, base)
    tree = {
        "model_type": "rt_detr_v2" if v2 else "rt_detr",
        "architectures": [f"RTDetr{'V2' if v2 else ''}ForObjectDetection"],
        "num_denoising": 0,
        **spelled(RTDetrV2Fields if v2 else RTDetrFields, cfg, base),
        "backbone_config": {"model_type": "rt_detr_resnet", **resnet},
        "learn_initial_query": isinstance(cfg.selection, LearnedContent),
        **_said_twice(cfg),
    }
    tree["backbone_config"]["out_indices"] = list(cfg.backbone.outputs)
    return tree | ({"decoder_n_levels": cfg.decoder.num_levels} if v2 else {})


def _detr_tree(cfg: DETRConfig) -> dict[str, Any]:
    base = detr_r50_panoptic() if draws(cfg) else detr_r50()
    return {
        "model_type": "detr",
        "architectures": [f"DetrFor{'Segmentation' if draws(cfg) else 'ObjectDetection'}"],
        **spelled(DetrFields, cfg, base),
        "auxiliary_loss": cfg.decoder.norm_between,
        **spelled_resnet(cfg, base),
    }


def _said_twice(cfg: RTDETRConfig) -> dict[str, list[int]]:
    """Return the values that their config repeats: they follow from other values."""
    outputs = cfg.backbone.outputs
    return {
        "encoder_in_channels": [cfg.backbone.widths[i - 1] for i in outputs],
        "feat_strides": [2 ** (i + 1) for i in outputs],
        "encode_proj_layers": [len(outputs) - 1],
        "decoder_in_channels": [cfg.encoder.dim] * len(outputs),
    }


def class_names(tree: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Return the names of the classes in order, from `id2label`, else from `num_labels`."""
    count = tree.get("num_labels")
    unnamed = {i: f"LABEL_{i}" for i in range(2 if count is None else count)}  # as in transformers
    # In JSON the numbers are text.
    by_id = {int(i): str(name) for i, name in (tree.get("id2label") or unnamed).items()}
    require(by_id, f"{where}[num_labels]", f"is {count}", "give at least one class")
    what = f"numbers its {len(by_id)} classes {min(by_id)} … {max(by_id)}"
    contiguous = sorted(by_id) == list(range(len(by_id)))
    require(contiguous, f"{where}[id2label]", what, "number them 0, 1, 2 …")
    return tuple(by_id[i] for i in range(len(by_id)))
