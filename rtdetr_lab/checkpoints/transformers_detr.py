r"""# transformers' configuration of DETR, and ours

As `transformers_config.py`, for `model_type: detr`; its backbone is in `transformers_resnet.py`.
Its batch norms are always frozen, its pixels are described in `preprocessor_config.json`, and
whether it draws stands in the name of its class: none of this is in the values below.
"""

from collections.abc import Mapping
from typing import Any

from rtdetr_lab.checkpoints.transformers_resnet import (
    backbone_of,
    require_only,
    spelled_backbone,
)
from rtdetr_lab.checkpoints.transformers_table import KEEP, Rows, parts_of, spelled
from rtdetr_lab.config import diff, require
from rtdetr_lab.criterion import CriterionConfig
from rtdetr_lab.detr.mask_losses import MaskCriterionConfig
from rtdetr_lab.detr.model import DETRConfig
from rtdetr_lab.detr.positions import LearnedPositions, SinePositions
from rtdetr_lab.detr.resnet import ResNetConfig
from rtdetr_lab.detr.segmentation import SegmentationConfig
from rtdetr_lab.detr.transformer import DETRDecoderConfig, DETREncoderConfig
from rtdetr_lab.losses import CrossEntropy
from rtdetr_lab.matching import MatcherConfig, SoftmaxCost

MODEL: Rows = (
    ("d_model", "dim", 256),
    *(
        (their_key.format(part), f"{part}.{field}", default)
        for part in ("encoder", "decoder")
        for their_key, field, default in (
            ("{}_layers", "num_layers", 6),
            ("{}_attention_heads", "num_heads", 8),
            ("{}_ffn_dim", "ffn_dim", 2048),
            ("{}_layerdrop", "layer_drop", 0.0),
            ("dropout", "dropout", 0.1),
            ("activation_function", "act", "relu"),
        )
    ),
    ("num_queries", "decoder.num_queries", 100),
)

CRITERION: Rows = (
    ("bbox_loss_coefficient", "criterion.l1_weight", 5.0),
    ("giou_loss_coefficient", "criterion.giou_weight", 2.0),
    ("eos_coefficient", "criterion.classification.no_object", 0.1),
    ("class_cost", "criterion.matcher.class_cost", 1.0),
    ("bbox_cost", "criterion.matcher.l1_cost", 5.0),
    ("giou_cost", "criterion.matcher.giou_cost", 2.0),
)

MASKS: Rows = (
    ("mask_loss_coefficient", "criterion.mask_weight", 1.0),
    ("dice_loss_coefficient", "criterion.dice_weight", 1.0),
)

ONLY: dict[str, Any] = {
    "num_channels": 3,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "scale_embedding": False,
}
POSITIONS = {"sine": SinePositions(), "learned": LearnedPositions()}
HARMLESS = (
    "criterion",
    "frozen_detector",
    "backbone.norm",
    "backbone.frozen_stages",
    "mean",
    "std",
)
"""Where a difference changes how a model learns, or is written elsewhere."""


def detr_from_transformers(
    tree: Mapping[str, Any], where: str, num_classes: int, masks: bool | None = None
) -> DETRConfig:
    """Our config of theirs. `masks`: does it draw? Without it, its `architectures` say so."""
    if masks is None:
        masks = "DetrForSegmentation" in (tree.get("architectures") or ())
    require_only(tree, ONLY, where)
    parts = parts_of(MODEL, tree, where)
    kind = tree.get("position_embedding_type", "sine")
    at = f"{where}[position_embedding_type]"
    require(kind in POSITIONS, at, f"is {kind!r}", f"use one of {', '.join(POSITIONS)}")
    common: dict[str, Any] = {
        "num_classes": num_classes,
        "dim": parts[""]["dim"],
        "backbone": backbone_of(tree, where, (1, 2, 3, 4) if masks else (4,)),
        "positions": POSITIONS[kind],
        "encoder": DETREncoderConfig(**parts["encoder"]),
        "decoder": DETRDecoderConfig(**parts["decoder"]),
    }
    criterion = parts_of((*CRITERION, *(MASKS if masks else ())), tree, where)
    matcher = MatcherConfig(**criterion["criterion.matcher"], classification=SoftmaxCost())
    loss = CrossEntropy(**criterion["criterion.classification"])
    if not masks:
        taught = CriterionConfig(matcher, loss, **criterion["criterion"])
        return DETRConfig(**common, criterion=taught)
    drawn = MaskCriterionConfig(matcher, loss, **criterion["criterion"])
    return SegmentationConfig(**common, criterion=drawn, num_mask_heads=common["encoder"].num_heads)


def detr_to_transformers(cfg: DETRConfig, names: tuple[str, ...]) -> dict[str, Any]:
    """Their `config.json` of our config; `ConfigError` for what theirs cannot say."""
    masks = draws(cfg)
    known = (ResNetConfig, DETREncoderConfig, DETRDecoderConfig)
    for part, kind in zip(("backbone", "encoder", "decoder"), known, strict=True):
        require(type(getattr(cfg, part)) is kind, part, f"is no {kind.__name__}", KEEP)
    kinds = [kind for kind, positions in POSITIONS.items() if positions == cfg.positions]
    require(kinds, "positions", f"{cfg.positions} has no name in transformers", KEEP)
    tree: dict[str, Any] = {
        "model_type": "detr",
        "architectures": ["DetrForSegmentation" if masks else "DetrForObjectDetection"],
        **spelled(MODEL, cfg),
        **spelled_backbone(cfg),
        "position_embedding_type": kinds[0],
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }
    if isinstance(cfg.criterion.classification, CrossEntropy):
        weights = spelled((*CRITERION, *(MASKS if masks else ())), cfg)
        tree |= {key: value for key, v in weights.items() if (value := _whole(key, v)) is not None}
    back = detr_from_transformers(tree, "transformers", cfg.num_classes, masks)
    for path, (here, there) in diff(cfg, back).items():
        harmless = path.startswith(HARMLESS)
        require(harmless, path, f"is {here}, transformers can only say {there}", KEEP)
    return tree


def draws(cfg: DETRConfig) -> bool:
    """Does it have a mask head?"""
    return isinstance(cfg, SegmentationConfig)


def _whole(key: str, value: float) -> int | float | None:
    """Their costs and weights are whole numbers; what is not cannot be said."""
    if key == "eos_coefficient":
        return value
    return int(value) if value == int(value) else None
