"""No dark switch: every variant and every other value of every field runs, learns and matters.

`OTHER` has an entry for every field of every configuration of the chapters; a new field without
one fails here, and so does a value that changes nothing anybody could measure.
"""

import dataclasses
import importlib
import math

import pytest
import torch
import torch.nn.functional as F
from configurations import differ, is_configuration
from small import SMALL, SMALL_DFINE, SMALL_HGNET, pictures, shaken, targets

from rtdetr_lab.aifi import AIFIConfig
from rtdetr_lab.backbone import Bottleneck, ResNetDConfig
from rtdetr_lab.ccff import CCFFConfig
from rtdetr_lab.config import replace_all
from rtdetr_lab.criterion import CriterionConfig
from rtdetr_lab.decoder import DecoderConfig, look_forward_once
from rtdetr_lab.denoising import DenoisingConfig
from rtdetr_lab.detr.mask_losses import MaskLoss
from rtdetr_lab.hybrid_encoder import HybridEncoderConfig
from rtdetr_lab.layers import FrozenBatchNorm2d, sine_2d_authors
from rtdetr_lab.losses import BinaryCrossEntropy, CrossEntropy, Focal, Varifocal
from rtdetr_lab.masks.query_masks import QueryMasks, with_masks
from rtdetr_lab.matching import FocalCost, MatcherConfig, SoftmaxCost
from rtdetr_lab.query_selection import LearnedContent, TopScore
from rtdetr_lab.rtdetr import RTDETRConfig
from rtdetr_lab.samplers import Bilinear, Discrete, Naive
from rtdetr_lab.successors.deim import MatchabilityAware
from rtdetr_lab.successors.dfine import DFINEConfig
from rtdetr_lab.successors.dfine_losses import DFINECriterionConfig
from rtdetr_lab.successors.fdr import FDRConfig
from rtdetr_lab.successors.gelan import GELANConfig
from rtdetr_lab.successors.hgnetv2 import HGNetV2Config
from rtdetr_lab.successors.rtdetrv3 import (
    DenseCriterionConfig,
    RTDETRv3Config,
    TaskAligned,
    as_rtdetrv3,
)

CHAPTERS = ("aifi", "backbone", "ccff", "hybrid_encoder", "query_selection", "samplers", "decoder")
CHAPTERS += ("deformable_attention", "denoising", "matching", "losses", "criterion", "rtdetr")
CHAPTERS += tuple(f"successors.{name}" for name in ("hgnetv2", "gelan", "fdr", "dfine"))
CHAPTERS += ("successors.dfine_losses", "successors.deim", "masks.query_masks")
CHAPTERS += ("successors.rtdetrv3",)


@dataclasses.dataclass(frozen=True)
class With:
    """A value that needs another one beside it."""

    value: object
    also: dict


FINER = {"backbone.outputs": (1, 2, 3, 4)}
DRAWS = {"criterion.masks": MaskLoss(), **FINER}
LEARNS = {"masks": QueryMasks(8), **FINER}

LOSS, COST = "criterion.classification", "criterion.matcher.classification"

EPS = {"layer_norm_eps": [0.1], "batch_norm_eps": [0.1]}

