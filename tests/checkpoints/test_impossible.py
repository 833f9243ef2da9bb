"""A configuration nobody can build from is named, whoever wrote it; so is what nothing reads."""

import json

import pytest
import torch

from rtdetr_lab.checkpoints.files import read_weights, write_weights
from rtdetr_lab.checkpoints.infer import PRESETS as RTDETR
from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.checkpoints.metadata import metadata_for
from rtdetr_lab.checkpoints.save import save_pretrained
from rtdetr_lab.checkpoints.strict import fit
from rtdetr_lab.checkpoints.transformers_config import from_transformers, to_transformers
from rtdetr_lab.config import replace_at
from rtdetr_lab.detr.model import detr_nano, detr_r50, detr_r50_dc5, detr_r101, detr_r101_dc5
from rtdetr_lab.detr.segmentation import detr_r50_panoptic
from rtdetr_lab.errors import CheckpointError, ConfigError
from rtdetr_lab.rtdetr import rtdetr_nano, rtdetr_r50_m

DETRS = (detr_nano, detr_r50, detr_r101, detr_r50_dc5, detr_r101_dc5, detr_r50_panoptic)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("saved")
    model = rtdetr_nano(4).build().eval()
    for layout in ("lab", "transformers"):
        save_pretrained(model, folder / layout, layout=layout, metadata=metadata_for(4))
    return folder


def changed(folder, change):
    tree = json.loads((folder / "config.json").read_text())
    kept = json.dumps(tree)
    change(tree)
    tree.pop("sha256", None)  # of ours; what it says of edits is tested elsewhere
    (folder / "config.json").write_text(json.dumps(tree))
    return kept


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("encoder.dim", 0),
        ("encoder.aifi.dropout", 3.0),
        ("encoder.aifi.temperature", 0.0),
        ("encoder.aifi.num_layers", -1),
        ("encoder.aifi.ffn_dim", -2),
        ("decoder.dropout", 3.0),
        ("decoder.ffn_dim", -1),
        ("decoder.num_heads", 0),
        ("decoder.num_layers", 0),
        ("backbone.stem_width", 1),
    ],
)
def test_impossible_values_are_refused_in_python_and_in_a_file(saved, path, value):
    with pytest.raises(ConfigError):
        replace_at(rtdetr_nano(4), path, value)

    def change(tree):
        *steps, last = path.split(".")
        node = tree["model"]
        for step in steps:
            node = node[step]
        node[last] = value

    kept = changed(saved / "lab", change)
    try:
        with pytest.raises(ConfigError):
            load_pretrained(saved / "lab")
    finally:
        (saved / "lab" / "config.json").write_text(kept)


@pytest.mark.parametrize(
    ("key", "value"),
    [("dropout", 3.0), ("encoder_ffn_dim", -1), ("positional_encoding_temperature", 0)],
)
def test_impossible_values_in_theirs_are_refused_too(saved, key, value):
    kept = changed(saved / "transformers", lambda tree: tree.update({key: value}))
    try:
        with pytest.raises(ConfigError):
            load_pretrained(saved / "transformers")
    finally:
        (saved / "transformers" / "config.json").write_text(kept)


def test_what_only_the_build_can_refuse_names_its_file_and_its_key(saved):
    def change(tree):
        tree["model"]["encoder"]["ccff"]["expansion"] = 0.0

    kept = changed(saved / "lab", change)
    try:
        with pytest.raises(ConfigError, match="leaves no channel") as refused:
            load_pretrained(saved / "lab")
    finally:
        (saved / "lab" / "config.json").write_text(kept)
    assert refused.value.where.startswith(str(saved / "lab"))
    assert refused.value.where.endswith(": encoder.ccff.expansion")


def test_a_key_nothing_reads_is_named(saved):
    kept = changed(saved / "lab", lambda tree: tree.update(foo=1))
    try:
        with pytest.raises(ConfigError, match="foo"):
            load_pretrained(saved / "lab")
    finally:
        (saved / "lab" / "config.json").write_text(kept)


def test_num_classes_of_the_weights_keeps_their_heads_where_the_config_is_wrong(saved):
    labels = {str(i): f"c{i}" for i in range(7)}
    kept = changed(saved / "transformers", lambda tree: tree.update(id2label=labels))
    try:
        with pytest.raises(CheckpointError, match="num_classes=4 to keep"):
            load_pretrained(saved / "transformers")
        found = load_pretrained(saved / "transformers", num_classes=4)
    finally:
        (saved / "transformers" / "config.json").write_text(kept)
    whole = load_pretrained(saved / "lab").state_dict()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in found.state_dict().items())


