"""D-FINE gives transformers' numbers in every size, and their files are ours.

The oracle is transformers' DFineForObjectDetection; fp64 decides.
"""

import json
import re

import pytest
import torch
import transformers
from dfine_oracle import THEIRS, furthest, preset, said, theirs, twins
from torch.utils.flop_counter import FlopCounterMode

from rtdetr_lab.checkpoints.files import digest
from rtdetr_lab.checkpoints.infer import infer_config
from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.checkpoints.rename import (
    export_tensors,
    import_tensors,
    is_derived,
    table_of,
    to_ours,
    to_theirs,
)
from rtdetr_lab.checkpoints.save import save_pretrained
from rtdetr_lab.checkpoints.tables_dfine import DFINE, DFINE_AUTHORS, DFINE_TABLES
from rtdetr_lab.checkpoints.transformers_config import from_transformers, to_transformers
from rtdetr_lab.checkpoints.verify import verify
from rtdetr_lab.config import diff
from rtdetr_lab.config_json import from_json, to_json
from rtdetr_lab.errors import CheckpointError, ConfigError

CASES = [("n", (96, 128)), ("s", (128, 96)), ("m", (96, 128)), ("l", (96, 64)), ("x", (64, 96))]
CASES += [("n", (160, 224))]


@pytest.mark.parametrize(("size", "shape"), CASES)
def test_every_number_is_theirs(size, shape, rng):
    # N has only two coarse maps: 60 tokens at 96 × 128.
    model, ours = twins(size)
    images = torch.rand(2, 3, *shape, generator=rng)
    exact, mine = said(model, images.double()), said(ours, images.double())
    assert torch.equal(mine["index"], exact["index"])
    assert max(furthest(mine, exact).values()) <= 1e-9

    rounded, mine = (said(m, images, exact["index"]) for m in (model, ours))
    allowed, got = furthest(rounded, exact), furthest(mine, exact)
    assert {n: e for n, e in got.items() if not e <= 2 * allowed[n] + 1e-6} == {}


def test_the_answers_compared_are_not_all_alike(rng):
    model, _ = twins("n")
    out = said(model, torch.rand(2, 3, 96, 128, generator=rng).double())
    assert out["logits"].std() > 0.5
    assert out["logits"].std(dim=1).mean() > 0.1
    assert out["corner logits"].std(dim=-1).mean() > 0.1
    assert (out["layer boxes"][:, 1:] - out["layer boxes"][:, :-1]).abs().mean() > 0.002
    assert (out["boxes"][0] - out["boxes"][1]).abs().mean() > 0.01


# A bias that moves all scores of a query alike before a softmax cannot be seen.
INVISIBLE = r"num_batches_tracked|denoising\.|k_proj\.bias"


def kinds():
    """The last tensor of every kind that RT-DETR on an HGNetv2 does not have."""
    with torch.device("meta"):
        names = [n for n in preset("n").build().state_dict() if not re.search(INVISIBLE, n)]
    return list(
        {re.sub(r"\d+", "N", n): n for n in names if not n.startswith("backbone.")}.values()
    )


@pytest.fixture(scope="module")
def right():
    model, ours = twins("n")
    images = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(1)).double()
    expected = said(model, images)
    assert max(furthest(said(ours, images), expected).values()) <= 1e-9
    return images, ours, expected


@pytest.mark.parametrize("name", kinds())
def test_one_percent_of_one_tensor_is_noticed(name, right):
    images, ours, expected = right
    tensor = ours.state_dict()[name]
    before = tensor.clone()
    try:
        tensor *= 1.01
        wrong = said(ours, images)
    finally:
        tensor.copy_(before)
    moved = not torch.equal(wrong["index"], expected["index"])
    assert moved or max(furthest(wrong, expected).values()) > 100 * 1e-9


PUBLISHED = {"n": 3_782_693, "s": 10_321_877, "m": 19_590_064, "l": 31_244_152, "x": 62_621_560}