OTHER = {
    # where in the model, and per field the values that are not the small model's
    RTDETRConfig: (
        "",
        {
            "num_classes": [7],
            "backbone": [ResNetDConfig((1, 1, 1, 1), (8, 8, 8, 8), stem_width=4)],
            "encoder": [HybridEncoderConfig(12, AIFIConfig(num_heads=2), CCFFConfig(1.0, 1))],
            "selection": [LearnedContent(10)],
            "decoder": [DecoderConfig(16, num_layers=2, num_heads=2, ffn_dim=8)],
            "denoising": [None],
            "criterion": [CriterionConfig(l1_weight=1.0)],
            **EPS,
            "masks": [With(QueryMasks(8), DRAWS)],
        },
    ),
    ResNetDConfig: (
        "backbone",
        {
            "depths": [(1, 2, 1, 2)],
            "widths": [(8, 8, 8, 12)],
            "block": [Bottleneck],
            "stem_width": [6],
            "outputs": [
                With((4,), {"decoder.num_levels": 1, "selection.num_queries": 5}),
                With((1, 2, 3, 4), {"decoder.num_levels": 4}),
            ],
            "norm": [FrozenBatchNorm2d],
            "act": [F.silu],
        },
    ),
    HGNetV2Config: (
        "backbone",
        {
            "stem": [(4, 6)],
            "widths": [(8, 12, 16, 20)],
            "mid_widths": [(6, 4, 6, 6)],
            "depths": [(1, 2, 1, 2)],
            "num_layers": [(2, 2, 1, 3)],
            "kernels": [(3, 3, 3, 5)],
            "light": [(), (2, 3, 4)],
            "outputs": [With((4,), {"decoder.num_levels": 1, "selection.num_queries": 5})],
            "affine": [True],
            "norm": [FrozenBatchNorm2d],
            "act": [F.silu],
        },
    ),
    HybridEncoderConfig: (
        "encoder",
        {"dim": [24], "aifi": [None], "ccff": [CCFFConfig(1.0, 2)]},
    ),
    DFINEConfig: (
        "",
        {
            "num_classes": [7],
            "backbone": [ResNetDConfig((1, 1, 1, 1), (8, 8, 8, 8), stem_width=4)],
            "encoder": [HybridEncoderConfig(12, AIFIConfig(num_heads=2), GELANConfig(1.0, 1))],
            "selection": [LearnedContent(10)],
            "decoder": [FDRConfig(16, 2, 2, ffn_dim=8)],
            **EPS,
            "denoising": [None],
            "criterion": [DFINECriterionConfig(l1_weight=1.0)],
            "masks": [With(QueryMasks(8), DRAWS)],
        },
    ),
    DFINECriterionConfig: (
        "criterion",
        {
            "matcher": [MatcherConfig(class_cost=0.0)],
            "classification": [Focal()],
            "class_weight": [2.0],
            "l1_weight": [0.0],
            "giou_weight": [0.0],
            "fgl_weight": [0.0],
            "ddf_weight": [0.0],
            "temperature": [1.0],
            "one_matching": [False],
            "masks": [With(MaskLoss(), LEARNS)],
        },
    ),
    RTDETRv3Config: (
        "",
        {
            "num_classes": [7],
            "backbone": [ResNetDConfig((1, 1, 1, 1), (8, 8, 8, 8), stem_width=4)],
            "encoder": [HybridEncoderConfig(12, AIFIConfig(num_heads=2), CCFFConfig(1.0, 1))],
            "selection": [LearnedContent(10)],
            "decoder": [DecoderConfig(16, num_layers=2, num_heads=2, ffn_dim=8)],
            "denoising": [None],
            "criterion": [DenseCriterionConfig(l1_weight=1.0)],
            "num_groups": [0, 1],
            "perturbation": [0.5],
            "num_many": [8],
            "masks": [With(QueryMasks(8), DRAWS)],
            **EPS,
        },
    ),
    DenseCriterionConfig: (
        "criterion",
        {
            "matcher": [MatcherConfig(class_cost=0.0)],
            "classification": [Focal()],
            "class_weight": [2.0],
            "l1_weight": [0.0],
            "giou_weight": [0.0],
            "copies": [1],
            "masks": [With(MaskLoss(), LEARNS)],
            "cells": [TaskAligned(3)],
        },
    ),
    TaskAligned: ("criterion.cells", {"num_cells": [2], "alpha": [0.0], "beta": [1.0]}),
    GELANConfig: (
        "encoder.ccff",
        {"expansion": [1.0, 0.25], "num_blocks": [0, 2], "act": [F.relu]},
    ),
    FDRConfig: (
        "decoder",
        {
            "dim": [24],
            "num_layers": [1],
            "num_heads": [2],
            "ffn_dim": [8],
            "num_levels": [4],
            "num_points": [(2, 3, 2)],
            "sampler": [Discrete()],
            "box_gradient": [look_forward_once],
            "inference_layers": [1],
            "dropout": [0.3],
            "attention_dropout": [0.3],
            "activation_dropout": [0.3],
            "act": [F.gelu],
            "num_bins": [6],
            "scale": [8.0],
            "reach": [1.0],
            "top_bins": [2],
            "quality_dim": [4],
        },
    ),
    AIFIConfig: (
        "encoder.aifi",
        {
            "num_layers": [2],
            "num_heads": [2],
            "ffn_dim": [8],
            "dropout": [0.3],
            "activation_dropout": [0.3],
            "act": [F.relu],
            "positions": [None, sine_2d_authors],
            "temperature": [20.0],
        },
    ),
    CCFFConfig: ("encoder.ccff", {"expansion": [1.0, 0.25], "num_blocks": [0, 2], "act": [F.relu]}),
    TopScore: ("selection", {"num_queries": [3]}),
    LearnedContent: ("selection", {"num_queries": [3]}),
    DecoderConfig: (
        "decoder",
        {
            "dim": [24],
            "num_layers": [1],
            "num_heads": [2],
            "ffn_dim": [8],
            "num_levels": [4, 5],
            "num_points": [1, (4, 2, 0)],
            "sampler": [Discrete(), Naive()],
            "box_gradient": [look_forward_once],
            "inference_layers": [1],
            "dropout": [0.3],
            "attention_dropout": [0.3],
            "activation_dropout": [0.3],
            "act": [F.gelu],
        },
    ),
    Bilinear: ("decoder.sampler", {}),
    Naive: ("decoder.sampler", {}),
    Discrete: ("decoder.sampler", {"shift": [0.5]}),
    DenoisingConfig: (
        "denoising",
        {"num_queries": [12], "label_noise": [0.0], "box_noise": [0.0, 0.4], "max_queries": [2]},
    ),
    CriterionConfig: (
        "criterion",
        {
            "matcher": [MatcherConfig(class_cost=0.0)],
            "classification": [Focal()],
            "class_weight": [2.0],
            "l1_weight": [0.0],
            "giou_weight": [0.0],
            "masks": [With(MaskLoss(), LEARNS)],
        },
    ),
    QueryMasks: ("masks", {"dim": [12], "slope": [1.0]}),
    MatcherConfig: (
        "criterion.matcher",
        {
            "class_cost": [90.0],
            "l1_cost": [90.0],
            "giou_cost": [90.0],
            "classification": [SoftmaxCost()],
        },
    ),
    FocalCost: (COST, {"alpha": [0.99], "gamma": [9.0]}),
    SoftmaxCost: (COST, {}),
    Varifocal: (LOSS, {"alpha": [0.25], "gamma": [0.0], "iou_target": [False]}),
    Focal: (LOSS, {"alpha": [0.75], "gamma": [0.0], "iou_target": [True]}),
    MatchabilityAware: (LOSS, {"gamma": [2.5]}),
    BinaryCrossEntropy: (LOSS, {"iou_target": [True]}),
    CrossEntropy: (LOSS, {"no_object": [1.0]}),
}

