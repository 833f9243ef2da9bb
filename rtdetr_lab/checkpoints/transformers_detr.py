r"""# transformers' configuration of DETR, and ours

As `transformers_config.py`, for `model_type: detr`. A config names its backbone in one of three
ways, all of which the hub has:

| their config                                            | names in the file | DC5            |
|---------------------------------------------------------|-------------------|----------------|
| `backbone: resnet50` (`use_timm_backbone`, or nothing)  | timm's            | `dilation`     |
| `backbone_config` of `timm_backbone`                    | timm's            | `output_stride` 16 |
| `backbone_config` of `resnet`                           | transformers'     | cannot         |

transformers ignores `dilation` in the last case; we refuse it, since nobody can know what was
meant. So a DC5 of ours is written the first way, everything else the third.

Its batch norms are always frozen, its pixels are described in `preprocessor_config.json`, and
whether it draws stands in the name of its class: none of this is in the values below.
"""

from collections.abc import Mapping
from typing import Any

from rtdetr_lab.backbone import BasicBlock, Bottleneck
from rtdetr_lab.checkpoints.transformers_table import KEEP, OUTPUT_NAMES, Rows, parts_of, spelled
from rtdetr_lab.config import diff, require
from rtdetr_lab.criterion import CriterionConfig
from rtdetr_lab.detr import DETRConfig
from rtdetr_lab.detr_positions import LearnedPositions, SinePositions
from rtdetr_lab.detr_transformer import DETRDecoderConfig, DETREncoderConfig
from rtdetr_lab.losses import CrossEntropy
from rtdetr_lab.mask_losses import MaskCriterionConfig
from rtdetr_lab.matching import MatcherConfig, SoftmaxCost
from rtdetr_lab.resnet import ResNetConfig
from rtdetr_lab.segmentation import SegmentationConfig

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

