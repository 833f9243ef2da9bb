r"""# Table: transformers' flat fields ↔ our tree

A row is *their key, our path, their default*: transformers leaves a value out of `config.json`
where it equals the default of the release that wrote it, so a missing key means the default and
never "whatever we like". `ONLY` lists keys of which a single value exists here: the others are
broken upstream, or no published model was trained with them.

`parts_of` reads rows from their flat dictionary, `spelled` writes them into one; what the two trees
mean beyond single fields is in `transformers_config.py`.
"""

from collections.abc import Mapping
from functools import reduce
from typing import Any

import torch.nn.functional as F

from rtdetr_lab.backbone import BasicBlock, Bottleneck
from rtdetr_lab.config import require
from rtdetr_lab.samplers import Bilinear, Discrete, Sampler

Rows = tuple[tuple[str, str, Any], ...]
KEEP = 'save with layout="lab"'

MODEL: Rows = (
    ("encoder_hidden_dim", "encoder.dim", 256),
    ("encoder_layers", "encoder.aifi.num_layers", 1),
    ("encoder_attention_heads", "encoder.aifi.num_heads", 8),
    ("encoder_ffn_dim", "encoder.aifi.ffn_dim", 1024),
    ("encoder_activation_function", "encoder.aifi.act", "gelu"),
    ("positional_encoding_temperature", "encoder.aifi.temperature", 10000.0),
    ("dropout", "encoder.aifi.dropout", 0.0),
    ("hidden_expansion", "encoder.ccff.expansion", 1.0),
    ("activation_function", "encoder.ccff.act", "silu"),
    ("num_queries", "selection.num_queries", 300),
    ("d_model", "decoder.dim", 256),
    ("decoder_layers", "decoder.num_layers", 6),
    ("decoder_attention_heads", "decoder.num_heads", 8),
    ("decoder_ffn_dim", "decoder.ffn_dim", 1024),
    ("num_feature_levels", "decoder.num_levels", 3),
    ("decoder_n_points", "decoder.num_points", 4),
    ("decoder_activation_function", "decoder.act", "relu"),
    ("dropout", "decoder.dropout", 0.0),
)

RESNET: Rows = (
    ("embedding_size", "backbone.stem_width", 64),
    ("hidden_sizes", "backbone.widths", [256, 512, 1024, 2048]),
    ("depths", "backbone.depths", [3, 4, 6, 3]),
    ("layer_type", "backbone.block", "bottleneck"),
    ("hidden_act", "backbone.act", "relu"),
)
BACKBONE: Rows = (*RESNET, ("out_indices", "backbone.outputs", [2, 3, 4]))

DENOISING: Rows = (
    ("num_denoising", "denoising.num_queries", 100),
    ("label_noise_ratio", "denoising.label_noise", 0.5),
    ("box_noise_scale", "denoising.box_noise", 1.0),
)

CRITERION: Rows = (
    ("weight_loss_vfl", "criterion.class_weight", 1.0),
    ("weight_loss_bbox", "criterion.l1_weight", 5.0),
    ("weight_loss_giou", "criterion.giou_weight", 2.0),
    ("focal_loss_alpha", "criterion.classification.alpha", 0.75),
    ("focal_loss_gamma", "criterion.classification.gamma", 2.0),
    ("matcher_class_cost", "criterion.matcher.class_cost", 2.0),
    ("matcher_bbox_cost", "criterion.matcher.l1_cost", 5.0),
    ("matcher_giou_cost", "criterion.matcher.giou_cost", 2.0),
    ("matcher_alpha", "criterion.matcher.classification.alpha", 0.25),
    ("matcher_gamma", "criterion.matcher.classification.gamma", 2.0),
)

WHOLE = {"positional_encoding_temperature"}
"""Numbers that theirs wants whole, and that are not for us."""

ONLY: dict[str, Any] = {
    "normalize_before": False,
    "with_box_refine": True,
    "eval_size": None,
    "layer_norm_eps": 1e-5,
    "batch_norm_eps": 1e-5,
    "activation_dropout": 0.0,
    "attention_dropout": 0.0,
    "decoder_offset_scale": 0.5,
    "use_focal_loss": True,
    "use_timm_backbone": False,
}

ONLY_RESNET: dict[str, Any] = {
    "num_channels": 3,
    "downsample_in_first_stage": False,
    "downsample_in_bottleneck": False,
}

FUNCTIONS = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu, "swish": F.silu}
BLOCKS = {"basic": BasicBlock, "bottleneck": Bottleneck}
SAMPLERS: dict[str, Sampler] = {"default": Bilinear(), "discrete": Discrete(shift=0.5)}
OUTPUT_NAMES = {f"stage{i}": i for i in range(1, 9)}


def parts_of(rows: Rows, tree: Mapping[str, Any], where: str) -> dict[str, dict[str, Any]]:
    """Our part → the fields of its config, read from their flat one."""
    parts: dict[str, dict[str, Any]] = {}
    for key, path, default in rows:
        part, _, field = path.rpartition(".")
        value = _read(tree.get(key, default), default, f"{where}[{key}]")
        parts.setdefault(part, {})[field] = value
    return parts


def _read(theirs: Any, default: Any, where: str) -> Any:
    if isinstance(default, str):
        known = BLOCKS if default in BLOCKS else FUNCTIONS
        ok = isinstance(theirs, str) and theirs in known
        require(ok, where, f"is {theirs!r}", f"use one of {', '.join(known)}")
        return known[theirs]
    if isinstance(default, list):
        ok = isinstance(theirs, list | tuple) and all(type(v) is int for v in theirs)
        require(ok, where, f"is {theirs!r}", "give whole numbers")
        return tuple(theirs)
    kinds = (int, float) if isinstance(default, float) else (int,)
    require(type(theirs) in kinds, where, f"is {theirs!r}", "give a number")
    return type(default)(theirs)


def switch(tree: Mapping[str, Any], key: str, default: bool) -> bool:
    """A value that is on or off. 1.5 and "no" would both count as on, and mean something else."""
    value = tree.get(key, default)
    require(type(value) is bool, key, f"is {value!r}", "give true or false")
    return bool(value)


def spelled(rows: Rows, cfg: Any) -> dict[str, Any]:
    """Their key → value of our config, written as they write it."""
    tree: dict[str, Any] = {}
    for key, path, default in rows:
        value = reduce(lambda part, name: getattr(part, name, None), path.split("."), cfg)
        require(value is not None, path, "is nothing transformers knows", KEEP)
        if isinstance(default, str):
            known = BLOCKS if default in BLOCKS else FUNCTIONS
            names = [name for name, item in known.items() if item is value]
            require(names, path, f"{value} has no name in transformers", KEEP)
            tree[key] = names[0]
        elif isinstance(default, list):
            tree[key] = list(value)
        else:
            tree[key] = int(value) if key in WHOLE else value
    return tree