def test_a_revision_of_what_lies_on_the_disk_is_refused(saved):
    with pytest.raises(CheckpointError, match="no revisions"):
        load_pretrained(saved / "lab", revision="main")


def test_a_flipped_bit_is_named_with_its_tensor(tmp_path):
    path = tmp_path / "m.safetensors"
    tensors = {n: torch.rand(64) for n in ("first", "second", "third")}
    write_weights(path, tensors, {})
    damaged = bytearray(path.read_bytes())
    at = bytes(damaged).index(tensors["second"].numpy().tobytes())
    damaged[at + 7] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(CheckpointError, match="digest differs in second of 3"):
        read_weights(path)


@pytest.mark.parametrize("kind", [torch.int64, torch.complex64, torch.bool])
def test_numbers_of_another_kind_do_not_become_weights(kind):
    model = torch.nn.Linear(2, 2)
    tensors = {**model.state_dict(), "bias": torch.ones(2).to(kind)}
    with pytest.raises(CheckpointError, match="real numbers") as caught:
        fit(model, tensors, "file")
    assert caught.value.where == "file[bias]"


def test_a_negative_variance_is_refused():
    model = torch.nn.BatchNorm2d(3)
    tensors = {**model.state_dict(), "running_var": torch.tensor([1.0, -1.0, 1.0])}
    with pytest.raises(CheckpointError, match="1 of its 3 variances are negative"):
        fit(model, tensors, "file")


def test_every_preset_can_be_said_to_transformers_or_says_how():
    for preset in (*RTDETR, *DETRS):
        cfg = preset(4)
        if getattr(cfg.decoder, "inference_layers", None):  # what trim leaves
            cfg = replace_at(cfg, "decoder.num_layers", cfg.decoder.inference_layers)
            cfg = replace_at(cfg, "decoder.inference_layers", None)
        assert from_transformers(to_transformers(cfg, ("a", "b", "c", "d")), "it")[0]
    with pytest.raises(ConfigError) as caught:
        to_transformers(rtdetr_r50_m(4), ("a", "b", "c", "d"))
    assert "model.trim(3)" in caught.value.remedy


def test_what_transformers_cannot_express_is_run_and_not_compared(tmp_path):
    from rtdetr_lab.checkpoints.verify import verify

    cfg = replace_at(rtdetr_nano(4), "decoder.inference_layers", 1)
    save_pretrained(cfg.build().eval(), tmp_path)
    report = verify(tmp_path, size=(96, 96))
    assert report.comparison is None
    assert report.ok
    assert "pip install transformers" in str(report) or "cannot express" in str(report)


@pytest.mark.parametrize(
    ("change", "excess"),
    [
        (lambda tree: tree["backbone_config"].update(depths=[1, 1, 10**9, 1]), "tensors"),
        (lambda tree: tree.update(decoder_ffn_dim=10**6), "values"),
    ],
)
def test_a_model_far_larger_than_its_weights_is_refused_before_it_is_built(saved, change, excess):
    folder = saved / "transformers"
    kept = changed(folder, change)
    try:
        with pytest.raises(ConfigError, match=f"more than .* {excess}.*correct its depths"):
            load_pretrained(folder)
    finally:
        (folder / "config.json").write_text(kept)


@pytest.mark.parametrize("value", [3.5e37, -2e8])
def test_a_weight_beyond_all_bounds_is_named(saved, value):
    cfg = rtdetr_nano(4)
    tensors = dict(cfg.build().state_dict())
    name = "encoder.ccff.top_down.0.conv1.conv.weight"
    tensors[name] = tensors[name].clone()
    tensors[name][3, 2] = value
    with pytest.raises(CheckpointError, match=r"conv1.conv.weight.*larger than 1e\+08"):
        fit(cfg.build(), tensors, "weights")


@pytest.mark.parametrize("value", [1.5, "no", None])
@pytest.mark.parametrize("key", ["freeze_backbone_batch_norms", "learn_initial_query"])
def test_a_switch_that_is_neither_on_nor_off_is_refused(key, value):
    tree = to_transformers(rtdetr_nano(2), ("a", "b"))
    assert from_transformers(tree, "config.json")
    with pytest.raises(
        ConfigError, match=rf"config.json\[{key}\]: is {value!r}; give true or false"
    ):
        from_transformers({**tree, key: value}, "config.json")
