"""A configuration nobody can build from is named, whoever wrote it; so is what nothing reads."""

import json

import pytest
import torch

from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.checkpoints.metadata import metadata_for
from rtdetr_lab.checkpoints.save import save_pretrained
from rtdetr_lab.config import replace_at
from rtdetr_lab.errors import CheckpointError, ConfigError
from rtdetr_lab.rtdetr import rtdetr_nano


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
