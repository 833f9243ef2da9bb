"""A model loaded is the model saved; whatever does not fit is named, with the remedy."""

import json
import logging
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from rtdetr_lab.checkpoints import source
from rtdetr_lab.checkpoints.files import digest, read_weights, write_weights
from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.checkpoints.metadata import COCO_CLASSES, COCO_IDS, Metadata, metadata_for
from rtdetr_lab.checkpoints.rename import export_tensors
from rtdetr_lab.checkpoints.save import save_pretrained
from rtdetr_lab.checkpoints.strict import is_class_head
from rtdetr_lab.checkpoints.tables import AUTHORS
from rtdetr_lab.config import diff, replace_at
from rtdetr_lab.errors import CheckpointError, ConfigError, UnknownModelError
from rtdetr_lab.query_selection import TopScore
from rtdetr_lab.rtdetr import rtdetr_nano, rtdetr_r18

KNOWN = Metadata(
    names=("square", "ring", "star"),
    category_ids=(7, 9, 4),
    image_size=(256, 320),
    licence="apache-2.0",
    source="a test",
)


class MySelection(TopScore):
    """A reader's own, as written in a notebook cell."""


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    model = rtdetr_nano(3).build().eval()
    model.metadata = KNOWN
    return model


@pytest.fixture
def folder(model, tmp_path):
    return save_pretrained(model, tmp_path / "saved")


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    return digest(a.state_dict()) == digest(b.state_dict())


def edited(folder, change):
    """The folder with its tensors changed and written again, description and all."""
    found = read_weights(folder / "model.safetensors")
    tensors = dict(found.tensors)
    change(tensors)
    write_weights(folder / "model.safetensors", tensors, found.header)
    tree = json.loads((folder / "config.json").read_text())
    tree["metadata"]["sha256"] = None
    del tree["sha256"]
    (folder / "config.json").write_text(json.dumps(tree))
    return folder


def test_a_saved_folder_is_the_same_model_again(model, folder):
    back = load_pretrained(folder)
    assert same_weights(model, back)
    assert diff(model.cfg, back.cfg) == {}
    assert not back.training
    images = torch.rand(1, 3, 96, 128)
    assert torch.equal(back(images).logits, model(images).logits)


def test_a_single_file_of_ours_says_what_it_is(model, folder, tmp_path):
    alone = tmp_path / "alone.safetensors"
    (folder / "model.safetensors").rename(alone)
    back = load_pretrained(alone)
    assert same_weights(model, back)
    assert back.metadata.names == KNOWN.names


def test_metadata_travels_with_the_weights(folder, model):
    found = load_pretrained(folder).metadata
    assert (found.names, found.category_ids) == (KNOWN.names, KNOWN.category_ids)
    assert found.image_size == (256, 320)
    assert (found.licence, found.source) == ("apache-2.0", "a test")
    assert found.sha256 == digest(model.state_dict())


def test_the_licence_is_shown_on_load(folder, caplog):
    with caplog.at_level(logging.INFO, logger="rtdetr_lab"):
        load_pretrained(folder)
    assert "licence apache-2.0" in caplog.text


def test_saving_what_was_loaded_writes_the_same_again(folder, tmp_path):
    again = save_pretrained(load_pretrained(folder), tmp_path / "again")
    assert (folder / "config.json").read_bytes() == (again / "config.json").read_bytes()
    first, second = (read_weights(f / "model.safetensors") for f in (folder, again))
    assert first.header == second.header


def test_loading_leaves_everybody_elses_random_numbers_alone(folder):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_pretrained(folder)
    assert torch.equal(torch.rand(3), expected)


def test_a_readers_own_class_is_passed_when_loading(tmp_path):
    cfg = replace_at(rtdetr_nano(2), "selection", MySelection(num_queries=50))
    folder = save_pretrained(cfg.build(), tmp_path)
    with pytest.raises(ConfigError, match="classes="):
        load_pretrained(folder)
    assert load_pretrained(folder, classes=[MySelection]).cfg == cfg


def test_another_number_of_classes_is_refused_until_asked_for(folder, caplog):
    with pytest.raises(CheckpointError, match=r"3 classes.*num_classes=5") as caught:
        load_pretrained(folder, config=rtdetr_nano(5))
    assert "get new ones" in caught.value.remedy


def test_new_heads_are_new_named_and_everything_else_is_kept(folder, model, caplog):
    with caplog.at_level(logging.WARNING, logger="rtdetr_lab"):
        new = load_pretrained(folder, num_classes=5)
    old = model.state_dict()
    heads = {n for n, t in new.state_dict().items() if n not in old or old[n].shape != t.shape}
    assert heads == {n for n in old if is_class_head(n)}
    assert all(torch.equal(t, old[n]) for n, t in new.state_dict().items() if n not in heads)
    assert all(name in caplog.text for name in heads)
    assert new.cfg.num_classes == 5
    assert new.metadata.names == (), "nobody has named the new ones yet"
    assert new.metadata.image_size == (256, 320)
    assert same_weights(load_pretrained(folder, num_classes=3), model), "3 is what it has"


