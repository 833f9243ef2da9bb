r"""# transformers' configuration: their 52 flat fields, our tree

`transformers_table.py` says which of their fields is which of ours; this file reads it in both
directions. What we cannot do is not ignored: it is refused by name, as are widths that their config
states twice and differently. Keys that no computation reads are left alone.

Our v1 and v2 are one model, so the way back writes `rt_detr` wherever that can say it, and
`rt_detr_v2` for discrete sampling only. Their discrete sampling looks half a cell further than it
should (`docs/differences.md`), which is `Discrete(shift=0.5)` here.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from rtdetr_lab.aifi import AIFIConfig
from rtdetr_lab.backbone import ResNetDConfig
from rtdetr_lab.ccff import CCFFConfig
from rtdetr_lab.checkpoints.transformers_detr import detr_from_transformers, detr_to_transformers
from rtdetr_lab.checkpoints.transformers_resnet import require_only
from rtdetr_lab.checkpoints.transformers_table import (
    BACKBONE,
    CRITERION,
    DENOISING,
    KEEP,
    MODEL,
    ONLY,
    ONLY_RESNET,
    OUTPUT_NAMES,
    SAMPLERS,
    parts_of,
    spelled,
    switch,
)
from rtdetr_lab.config import diff, replace_at, require
from rtdetr_lab.criterion import CriterionConfig
from rtdetr_lab.decoder import DecoderConfig
from rtdetr_lab.deformable_attention import points_per_level
from rtdetr_lab.denoising import DenoisingConfig
from rtdetr_lab.detr.model import DETRConfig
from rtdetr_lab.errors import ConfigError
from rtdetr_lab.hybrid_encoder import HybridEncoderConfig
from rtdetr_lab.layers import FrozenBatchNorm2d
from rtdetr_lab.losses import Varifocal
from rtdetr_lab.matching import FocalCost, MatcherConfig
from rtdetr_lab.query_selection import LearnedContent, TopScore
from rtdetr_lab.rtdetr import RTDETRConfig, rtdetr_r50
from rtdetr_lab.samplers import Bilinear

TRAINING_ONLY = ("criterion", "denoising", "decoder.box_gradient")
"""Where a difference changes how a model learns and not what it answers."""


def from_transformers(
    tree: Mapping[str, Any], where: str, masks: bool | None = None
) -> tuple[Any, tuple[str, ...]]:
    """Our config, and the class names, of their `config.json`.

    `masks`: does a DETR draw? Without it, its `architectures` say so. Raises `ConfigError` for
    values that no model can be built from, or that ours cannot do.
    """
    kind = tree.get("model_type")
    known = kind in ("rt_detr", "rt_detr_v2", "detr")
    require(known, where, f"model_type is {kind!r}", "give an rt_detr, rt_detr_v2 or detr")
    if kind == "detr":
        names = _class_names(tree, where)
        with _placed(where):
            return detr_from_transformers(tree, where, len(names), masks), names
    return _rtdetr(tree, where)


def _rtdetr(tree: Mapping[str, Any], where: str) -> tuple[RTDETRConfig, tuple[str, ...]]:
    require_only(tree, ONLY, where)
    inner = dict(tree.get("backbone_config") or {})
    if "out_features" in inner and "out_indices" not in inner:
        inner["out_indices"] = [OUTPUT_NAMES.get(n, 0) for n in inner["out_features"]]
    at = f"{where}[backbone_config]"
    require_only(inner, {"model_type": "rt_detr_resnet", **ONLY_RESNET}, at)
    parts = parts_of(MODEL, tree, where) | parts_of(BACKBONE, inner, at)
    with _placed(where):
        names = _class_names(tree, where)
        cfg = _assembled(parts, tree, len(names))
    left_out = _said_twice(rtdetr_r50())  # their defaults are the R50's
    for key, value in _said_twice(cfg).items():
        found = list(tree.get(key, left_out[key]))
        what = f"is {found}, the other values make it {value}"
        require(found == value, f"{where}[{key}]", what, "let them agree")
    return cfg, names


@contextmanager
def _placed(where: str) -> Iterator[None]:
    """Whatever a config does not like, named by its file."""
    try:
        yield
    except ConfigError as error:
        place = error.where if error.where.startswith(where) else f"{where}: {error.where}"
        raise ConfigError(place, error.what, error.remedy) from error
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(where, str(error), "correct its values") from error


def to_transformers(cfg: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Their `config.json` of our config; `ConfigError` for what theirs cannot say."""
    names = names or tuple(f"LABEL_{i}" for i in range(cfg.num_classes))  # their word for unnamed
    if isinstance(cfg, DETRConfig):
        return detr_to_transformers(cfg, names)
    require(isinstance(cfg, RTDETRConfig), "transformers", "is no RT-DETR or DETR", KEEP)
    require(isinstance(cfg.backbone, ResNetDConfig), "backbone", "is no ResNet-D", KEEP)
    points = set(points_per_level(cfg.decoder.num_points, cfg.decoder.num_levels))
    what = f"is {cfg.decoder.num_points}, transformers has one number for all levels"
    require(len(points) == 1, "decoder.num_points", what, KEEP)
    cfg = replace_at(cfg, "decoder.num_points", points.pop())
    v2 = cfg.decoder.sampler != Bilinear()
    tree: dict[str, Any] = {
        "model_type": "rt_detr_v2" if v2 else "rt_detr",
        "architectures": [f"RTDetr{'V2' if v2 else ''}ForObjectDetection"],
        **spelled(MODEL, cfg),
        "backbone_config": {"model_type": "rt_detr_resnet", **spelled(BACKBONE, cfg)},
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
        "freeze_backbone_batch_norms": cfg.backbone.norm is FrozenBatchNorm2d,
        "learn_initial_query": isinstance(cfg.selection, LearnedContent),
        **_said_twice(cfg),
        "num_denoising": 0,
    }
    if cfg.denoising is not None:
        tree |= spelled(DENOISING, cfg)
    if _is_theirs(cfg.criterion):
        tree |= spelled(CRITERION, cfg)
    if v2:
        tree |= {"decoder_method": "discrete", "decoder_n_levels": cfg.decoder.num_levels}
    for path, (here, there) in diff(cfg, from_transformers(tree, "transformers")[0]).items():
        harmless = path.startswith(TRAINING_ONLY)
        trimmed = path.endswith("inference_layers")
        remedy = f"save model.trim({here}), or {KEEP}" if trimmed else KEEP
        require(harmless, path, f"is {here}, transformers can only say {there}", remedy)
    return tree


