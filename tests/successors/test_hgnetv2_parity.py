"""RT-DETR on an HGNetv2 gives transformers' numbers, and their files are ours.

The oracle is transformers' RTDetrForObjectDetection with an `hgnet_v2` backbone. fp64 decides.
"""

import json
import re
from functools import lru_cache

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

pytest.importorskip(
    "transformers", reason="transformers, the oracle, is not installed; runs with the extra [dev]"
)

import transformers
from oracle import answer, by_token, error, same_weights, spread

from rtdetr_lab.checkpoints.backbone import load_backbone
from rtdetr_lab.checkpoints.files import digest
from rtdetr_lab.checkpoints.infer import infer_config
from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.checkpoints.rename import (
    export_tensors,
    import_tensors,
    table_of,
    to_ours,
    to_theirs,
)
from rtdetr_lab.checkpoints.save import save_pretrained
from rtdetr_lab.checkpoints.tables import AUTHORS, TABLES, TRANSFORMERS
from rtdetr_lab.checkpoints.transformers_config import from_transformers, to_transformers
from rtdetr_lab.checkpoints.verify import verify
from rtdetr_lab.config import diff, replace_all, replace_at
from rtdetr_lab.errors import ConfigError
from rtdetr_lab.rtdetr import rtdetr_r18
from rtdetr_lab.successors.hgnetv2 import HGNetV2Config, rtdetr_l, rtdetr_x

X = {
    "stem_channels": [3, 32, 64],
    "stage_in_channels": [64, 128, 512, 1024],
    "stage_mid_channels": [64, 128, 256, 512],
    "stage_num_blocks": [1, 2, 5, 2],
}
B0 = {
    "stem_channels": [3, 16, 16],
    "stage_in_channels": [16, 64, 256, 512],
    "stage_mid_channels": [16, 32, 64, 128],
    "stage_out_channels": [64, 256, 512, 1024],
    "hidden_sizes": [64, 256, 512, 1024],
    "stage_num_blocks": [1, 1, 2, 1],
    "stage_numb_of_layers": [3, 3, 3, 3],
    "use_learnable_affine_block": True,
}
WIDER = {"encoder_hidden_dim": 384, "encoder_ffn_dim": 2048, "decoder_in_channels": [384] * 3}
SLIM = {
    "encoder_in_channels": [256, 512, 1024],
    "encoder_hidden_dim": 64, "encoder_ffn_dim": 80, "hidden_expansion": 0.5, "d_model": 64,
    "decoder_in_channels": [64] * 3, "decoder_ffn_dim": 96, "decoder_layers": 2,
}  # fmt: skip

SLIM_B0 = replace_all(
    rtdetr_l(),
    {
        "backbone": HGNetV2Config(
            (16, 16),
            (64, 256, 512, 1024),
            (16, 32, 64, 128),
            (1, 1, 2, 1),
            (3, 3, 3, 3),
            affine=True,
        ),
        "encoder.dim": 64,
        "encoder.aifi.ffn_dim": 80,
        "encoder.ccff.expansion": 0.5,
        "decoder.dim": 64,
        "decoder.ffn_dim": 96,
        "decoder.num_layers": 2,
    },
)
"""Another backbone (B0, with scales and shifts) below a small encoder and decoder."""

MODELS = {"l": ({}, {}, rtdetr_l()), "x": (X, WIDER, rtdetr_x()), "b0": (B0, SLIM, SLIM_B0)}
"""Their backbone, the rest of their configuration, and ours."""


def theirs(name, **changes):
    backbone, rest, _ = MODELS[name]
    inner = transformers.HGNetV2Config(**backbone, out_indices=[2, 3, 4])
    settings = {"num_labels": 80, **rest, **changes}
    config = transformers.RTDetrConfig(backbone_config=inner, **settings)
    return transformers.RTDetrForObjectDetection(config).eval()


@torch.no_grad()
def lively(model):
    """`model` with scales and shifts that matter."""
    for part, parameter in model.named_parameters():
        if ".lab." in part:
            parameter.add_(0.3 * torch.randn(1, generator=torch.Generator().manual_seed(len(part))))
    return model


@lru_cache(maxsize=1)
def twins(name):
    """(theirs, ours) with one set of spread weights and 100 queries."""
    model = spread(lively(theirs(name, num_queries=100)))
    with torch.no_grad():
        for project in model.model.encoder_input_proj:
            project[0].weight.add_(0.01)  # filters of mean zero would not see a learned shift
    return model, same_weights(model, replace_at(MODELS[name][2], "selection.num_queries", 100))


