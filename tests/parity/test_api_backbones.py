"""Backbones that transformers builds, in the documented classes: answers and files of both."""

import sys

import pytest
import torch
from small_api import SMALL, SMALL_DETR
from torch import nn

import rtdetr_lab as lab
from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.checkpoints.save import save_pretrained
from rtdetr_lab.errors import ConfigError, MissingExtraError

transformers = pytest.importorskip("transformers", reason="the oracle; runs with the extra [dev]")

SIZES = {"hidden_sizes": [8, 12, 16, 24], "depths": [1, 2, 1, 1]}
IMAGES = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(3))


def convnext(*outputs):
    return transformers.ConvNextConfig(**SIZES, out_indices=list(outputs))


def resnet(*outputs):
    told = {"embedding_size": 8, "layer_type": "basic"}
    return transformers.ResNetConfig(**SIZES, **told, out_indices=list(outputs))


def told(kind, backbone):
    if kind == "Detr":
        return {**SMALL_DETR, "backbone_config": backbone, "use_timm_backbone": False}
    return {**SMALL, "backbone_config": backbone}


CASES = {
    "RT-DETR on a plain ResNet": ("RTDetr", resnet(2, 3, 4)),
    "RT-DETRv2 on a ConvNext": ("RTDetrV2", convnext(2, 3, 4)),
    "DETR on a ConvNext": ("Detr", convnext(4)),
}


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_a_backbone_of_transformers_answers_and_goes_both_ways(case, tmp_path):
    kind, backbone = CASES[case]
    name, told_here = f"{kind}ForObjectDetection", told(kind, backbone)
    config = getattr(transformers, f"{kind}Config")(**told_here)
    theirs = getattr(transformers, name)(config).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = getattr(lab, name).from_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    images, wanted = IMAGES.double(), theirs.double()(IMAGES.double())
    assert wanted.logits.std() > 1e-3
    torch.testing.assert_close(ours.double()(images).logits, wanted.logits, atol=1e-9, rtol=0)
    for back in (getattr(transformers, name), getattr(lab, name)):
        again = back.from_pretrained(tmp_path / "ours").eval().double()
        torch.testing.assert_close(again(images).logits, wanted.logits, atol=1e-9, rtol=0)
    new = getattr(lab, name)(getattr(lab, f"{kind}Config")(**told_here))
    assert set(new.state_dict()) == set(ours.state_dict())


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_a_detector_on_such_a_backbone_is_saved_in_our_layout_too(case, tmp_path):
    kind, backbone = CASES[case]
    config = getattr(lab, f"{kind}Config")(**told(kind, backbone))
    model = config.to_lab().build().eval()
    save_pretrained(model, tmp_path / "folder")
    for place in ("folder", "folder/model.safetensors"):
        again = load_pretrained(tmp_path / place)
        assert again.cfg == model.cfg
        assert torch.equal(again(IMAGES).boxes, model(IMAGES).boxes)


def test_a_file_cannot_ask_for_code_from_a_hub_and_a_backbone_has_one_dtype():
    inner = {**resnet(2, 3, 4).to_dict(), "dtype": "bfloat16"}
    inner["auto_map"] = {"AutoBackbone": "evil/repo--mod.Cls"}
    model = lab.RTDetrConfig(**told("RTDetr", inner)).to_lab().build().eval()
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert type(model.backbone.theirs).__module__.startswith("transformers.")


def test_values_that_a_file_leaves_out_are_the_documented_ones():
    """encoder_in_channels is [512, 1024, 2048], so other maps are refused by their numbers."""
    values = told("RTDetr", resnet(2, 3, 4))
    values.pop("encoder_in_channels", None)
    with pytest.raises(ConfigError, match=r"encoder_in_channels.*512, 1024, 2048.*12, 16, 24"):
        lab.RTDetrConfig(**values).to_lab().build()


class Acts(nn.BatchNorm2d):
    """A norm that also computes an activation, as some of timm's do."""

    def forward(self, x):
        return super().forward(x).relu()


def test_a_norm_that_does_more_is_not_frozen_silently(monkeypatch):
    def made(told, trust_remote_code):
        net = ThreeMaps(told, trust_remote_code)
        net.norm = Acts(12)
        return net

    monkeypatch.setattr(transformers.AutoBackbone, "from_config", made)
    with pytest.raises(ConfigError, match=r"backbone\[norm\]: is a Acts, which cannot be frozen"):
        lab.RTDetrForObjectDetection(timm_config())
    lab.RTDetrForObjectDetection(timm_config(freeze_backbone_batch_norms=False))