@pytest.mark.parametrize("size", PUBLISHED)
def test_parameters_and_operations_are_the_oracles(size):
    """Theirs count two constants as parameters, `up` and `reg_scale`."""
    with torch.device("meta"):
        ours, model = preset(size).build().eval(), theirs(size)
    parameters = {id(p): p.numel() for p in model.parameters()}
    assert sum(parameters.values()) == PUBLISHED[size]
    assert sum(p.numel() for p in ours.parameters()) == PUBLISHED[size] - 2
    state = {n: t for n, t in model.state_dict().items() if not is_derived(DFINE, n)}
    renamed = {to_ours(DFINE, n): t for n, t in state.items()}
    mine = {n: t.shape for n, t in ours.state_dict().items()}
    assert {n: t.shape for n, t in renamed.items()} == mine
    assert infer_config(renamed, "") == preset(size)


GFLOPS = {"n": 7.45, "s": 27.8, "m": 60.5, "l": 95.8, "x": 209.7}
"""At 640², train form, all layers with their class heads: measured here."""


@pytest.mark.parametrize("size", ["n", "s"])
def test_operations_are_the_oracles(size):
    """The oracle computes on the CPU: a small picture; attention there is counted, too."""
    images, counts = torch.rand(1, 3, 256, 256), []
    for model in (theirs(size, num_queries=60), preset(size).build().eval()):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            if hasattr(model, "num_queries"):
                model.num_queries = 60
            model(images)
        counts.append(counter.get_total_flops())
    assert counts[1] == pytest.approx(counts[0], rel=0.01)


@pytest.mark.parametrize("size", GFLOPS)
def test_the_operations_of_a_whole_picture(size):
    with torch.device("meta"):
        model = preset(size).build().eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, 3, 640, 640, device="meta"))
    assert counter.get_total_flops() / 1e9 == pytest.approx(GFLOPS[size], rel=0.01)


# --- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", THEIRS)
@pytest.mark.parametrize("table", DFINE_TABLES, ids=lambda t: t.title)
def test_all_our_names_go_out_and_come_back(size, table):
    with torch.device("meta"):
        ours = preset(size).build().state_dict()
    out = export_tensors(table, ours, "")
    assert table_of(out) is table
    stacked = sum(".q_proj." in n for n in ours) * 2 if table.stacks_attention else 0
    assert len(out) == len(ours) - stacked
    back = import_tensors(table, out, "")
    assert {n: t.shape for n, t in back.items()} == {n: t.shape for n, t in ours.items()}


@pytest.mark.parametrize(("theirs_", "ours"), {
    "encoder.fpn_blocks.1.cv1.conv.weight": "encoder.ccff.top_down.1.split.conv.weight",
    "encoder.fpn_blocks.0.cv2.0.conv1.norm.bias":
        "encoder.ccff.top_down.0.branch1.0.conv1.norm.bias",
    "encoder.pan_blocks.0.cv3.0.bottlenecks.1.conv2.conv.weight":
        "encoder.ccff.bottom_up.0.branch2.0.blocks.1.pointwise.conv.weight",
    "encoder.pan_blocks.1.cv3.1.conv.weight": "encoder.ccff.bottom_up.1.branch2.1.conv.weight",
    "encoder.pan_blocks.0.cv4.norm.weight": "encoder.ccff.bottom_up.0.merge.norm.weight",
    "encoder.downsample_convs.1.0.cv2.conv.weight": "encoder.ccff.downsample.1.1.conv.weight",
    "decoder.pre_bbox_head.layers.2.bias": "decoder.start_head.layers.2.bias",
    "decoder.decoder.lqe_layers.3.reg_conf.layers.1.weight":
        "decoder.quality_heads.3.mlp.layers.1.weight",
    "decoder.decoder.layers.2.gateway.gate.weight": "decoder.layers.2.gate.gate.weight",
    "decoder.decoder.layers.2.norm3.weight": "decoder.layers.2.norm3.weight",
}.items())  # fmt: skip
def test_the_authors_names(theirs_, ours):
    assert to_ours(DFINE_AUTHORS, theirs_) == ours
    assert to_theirs(DFINE_AUTHORS, ours) == theirs_


@pytest.mark.parametrize(
    "name", ["decoder.up", "decoder.decoder.reg_scale", "model.decoder.reg_scale"]
)
def test_constants_are_no_weights(name):
    assert all(is_derived(table, name) for table in DFINE_TABLES)