@pytest.mark.parametrize(("name", "shape"), [
    ("l", (96, 128)), ("l", (224, 160)), ("x", (96, 128)), ("b0", (96, 128)),
])  # fmt: skip
def test_every_number_is_theirs(name, shape, rng):
    model, ours = twins(name)
    images = torch.rand(2, 3, *shape, generator=rng)
    exact, mine = answer(model, images.double()), answer(ours, images.double())
    assert torch.equal(mine["index"], exact["index"])
    assert max(error(mine, exact).values()) <= 1e-9

    rounded, mine = (answer(m, images, exact["index"]) for m in (model, ours))
    allowed, got = error(rounded, exact), error(mine, exact)
    assert {n: e for n, e in got.items() if not e <= 2 * allowed[n] + 1e-6} == {}


def test_the_maps_of_odd_pictures_are_theirs(rng):
    """Their encoder takes multiples of 32 only; their backbone takes any picture."""
    model, ours = (m.double() for m in twins("b0"))
    for shape in ((150, 101), (33, 47), (1, 65)):
        images = torch.rand(2, 3, *shape, generator=rng).double()
        expected = model.model.backbone.model(images).feature_maps
        for mine, m in zip(ours.backbone(images), expected, strict=True):
            assert (mine - m).abs().max() <= 1e-9


def test_the_answers_compared_are_not_all_alike(rng):
    model, _ = twins("b0")
    out = answer(model, torch.rand(2, 3, 96, 128, generator=rng).double())
    assert out["logits"].std() > 0.5
    assert out["logits"].std(dim=1).mean() > 0.1
    assert (out["boxes"][0] - out["boxes"][1]).abs().mean() > 0.01


def kinds(name):
    """Kind → the last tensor of the backbone of this kind."""
    with torch.device("meta"):
        names = MODELS[name][2].backbone.build().state_dict()
    found = {re.sub(r"\d+", "N", n): n for n in names if "tracked" not in n}
    return [f"backbone.{n}" for n in found.values()]


@pytest.fixture(scope="module")
def right():
    model, ours = twins("b0")
    images = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(1)).double()
    expected = answer(model, images)
    assert max(error(answer(ours, images), expected).values()) <= 1e-9
    return images, ours, expected


@pytest.mark.parametrize("name", kinds("b0"))
def test_one_percent_of_one_tensor_is_noticed(name, right):
    images, ours, expected = right
    tensor = ours.state_dict()[name]
    before = tensor.clone()
    try:
        tensor *= 1.01
        wrong = answer(ours, images)
    finally:
        tensor.copy_(before)
    noticed = by_token(wrong, expected)[2] < 1 or max(error(wrong, expected).values())
    assert noticed > 100 * 1e-9