def test_new_heads_change_only_what_is_known_about_classes(model, tmp_path):
    """All other facts are about pictures and about the file."""
    facts = {"edges": (64, 96), "canvas_boxes": True, "threshold": 0.3}
    told = replace(KNOWN, **facts)
    old = load_pretrained(save_pretrained(model, tmp_path, metadata=told)).metadata
    new = load_pretrained(tmp_path, num_classes=5).metadata
    of_classes = {"names": (), "category_ids": (), "threshold": None}
    assert new == replace(old, **of_classes)


def test_the_licence_beside_a_file_of_weights_alone_is_theirs(model, tmp_path):
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# Shapes\n")
    assert load_pretrained(tmp_path / "weights.safetensors").metadata.licence == "cc-by-4.0"


@pytest.mark.parametrize(
    ("change", "where", "says"),
    [
        (
            lambda t: t.pop("decoder.layers.0.norm1.weight"),
            "decoder.layers.0.norm1.weight",
            "lacks",
        ),
        (lambda t: t.update(surprise=torch.ones(1)), "surprise", "unexpectedly"),
        (
            lambda t: t.update({"encoder.project.0.conv.weight": torch.ones(2, 2)}),
            "encoder.project.0.conv.weight",
            r"has shape \(2, 2\), the model needs \(96,",
        ),
        (
            lambda t: t["backbone.stem.0.conv.weight"].view(-1)[3].fill_(float("nan")),
            "backbone.stem.0.conv.weight",
            "1 of its 432 values are not finite",
        ),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(folder, change, where, says):
    with pytest.raises(CheckpointError, match=says) as caught:
        load_pretrained(edited(folder, change))
    assert caught.value.where.endswith(f"[{where}]")


def test_many_missing_tensors_are_counted(folder):
    def drop(tensors):
        for name in [n for n in tensors if n.startswith("decoder.layers.0")]:
            del tensors[name]

    with pytest.raises(CheckpointError, match=r"and \d+ more"):
        load_pretrained(edited(folder, drop))


def test_weights_of_another_save_are_noticed(folder, tmp_path):
    other = save_pretrained(rtdetr_nano(3).build(), tmp_path / "other")
    (other / "model.safetensors").rename(folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="describes other weights"):
        load_pretrained(folder)


@pytest.mark.parametrize("layout", ["lab", "transformers"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_save_that_was_cut_short_between_its_files_is_the_new_model(
    folder, caplog, times, layout
):
    """As after a kill: new weights, no config, and a card of what was there."""
    for number in range(times):
        new = rtdetr_nano(4).build()
        new.metadata = Metadata(("a", "b", "c", str(number)), (1, 2, 3, 4), licence="mit")
        save_pretrained(new, folder, layout)
        (folder / "config.json").unlink()
        (folder / "README.md").write_text("---\nlicense: old\n---\n")
    with caplog.at_level(logging.WARNING, "rtdetr_lab"):
        found = load_pretrained(folder)
    assert same_weights(found, new)
    assert (found.metadata.names, found.metadata.licence) == (new.metadata.names, "mit")
    assert "a save was cut short" in caplog.text
    save_pretrained(found, folder)
    assert same_weights(load_pretrained(folder), new)


def test_a_config_with_an_unknown_value_is_named(folder):
    path = folder / "config.json"
    tree = json.loads(path.read_text())
    tree["model"]["decoder"]["num_layer"] = 3
    tree.pop("sha256", None)  # edited by hand
    path.write_text(json.dumps(tree))
    with pytest.raises(ConfigError, match="num_layers") as caught:
        load_pretrained(folder)
    assert caught.value.where == f"{path}: decoder.num_layer"


def test_an_edited_config_is_refused_until_its_digest_is_removed(folder):
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"star"', '"moon"'))
    with pytest.raises(CheckpointError, match='remove the line "sha256"'):
        load_pretrained(folder)
    tree = json.loads(path.read_text())
    del tree["sha256"]
    path.write_text(json.dumps(tree))
    assert load_pretrained(folder).metadata.names[2] == "moon"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "cannot be read"),
        ("[1]", "is not a JSON object"),
        ('{"hello": 1}', "neither ours"),
        ('{"format": "rtdetr_lab", "version": 2}', "upgrade"),
        ('{"format": "rtdetr_lab", "version": 1, "model": null}', "JSON object"),
    ],
)
def test_a_config_that_is_none_is_refused(folder, text, says):
    (folder / "config.json").write_text(text)
    with pytest.raises((CheckpointError, ConfigError), match=says):
        load_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"names": ["a", "b"], "category_ids": [1, 2]}, "2 class names for 3 classes"),
        ({"category_ids": [1]}, "1 category ids"),
        ({"category_ids": [1, 1, 2]}, "twice"),
        ({"names": [1, 2, 3]}, "list of str"),
        ({"licence": 5}, "licence is 5"),
        ({"image_size": [640]}, "height, width"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_metadata_that_contradicts_itself_is_refused(folder, change, says):
    tree = json.loads((folder / "config.json").read_text())
    tree["metadata"].update(change)
    del tree["sha256"]
    (folder / "config.json").write_text(json.dumps(tree))
    with pytest.raises(CheckpointError, match=says):
        load_pretrained(folder)


def test_the_authors_file_is_recognised_by_its_shapes(tmp_path):
    model = rtdetr_r18().build().eval()
    theirs = export_tensors(AUTHORS, model.state_dict(), "")
    path = tmp_path / "rtdetr_r18vd.pth"
    torch.save({"ema": {"module": theirs}, "last_epoch": 71}, path)
    back = load_pretrained(path)
    assert same_weights(model, back)
    assert diff(back.cfg, rtdetr_r18()) == {}
    assert (back.metadata.names, back.metadata.category_ids) == (COCO_CLASSES, COCO_IDS)


def test_an_unusual_file_of_the_authors_needs_its_config(tmp_path):
    cfg = replace_at(rtdetr_nano(4), "decoder.num_layers", 2)
    model, path = cfg.build(), tmp_path / "odd.pth"
    torch.save(export_tensors(AUTHORS, model.state_dict(), ""), path)
    with pytest.raises(CheckpointError, match="give the config"):
        load_pretrained(path)
    assert same_weights(load_pretrained(path, config=cfg), model)


def test_a_foreign_file_is_not_mistaken_for_a_detector(tmp_path):
    torch.save({"conv.weight": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="holds no RT-DETR"):
        load_pretrained(tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="does not look like this model"):
        load_pretrained(tmp_path / "other.pth", config=rtdetr_nano(2))


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("r81", UnknownModelError, "r18"),
        ("nanoo", UnknownModelError, "nano"),
        ("v2-r50", UnknownModelError, "v2_r50"),
        ("./nowhere", CheckpointError, "does not exist"),
        ("weights.pth", CheckpointError, "does not exist"),
        ("a/b/c", CheckpointError, "does not exist"),
    ],
)
def test_a_name_that_leads_nowhere_shows_the_nearest(name, error, says):
    with pytest.raises(error, match=says):
        load_pretrained(name)