STARTS = {LearnedContent: LearnedContent(10), HGNetV2Config: SMALL_HGNET}
"""Parts whose defaults do not fit the small model."""

BASES = dict.fromkeys((DFINEConfig, DFINECriterionConfig, GELANConfig, FDRConfig), SMALL_DFINE)
BASES[QueryMasks] = with_masks(SMALL, QueryMasks(8))
BASES |= dict.fromkeys((RTDETRv3Config, DenseCriterionConfig, TaskAligned), as_rtdetrv3(SMALL))
"""Parts of another model than the small RT-DETR."""

NEEDS = {FocalCost: {"criterion.matcher.class_cost": 20.0}}
"""What makes a variant visible in a model as small as this one."""

SAME_ANSWER = [(DecoderConfig, "sampler", Naive())]
"""The reference implementation: its whole point is that it changes nothing."""


def configurations():
    """Every configuration the chapters define."""
    modules = [importlib.import_module(f"rtdetr_lab.{chapter}") for chapter in CHAPTERS]
    return [item for m in modules for item in vars(m).values() if is_configuration(item, m)]


def cases():
    found = []
    for cls, (place, fields) in OTHER.items():
        for name, values in fields.items():
            for value in values:
                shown = getattr(value, "__name__", str(value).split("(")[0] or value)
                case = f"{cls.__name__}.{name}={shown}"
                found.append(pytest.param(cls, place, name, value, id=case))
    return found


def model_of(cls, place, **fields):
    """The small model with the small model's own part of this class, or the class's defaults."""
    base = part = BASES.get(cls, SMALL)
    for step in filter(None, place.split(".")):
        part = getattr(part, step)
    part = part if type(part) is cls else STARTS.get(cls) or cls()
    also = dict(NEEDS.get(cls, {}))
    for name, value in fields.items():
        if isinstance(value, With):
            value, also = value.value, also | value.also
        assert getattr(part, name) != value, "this is the value it has anyway"
        part = dataclasses.replace(part, **{name: value})
    return replace_all(base, {place: part, **also}) if place else replace_all(part, also)


def run(cfg):
    """Everything that a switch could change: weights, answers, loss, gradients."""
    torch.manual_seed(0)
    model = shaken(cfg.build())
    images, found = pictures(2, 64, 96), targets(4, 2, num_classes=4)
    drawn = tuple(torch.rand(count, 64, 96) > 0.5 for count in found.counts)
    found = dataclasses.replace(found, masks=drawn)
    with torch.no_grad():
        answer = model.eval()(images).layers
    torch.manual_seed(1)
    terms = cfg.criterion.build()(model.train()(images, found), found)
    sum(terms.values()).backward()
    return model, {
        "weights": {n: p.shape for n, p in model.state_dict().items()},
        "answer": [layer.boxes.sum().item() for layer in answer],
        "terms": {n: t.item() for n, t in terms.items()},
        "gradients": {
            n: p.grad.norm().item() for n, p in model.named_parameters() if p.grad is not None
        },
    }


@pytest.fixture(scope="module")
def plain():
    """What each part's default does, computed once per part."""
    known = {}

    def of(cls, place):
        if cls not in known:
            known[cls] = run(model_of(cls, place))[1]
        return known[cls]

    return of


@pytest.mark.parametrize(("cls", "place", "name", "value"), cases())
def test_every_other_value_runs_learns_and_matters(cls, place, name, value, plain):
    model, seen = run(model_of(cls, place, **{name: value}))
    assert all(math.isfinite(t) for t in seen["terms"].values())
    assert all(math.isfinite(g) for g in seen["gradients"].values())
    learning = {n for n, p in model.named_parameters() if p.requires_grad}
    assert set(seen["gradients"]) == learning
    assert differ(seen, plain(cls, place)) == ((cls, name, value) not in SAME_ANSWER)


def test_every_field_has_an_entry():
    found = {cls: {f.name for f in dataclasses.fields(cls)} for cls in configurations()}
    assert {cls: set(fields) for cls, (_, fields) in OTHER.items()} == found
    assert all(all(fields.values()) for _, fields in OTHER.values()), "and a value in it"


def test_a_switch_without_effect_would_be_caught(plain):
    assert not differ(plain(AIFIConfig, "encoder.aifi"), run(SMALL)[1])