RESNET: Rows = (
    ("embedding_size", "backbone.stem_width", 64),
    ("hidden_sizes", "backbone.widths", [256, 512, 1024, 2048]),
    ("depths", "backbone.depths", [3, 4, 6, 3]),
    ("layer_type", "backbone.block", "bottleneck"),
    ("hidden_act", "backbone.act", "relu"),
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
ONLY_RESNET = {
    "num_channels": 3,
    "downsample_in_first_stage": False,
    "downsample_in_bottleneck": False,
}

TIMM = {
    "resnet18": ((2, 2, 2, 2), (64, 128, 256, 512), BasicBlock),
    "resnet34": ((3, 4, 6, 3), (64, 128, 256, 512), BasicBlock),
    "resnet50": ((3, 4, 6, 3), (256, 512, 1024, 2048), Bottleneck),
    "resnet101": ((3, 4, 23, 3), (256, 512, 1024, 2048), Bottleneck),
    "resnet152": ((3, 8, 36, 3), (256, 512, 1024, 2048), Bottleneck),
}
"""timm's plain ResNets: depths, widths, block."""

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
REMEDY = "change the value, or build this variant here and give it as config="


def detr_from_transformers(
    tree: Mapping[str, Any], where: str, num_classes: int, masks: bool | None = None
) -> DETRConfig:
    """Our config of theirs. `masks`: does it draw? Without it, its `architectures` say so."""
    if masks is None:
        masks = "DetrForSegmentation" in (tree.get("architectures") or ())
    _only(tree, ONLY, where)
    parts = parts_of(MODEL, tree, where)
    kind = tree.get("position_embedding_type", "sine")
    at = f"{where}[position_embedding_type]"
    require(kind in POSITIONS, at, f"is {kind!r}", f"use one of {', '.join(POSITIONS)}")
    common: dict[str, Any] = {
        "num_classes": num_classes,
        "dim": parts[""]["dim"],
        "backbone": _backbone(tree, where, (1, 2, 3, 4) if masks else (4,)),
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
        **_spelled_backbone(cfg),
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


def speaks_timm(cfg: DETRConfig) -> bool:
    """Are the tensors of the backbone written under timm's names?"""
    return bool(cfg.backbone.dilated)


def _backbone(tree: Mapping[str, Any], where: str, outputs: tuple[int, ...]) -> ResNetConfig:
    inner, at = tree.get("backbone_config"), f"{where}[backbone_config]"
    require(isinstance(inner, Mapping | None), at, f"is {inner!r}", "give an object, or null")
    kind = (inner or {}).get("model_type", "resnet" if inner else "timm_backbone")
    known = kind in ("timm_backbone", "resnet")
    require(known, f"{at}[model_type]", f"is {kind!r}", "give resnet or timm_backbone")
    if kind == "timm_backbone":
        return _timm_backbone(tree, inner or {}, where, outputs)
    assert inner is not None
    what = "is set, and transformers ignores it for its own ResNet"
    require(not tree.get("dilation"), f"{where}[dilation]", what, "unset it, or use timm's ResNet")
    _only(inner, ONLY_RESNET, at)
    _check_outputs(inner, at, outputs)
    return ResNetConfig(**parts_of(RESNET, inner, at)["backbone"], outputs=outputs, frozen_stages=1)


def _timm_backbone(
    tree: Mapping[str, Any], inner: Mapping[str, Any], where: str, outputs: tuple[int, ...]
) -> ResNetConfig:
    told = {**(tree.get("backbone_kwargs") or {}), **inner}
    name = told.get("backbone") or tree.get("backbone") or "resnet50"
    short = str(name).removeprefix("timm/").partition(".")[0]  # a tag says who trained it
    what, remedy = f"is {name!r}", f"use one of {', '.join(TIMM)}, or give config="
    require(short in TIMM, f"{where}[backbone]", what, remedy)
    stride = told.get("output_stride", 16 if tree.get("dilation") else 32)
    at = f"{where}[backbone_config][output_stride]"
    require(stride in (16, 32), at, f"is {stride!r}", "give 32, or 16 for DC5")
    channels = told.get("num_channels", told.get("in_chans", 3))
    require(channels == 3, f"{where}[backbone_config]", f"reads {channels} channels", "give 3")
    _check_outputs(told, where, outputs)
    depths, widths, block = TIMM[short]
    return ResNetConfig(
        depths, widths, block, outputs=outputs, dilated=stride == 16, frozen_stages=1
    )


def _check_outputs(inner: Mapping[str, Any], where: str, outputs: tuple[int, ...]) -> None:
    """A detector reads the last map they return; a mask head reads all of them."""
    named = [OUTPUT_NAMES.get(name, 0) for name in inner.get("out_features") or ()]
    found = tuple(inner.get("out_indices") or named or outputs)
    fits = found[-1] == outputs[-1] if len(outputs) == 1 else found == outputs
    what, remedy = f"returns the maps {found}", f"let it return {outputs}"
    require(fits, f"{where}[out_indices]", what, remedy)


def _spelled_backbone(cfg: DETRConfig) -> dict[str, Any]:
    backbone: ResNetConfig = cfg.backbone
    if not backbone.dilated:
        resnet = {"model_type": "resnet", **spelled(RESNET, cfg)}
        resnet |= {"out_features": [f"stage{i}" for i in backbone.outputs]}
        resnet |= {"out_indices": list(backbone.outputs)}
        return {"backbone_config": resnet, "use_timm_backbone": False, "dilation": False}
    sizes = (backbone.depths, backbone.widths, backbone.block)
    found = [name for name, known in TIMM.items() if known == sizes]
    require(found, "backbone", "is no ResNet of timm's, which alone can be dilated there", KEEP)
    plain = ResNetConfig()
    same = backbone.stem_width == plain.stem_width and backbone.act is plain.act
    require(same, "backbone", "has another stem or activation than timm's", KEEP)
    return {
        "backbone": found[0],
        "backbone_config": None,
        "use_timm_backbone": True,
        "use_pretrained_backbone": False,
        "dilation": True,
    }


def _whole(key: str, value: float) -> int | float | None:
    """Their costs and weights are whole numbers; what is not cannot be said."""
    if key == "eos_coefficient":
        return value
    return int(value) if value == int(value) else None


def _only(tree: Mapping[str, Any], allowed: Mapping[str, Any], where: str) -> None:
    for key, value in allowed.items():
        found = tree.get(key, value)
        require(found == value, f"{where}[{key}]", f"is {found!r}, only {value!r} works", REMEDY)