def _assembled(
    parts: dict[str, dict[str, Any]], tree: Mapping[str, Any], num_classes: int
) -> RTDETRConfig:
    method = tree.get("decoder_method", "default")
    require(method in SAMPLERS, "decoder_method", f"is {method!r}", f"use {', '.join(SAMPLERS)}")
    frozen = switch(tree, "freeze_backbone_batch_norms", True)
    selection = LearnedContent if switch(tree, "learn_initial_query", False) else TopScore
    noise = parts_of(DENOISING, tree, "config.json")["denoising"]
    return RTDETRConfig(
        num_classes,
        backbone=ResNetDConfig(
            **parts["backbone"], norm=FrozenBatchNorm2d if frozen else nn.BatchNorm2d
        ),
        encoder=HybridEncoderConfig(
            **parts["encoder"],
            aifi=AIFIConfig(**parts["encoder.aifi"]),
            ccff=CCFFConfig(**parts["encoder.ccff"]),
        ),
        selection=selection(**parts["selection"]),
        decoder=DecoderConfig(**parts["decoder"], sampler=SAMPLERS[method]),
        denoising=DenoisingConfig(**noise) if tree.get("num_denoising", 100) else None,
        criterion=_criterion(parts_of(CRITERION, tree, "config.json")),
    )


def _criterion(parts: dict[str, dict[str, Any]]) -> CriterionConfig:
    cost = FocalCost(**parts["criterion.matcher.classification"])
    matcher = MatcherConfig(**parts["criterion.matcher"], classification=cost)
    loss = Varifocal(**parts["criterion.classification"])
    return CriterionConfig(matcher, loss, **parts["criterion"])


def _is_theirs(criterion: Any) -> bool:
    return (
        isinstance(criterion, CriterionConfig)
        and isinstance(criterion.classification, Varifocal)
        and isinstance(criterion.matcher.classification, FocalCost)
    )


def _said_twice(cfg: RTDETRConfig) -> dict[str, list[int]]:
    """What their config repeats: it follows from other values."""
    outputs = cfg.backbone.outputs
    return {
        "encoder_in_channels": [cfg.backbone.widths[i - 1] for i in outputs],
        "feat_strides": [2 ** (i + 1) for i in outputs],
        "encode_proj_layers": [len(outputs) - 1],
        "decoder_in_channels": [cfg.encoder.dim] * len(outputs),
    }


def _class_names(tree: Mapping[str, Any], where: str) -> tuple[str, ...]:
    # Theirs has two classes unless told otherwise; JSON makes the numbers texts.
    unnamed = {i: f"LABEL_{i}" for i in range(tree.get("num_labels", 2))}
    given = tree.get("id2label") or unnamed
    by_id = {int(i): str(name) for i, name in given.items()}
    what = f"numbers its {len(by_id)} classes {min(by_id)} … {max(by_id)}"
    contiguous = sorted(by_id) == list(range(len(by_id)))
    require(contiguous, f"{where}[id2label]", what, "number them 0, 1, 2 …")
    return tuple(by_id[i] for i in range(len(by_id)))
