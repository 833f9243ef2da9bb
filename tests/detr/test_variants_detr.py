"""No dark switch in DETR either: every other value of every field runs, learns and matters."""

import dataclasses
import importlib
import math
from operator import attrgetter

import pytest
import torch
import torch.nn.functional as F
from configurations import differ, is_configuration
from small import pictures, shaken
from small_detr import DETECTOR, corner, objects
from small_detr import SEGMENTER as DRAWS

from rtdetr_lab.backbone import BasicBlock, Bottleneck
from rtdetr_lab.config import replace_at
from rtdetr_lab.detr.mask_losses import MaskLoss
from rtdetr_lab.detr.model import DETRConfig, detr_criterion
from rtdetr_lab.detr.positions import LearnedPositions, SinePositions
from rtdetr_lab.detr.resnet import ResNetConfig
from rtdetr_lab.detr.segmentation import SegmentationConfig, segmentation_criterion
from rtdetr_lab.detr.transformer import DETRDecoderConfig, DETREncoderConfig
from rtdetr_lab.layers import FrozenBatchNorm2d

CHAPTERS = ("model", "positions", "transformer", "resnet", "segmentation")
CHAPTERS += ("mask_head", "mask_losses")

LAYERS = {
    "num_layers": [1],
    "num_heads": [2],
    "ffn_dim": [8],
    "dropout": [0.3],
    "attention_dropout": [0.3],
    "activation_dropout": [0.3],
    "layer_drop": [0.9],
    "act": [F.gelu],
}
WHOLE = {
    "num_classes": [7],
    "dim": [32],
    "positions": [LearnedPositions()],
    "encoder": [DETREncoderConfig(0, 4, 24, dropout=0.0)],
    "decoder": [DETRDecoderConfig(5, 2, 4, 24, dropout=0.0)],
    "mean": [(0.5, 0.5, 0.5)],
    "std": [(0.5, 0.5, 0.5)],
}
DEEPER = ResNetConfig((1, 1, 1, 2), (16, 16, 24, 32), BasicBlock, 8, norm=torch.nn.BatchNorm2d)

OTHER = {
    # the small model, where in it, and per field the values that are not the small model's
    DETRConfig: (
        DETECTOR,
        "",
        {
            **WHOLE,
            "backbone": [DEEPER],
            "criterion": [dataclasses.replace(detr_criterion(), l1_weight=1.0)],
        },
    ),
    SegmentationConfig: (
        DRAWS,
        "",
        {
            **WHOLE,
            "backbone": [dataclasses.replace(DEEPER, outputs=(1, 2, 3, 4))],
            "criterion": [
                dataclasses.replace(segmentation_criterion(), masks=MaskLoss(dice_weight=2.0))
            ],
            "num_mask_heads": [2],
            "frozen_detector": [True],
        },
    ),
    ResNetConfig: (
        DETECTOR,
        "backbone",
        {
            "depths": [(1, 2, 1, 1)],
            "widths": [(16, 16, 24, 48)],
            "block": [Bottleneck],
            "stem_width": [16],
            "outputs": [(3,)],
            "norm": [FrozenBatchNorm2d],
            "act": [F.silu],
            "dilated": [True],
            "frozen_stages": [2],
        },
    ),
    SinePositions: (DETECTOR, "positions", {"temperature": [20.0], "scale": [1.0]}),
    LearnedPositions: (DETECTOR, "positions", {"max_cells": [9]}),
    DETREncoderConfig: (DETECTOR, "encoder", LAYERS),
    DETRDecoderConfig: (
        DETECTOR,
        "decoder",
        {"num_queries": [4], "norm_between": [True], **LAYERS},
    ),
    MaskLoss: (
        DRAWS,
        "criterion.masks",
        {"mask_weight": [3.0], "dice_weight": [3.0], "alpha": [0.75], "gamma": [0.0]},
    ),
}


def cases():
    for cls, (_, _, fields) in OTHER.items():
        for name, values in fields.items():
            for value in values:
                shown = getattr(value, "__name__", str(value).split("(")[0] or value)
                yield pytest.param(cls, name, value, id=f"{cls.__name__}.{name}={shown}")


def model_of(cls, **fields):
    """The small model, its own part of this class (or the class's defaults) with these fields."""
    base, place, _ = OTHER[cls]
    part = attrgetter(place)(base) if place else base
    part = part if type(part) is cls else cls()
    assert all(getattr(part, name) != value for name, value in fields.items()), "has it anyway"
    part = dataclasses.replace(part, **fields)
    return replace_at(base, place, part) if place else part


def run(cfg):
    """Everything a switch could change: weights, answers on padded pictures, loss, gradients."""
    torch.manual_seed(0)
    model = shaken(cfg.build())
    images, found = pictures(2, 64, 96), objects(2, 1, size=(64, 96))
    padding = corner(2, 64, 96)
    with torch.no_grad():
        answer = model.eval()(images, padding=padding)
    torch.manual_seed(1)
    terms = cfg.criterion.build()(model.train()(images, found, padding), found)
    sum(terms.values()).backward()
    drawn = [] if answer.masks is None else [answer.masks.abs().sum().item()]
    learned = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return model, {
        "weights": {n: p.shape for n, p in model.state_dict().items()},
        "answer": [layer.boxes.sum().item() for layer in answer.layers] + drawn,
        "terms": {n: t.item() for n, t in terms.items()},
        "gradients": {n: gradient.norm().item() for n, gradient in learned.items()},
    }


@pytest.fixture(scope="module")
def plain():
    """What each part's default does, computed once per part."""
    known = {}

    def of(cls):
        if cls not in known:
            known[cls] = run(model_of(cls))[1]
        return known[cls]

    return of


@pytest.mark.parametrize(("cls", "name", "value"), list(cases()))
def test_every_other_value_runs_learns_and_matters(cls, name, value, plain):
    model, seen = run(model_of(cls, **{name: value}))
    assert all(math.isfinite(t) for t in seen["terms"].values())
    assert all(math.isfinite(g) for g in seen["gradients"].values())
    assert set(seen["gradients"]) == {n for n, p in model.named_parameters() if p.requires_grad}
    assert differ(seen, plain(cls))


def test_every_field_has_an_entry():
    modules = [importlib.import_module(f"rtdetr_lab.detr.{chapter}") for chapter in CHAPTERS]
    there = [item for m in modules for item in vars(m).values() if is_configuration(item, m)]
    found = {cls: {f.name for f in dataclasses.fields(cls)} for cls in there}
    assert {cls: set(fields) for cls, (_, _, fields) in OTHER.items()} == found
    assert all(all(fields.values()) for _, _, fields in OTHER.values()), "and a value in it"


def test_a_switch_without_effect_would_be_caught(plain):
    assert not differ(plain(DETREncoderConfig), run(DETECTOR)[1])