def test_the_authors_file_is_read(tmp_path):
    _, ours = twins("n")
    named = export_tensors(DFINE_AUTHORS, ours.float().state_dict(), "")
    constants = {"decoder.up": torch.tensor([0.5]), "decoder.reg_scale": torch.tensor([4.0])}
    torch.save({"model": {**named, **constants}}, tmp_path / "dfine_n_coco.pth")
    back = load_pretrained(tmp_path / "dfine_n_coco.pth")
    assert back.cfg == preset("n")
    assert digest(back.state_dict()) == digest(ours.state_dict())


def test_their_folder_gives_the_same_answers_here_and_ours_there(tmp_path, rng):
    model, ours = twins("n")
    model.float().save_pretrained(tmp_path / "theirs")
    back = load_pretrained(tmp_path / "theirs")
    assert diff(back.cfg, ours.cfg) == {}
    assert digest(back.state_dict()) == digest(ours.float().state_dict())

    save_pretrained(ours, tmp_path / "ours", layout="transformers")
    read, info = transformers.DFineForObjectDetection.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    images = torch.rand(1, 3, 96, 128, generator=rng).double()
    with torch.no_grad():
        there, here = read.eval().double()(images), ours.double()(images)
    assert (there.logits - here.logits).abs().max() < 1e-6  # their 1/K is float32 here


@pytest.mark.parametrize("size", THEIRS)
def test_a_configuration_goes_there_and_comes_back(size):
    cfg = preset(size)
    assert from_json(to_json(cfg)) == cfg
    names = tuple(f"class {i}" for i in range(80))
    tree = json.loads(json.dumps(to_transformers(cfg, names)))
    assert tree["model_type"] == "d_fine"
    assert from_transformers(tree, "") == (cfg, names)
    read = transformers.DFineConfig(**tree)
    mine = theirs(size).config
    for key in ("hidden_expansion", "decoder_n_points", "d_model", "reg_scale", "decoder_layers"):
        assert getattr(read, key) == getattr(mine, key)
    assert round(3 * read.depth_mult) == round(3 * mine.depth_mult)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"activation_function": "relu"}, "activation_function"),
        ({"eval_idx": 2}, "eval_idx"),
        ({"layer_scale": 2}, "layer_scale"),
        ({"decoder_n_points": [3, 6]}, "num_points"),
        ({"decoder_n_points": [3, "6", 3]}, "decoder_n_points"),
        ({"depth_mult": "deep"}, "depth_mult"),
        ({"max_num_bins": 31}, "num_bins"),
        ({"reg_scale": 0.0}, "scale"),
    ],
    ids=str,
)
def test_what_we_cannot_do_is_refused_by_key(change, key):
    with pytest.raises(ConfigError, match=key) as caught:
        from_transformers({"model_type": "d_fine", **change}, "config.json")
    assert caught.value.where.startswith("config.json")


@pytest.mark.parametrize(
    ("kind", "name"), [("rf_detr", "RF-DETR"), ("deimv2", "DEIMv2"), ("lw_detr", "LW-DETR")]
)
def test_another_family_is_refused_by_its_name(kind, name):
    with pytest.raises(ConfigError, match=rf"{kind}.*{name}.*not among our chapters"):
        from_transformers({"model_type": kind}, "config.json")


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("transformer.enc_out_bbox_embed.3.layers.0.weight", "RF-DETR"),
        ("backbone.dinov3.x", "DEIMv2"),
    ],
)
def test_a_file_of_another_family_is_refused_by_its_name(name, family, tmp_path):
    torch.save({"model": {name: torch.zeros(2, 3)}}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=rf"other\.pth.*{family}.*not among our chapters"):
        load_pretrained(tmp_path / "other.pth")


def test_verify_compares_what_theirs_returns(tmp_path):
    _, ours = twins("n")
    save_pretrained(ours.float(), tmp_path)
    report = verify(tmp_path, size=(96, 128))
    assert report.ok
    names = [stage.name for stage in report.comparison.stages]
    assert {"backbone S5", "CCFF 1", "proposals logits", "decoder 2 boxes"} <= set(names)
    assert "decoder 0 boxes" not in names, "their model returns its last layer only"