PUBLISHED = {"l": (32_925_036, 111.0), "x": (67_374_188, 235.2)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_operations_are_the_oracles(name):
    parameters, gflops = PUBLISHED[name]
    with torch.device("meta"):
        ours = MODELS[name][2].build().eval()
        state = theirs(name).state_dict()
    renamed = {to_ours(TRANSFORMERS, n): t.shape for n, t in state.items()}
    assert renamed == {n: t.shape for n, t in ours.state_dict().items()}
    assert sum(p.numel() for p in ours.parameters()) == parameters
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        ours(torch.empty(1, 3, 640, 640, device="meta"))
    assert counter.get_total_flops() / 1e9 == pytest.approx(gflops, rel=0.01)


# --- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("table", TABLES, ids=lambda t: t.title)
def test_all_our_names_go_out_and_come_back(name, table):
    with torch.device("meta"):
        ours = MODELS[name][2].build().state_dict()
    theirs_ = export_tensors(table, ours, "")
    assert table_of(theirs_) is table
    back = import_tensors(table, theirs_, "")
    assert {n: t.shape for n, t in back.items()} == {n: t.shape for n, t in ours.items()}
    if name in PUBLISHED:
        assert infer_config(back, "") == MODELS[name][2]


@pytest.mark.parametrize(("theirs_", "ours"), {
    "stem.stem2a.conv.weight": "stem.stem2a.conv.weight",
    "stem.stem3.lab.scale": "stem.stem3.act.scale",
    "stages.0.blocks.0.layers.2.bn.running_var": "stages.0.blocks.0.layers.2.norm.running_var",
    "stages.1.downsample.bn.bias": "stages.1.downsample.norm.bias",
    "stages.2.blocks.1.layers.0.conv1.conv.weight": "stages.2.blocks.1.layers.0.0.conv.weight",
    "stages.3.blocks.0.layers.1.conv2.lab.bias": "stages.3.blocks.0.layers.1.1.act.bias",
    "stages.3.blocks.0.aggregation.1.conv.weight": "stages.3.blocks.0.aggregation.1.conv.weight",
}.items())  # fmt: skip
def test_the_authors_names_of_a_backbone(theirs_, ours):
    assert to_ours(AUTHORS, f"backbone.{theirs_}") == f"backbone.{ours}"
    assert to_theirs(AUTHORS, f"backbone.{ours}") == f"backbone.{theirs_}"


def test_their_folder_gives_the_same_answers_here_and_ours_there(tmp_path, rng):
    model, ours = twins("b0")
    model.float().save_pretrained(tmp_path / "theirs")
    back = load_pretrained(tmp_path / "theirs")
    assert diff(back.cfg, ours.cfg) == {}
    assert digest(back.state_dict()) == digest(ours.float().state_dict())

    save_pretrained(ours, tmp_path / "ours", layout="transformers")
    read, info = transformers.RTDetrForObjectDetection.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    images = torch.rand(1, 3, 96, 128, generator=rng).double()
    assert max(error(answer(read.eval(), images), answer(model, images)).values()) <= 1e-12


def test_our_own_folder_and_verify(tmp_path):
    _, ours = twins("b0")
    save_pretrained(ours.float(), tmp_path)
    back = load_pretrained(tmp_path)
    assert back.cfg == ours.cfg
    assert digest(back.state_dict()) == digest(ours.state_dict())
    report = verify(tmp_path, size=(96, 128))
    assert report.comparison is not None
    assert report.ok


@pytest.mark.parametrize("prefix", ["model.backbone.model.", "backbone."])
def test_a_backbone_alone_is_read(prefix, tmp_path):
    """Their HGNetV2Backbone, and the authors' ImageNet file with its classifier."""
    _, ours = twins("b0")
    table = TRANSFORMERS if prefix.startswith("model") else AUTHORS
    named = export_tensors(table, ours.float().state_dict(), "")
    alone = {n.removeprefix(prefix): t for n, t in named.items() if n.startswith(prefix)}
    torch.save({**alone, "fc.weight": torch.zeros(3, 4)}, tmp_path / "b0.pth")
    new = ours.cfg.build()
    load_backbone(new, tmp_path / "b0.pth")
    assert digest(new.backbone.state_dict()) == digest(ours.backbone.state_dict())


@pytest.mark.parametrize("name", MODELS)
def test_a_configuration_goes_there_and_comes_back(name):
    cfg = MODELS[name][2]
    names = tuple(f"class {i}" for i in range(80))
    tree = json.loads(json.dumps(to_transformers(cfg, names)))
    assert tree["backbone_config"]["model_type"] == "hgnet_v2"
    assert from_transformers(tree, "") == (cfg, names)
    assert transformers.RTDetrConfig(**tree).backbone_config.to_dict()["stem_channels"][0] == 3


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"hidden_act": "silu"}, "hidden_act"),
        ({"stem_channels": [1, 32, 48]}, "stem_channels"),
        ({"stem_channels": [3, 48]}, "stem_channels"),
        ({"stem_channels": [3, 32, 64]}, "stage_in_channels"),
        ({"hidden_sizes": [64, 256, 512, 1024]}, "hidden_sizes"),
        ({"stage_light_block": [0, 0, 1, 1]}, "stage_light_block"),
        ({"use_learnable_affine_block": 1}, "use_learnable_affine_block"),
        ({"stage_downsample": [True, True, True, True]}, "stage_downsample"),
        ({"stage_num_blocks": [1, 1, 3]}, "depths"),
    ],
    ids=str,
)
def test_what_we_cannot_do_is_refused_by_key(change, key):
    tree = {"model_type": "rt_detr", "backbone_config": {"model_type": "hgnet_v2", **change}}
    with pytest.raises(ConfigError, match=key) as caught:
        from_transformers(tree, "config.json")
    assert caught.value.where.startswith("config.json")


def test_what_theirs_cannot_say_is_refused_by_path():
    cfg = replace_at(rtdetr_l(4), "backbone.act", torch.nn.functional.silu)
    with pytest.raises(ConfigError, match='layout="lab"') as caught:
        to_transformers(cfg, ())
    assert caught.value.where == "backbone.act"


def test_an_r18_in_a_file_is_not_taken_for_an_hgnet():
    with torch.device("meta"):
        assert infer_config(rtdetr_r18(7).build().state_dict(), "") == rtdetr_r18(7)