class ThreeMaps(nn.Module):
    """Stands for a backbone of timm, which cannot be installed beside torch for CPUs."""

    channels = (12, 16, 24)

    def __init__(self, told, trust_remote_code):
        super().__init__()
        assert not trust_remote_code
        self.told, pairs = told, zip(self.channels, (8, 16, 32), strict=True)
        self.convs = nn.ModuleList(nn.Conv2d(3, width, side, side) for width, side in pairs)
        self.norm = nn.BatchNorm2d(12)

    def forward(self, images):
        maps = [conv(images) for conv in self.convs]
        return transformers.modeling_outputs.BackboneOutput((self.norm(maps[0]), *maps[1:]))


def timm_config(**more):
    rest = {name: value for name, value in SMALL.items() if name != "backbone_config"}
    chosen = {"backbone": "mobile", "use_timm_backbone": True}
    return lab.RTDetrConfig(**{**rest, **chosen, **more})


def test_a_backbone_of_timm_is_three_maps_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(transformers.AutoBackbone, "from_config", ThreeMaps)
    model = lab.RTDetrForObjectDetection(timm_config(backbone_kwargs={"out_indices": [1, 2, 3]}))
    asked = model.backbone.theirs.told
    assert (asked.model_type, asked.backbone, asked.out_indices) == (
        "timm_backbone",
        "mobile",
        [1, 2, 3],
    )
    assert isinstance(model.backbone.theirs.norm, lab.layers.FrozenBatchNorm2d)
    assert "model.backbone.model.norm.running_mean" in model.state_dict()
    model.eval().save_pretrained(tmp_path)
    again = lab.RTDetrForObjectDetection.from_pretrained(tmp_path)
    assert torch.equal(again(IMAGES).logits, model(IMAGES).logits)
    live = timm_config(freeze_backbone_batch_norms=False)
    kept = lab.RTDetrForObjectDetection(live).backbone.theirs.norm
    assert isinstance(kept, nn.BatchNorm2d)
    with pytest.raises(ConfigError, match=r"encoder_in_channels.*\[12, 16, 20\].*\[12, 16, 24\]"):
        lab.RTDetrForObjectDetection(timm_config(encoder_in_channels=[12, 16, 20]))


def test_what_a_backbone_of_transformers_needs_is_named(monkeypatch):
    with pytest.raises(ConfigError, match=r"RTDetrConfig\[backbone\]"):
        timm_config(backbone=None)
    with pytest.raises(ConfigError, match=r"RTDetrConfig\[backbone_kwargs\]: is read only with"):
        lab.RTDetrConfig(**SMALL, backbone_kwargs={"out_indices": [1]})
    with pytest.raises(ConfigError, match="out_indices"):
        lab.RTDetrConfig(**{**SMALL, "backbone_config": {"model_type": "convnext"}})
    unknown = {"model_type": "convnexxt", "out_indices": [2, 3, 4]}
    with pytest.raises(ConfigError, match=r"backbone_config.*no backbone.*convnexxt"):
        lab.RTDetrForObjectDetection(lab.RTDetrConfig(**{**SMALL, "backbone_config": unknown}))
    if not transformers.utils.is_timm_available():
        with pytest.raises(MissingExtraError, match=r"timm.*needed for the backbone mobile"):
            lab.RTDetrForObjectDetection(timm_config())
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match="pip install transformers"):
        lab.RTDetrForObjectDetection(timm_config())


@torch.no_grad()
@pytest.mark.parametrize("outputs", [[0, 2], [0], [3, 4]], ids=str)
def test_the_stem_is_a_map_of_the_backbone_alone(outputs):
    left_out = ("out_indices", "model_type")
    inner = {n: v for n, v in SMALL["backbone_config"].items() if n not in left_out}
    named = ["stem" if i == 0 else f"stage{i}" for i in outputs]
    config = transformers.RTDetrResNetConfig(**inner, out_features=named)
    theirs = transformers.RTDetrResNetBackbone(config).eval()
    ours = lab.RTDetrResNetBackbone(lab.RTDetrResNetConfig(**inner, out_features=named)).eval()
    assert (ours.channels, ours.config.out_indices) == (list(theirs.channels), outputs)
    theirs.load_state_dict({**theirs.state_dict(), **ours.state_dict()}, strict=False)
    found, wanted = ours(IMAGES).feature_maps, theirs(IMAGES).feature_maps
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