def test_a_folder_without_config_or_weights_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_pretrained(tmp_path)


def test_the_embedded_checkpoint_is_held_against_its_record(folder, tmp_path, monkeypatch):
    import hashlib

    monkeypatch.setattr(source, "ASSETS", tmp_path)
    with pytest.raises(UnknownModelError, match="not part of this installation"):
        load_pretrained("nano")
    weights = tmp_path / "nano.safetensors"
    weights.write_bytes((folder / "model.safetensors").read_bytes())
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    (tmp_path / "nano.json").write_text(json.dumps({"sha256": sha256, "licence": "apache-2.0"}))
    assert load_pretrained("nano").metadata.names == KNOWN.names
    (tmp_path / "nano.json").write_text(json.dumps({"sha256": "0" * 64}))
    with pytest.raises(CheckpointError, match=r"nano\.json"):
        load_pretrained("nano")


def test_half_precision_weights_become_full_precision(folder):
    back = load_pretrained(edited(folder, lambda t: t.update(
        {n: v.half() for n, v in t.items() if v.is_floating_point()}
    )))  # fmt: skip
    assert {p.dtype for p in back.parameters()} == {torch.float32}


def test_what_cannot_be_saved_is_refused(model, tmp_path):
    with pytest.raises(ConfigError, match="lab, transformers"):
        save_pretrained(model, tmp_path, layout="onnx")
    with pytest.raises(CheckpointError, match=r"no \.cfg"):
        save_pretrained(nn.Linear(1, 1), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be made"):
        save_pretrained(model, tmp_path / "file")
    odd = replace_at(rtdetr_nano(2), "encoder.aifi", None).build()
    with pytest.raises(ConfigError, match="layout"):
        save_pretrained(odd, tmp_path / "odd", layout="transformers")
    assert not (tmp_path / "odd" / "model.safetensors").exists()


def test_a_trimmed_model_is_saved_as_what_it_is(model, tmp_path):
    back = load_pretrained(save_pretrained(model.trim(2), tmp_path))
    assert len(back.decoder.layers) == 2


def test_coco_names_bring_cocos_category_ids():
    old = tuple({"couch": "sofa", "tv": "tvmonitor"}.get(n, n) for n in COCO_CLASSES)
    assert metadata_for(80, old).category_ids == COCO_IDS
    assert metadata_for(80, old).names == old
    assert metadata_for(80).names[COCO_IDS.index(17)] == "cat"
    assert metadata_for(80, tuple("abcdefgh" * 10)).category_ids == tuple(range(80))
    assert len(COCO_CLASSES) == len(COCO_IDS) == 80
