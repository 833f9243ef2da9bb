"""What exists on the disk wins, and says so; a name is used where nothing exists."""

import logging
from pathlib import Path

import pytest
import torch
from small import shaken, small

from rtdetr_lab import RTDetrForObjectDetection, RTDetrV2ForObjectDetection
from rtdetr_lab.checkpoints import hub
from rtdetr_lab.checkpoints.backbone import load_backbone
from rtdetr_lab.checkpoints.hub import ALIASES
from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.checkpoints.metadata import Metadata
from rtdetr_lab.checkpoints.names import model_of, path_of
from rtdetr_lab.checkpoints.save import save_pretrained
from rtdetr_lab.detector import Detector
from rtdetr_lab.errors import CheckpointError, UnknownModelError


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    torch.manual_seed(5)
    model = shaken(small({"encoder.ccff.num_blocks": 3}, num_classes=2).build()).eval()
    model.metadata = Metadata(("nut", "bolt"), (3, 8), (96, 128))
    home = tmp_path_factory.mktemp("home")
    save_pretrained(model, home / "lab")
    save_pretrained(model, home / "theirs", layout="transformers")
    return home


@pytest.fixture
def here(saved, tmp_path, monkeypatch):
    """A folder to work in, with a model called as a published one, nano, and a hub id."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    Path("facebook").mkdir()
    for name in ("v2_r18", "nano", ALIASES["detr_r50"]):
        Path(name).symlink_to(saved / "lab")
    Path("r50").symlink_to(saved / "theirs")
    Path("r34").write_bytes((saved / "lab" / "model.safetensors").read_bytes())
    return tmp_path


FOUND = [
    "v2_r18", "./v2_r18", "v2_r18/", "~/v2_r18", Path("v2_r18"), "nano", "r34", "./r34",
    ALIASES["detr_r50"], "r50",
]  # fmt: skip


@pytest.mark.parametrize("word", FOUND, ids=str)
@pytest.mark.parametrize("how", [load_pretrained, Detector.from_pretrained])
def test_what_exists_is_what_is_loaded(here, word, how):
    loaded = how(word)
    model = loaded.model if isinstance(loaded, Detector) else loaded
    assert model.cfg.num_classes == 2
    if word != "r50":  # transformers' layout keeps no category ids, and squares
        assert (model.metadata.names, model.metadata.image_size) == (("nut", "bolt"), (96, 128))


@pytest.mark.parametrize("word", ["r50", "./r50", "~/r50", "r50/", Path("r50")], ids=str)
@pytest.mark.parametrize("documented", [RTDetrForObjectDetection, RTDetrV2ForObjectDetection])
def test_the_documented_classes_read_names_in_the_same_way(here, word, documented):
    """A v2 model with equal points is a v1 model, and is saved as one: v2's class opens it, too."""
    assert documented.from_pretrained(word).config.num_labels == 2


def test_a_backbone_is_named_in_the_same_way(here):
    model = small({"encoder.ccff.num_blocks": 3}).build()
    for word in ("v2_r18", "./r34", Path("nano")):
        load_backbone(model, word)
    tensors, wanted = model.backbone.state_dict(), load_pretrained("./nano").backbone.state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in tensors.items())


def test_a_path_in_the_place_of_a_name_says_so_and_how_to_get_the_other(here, caplog):
    for word, published in (("v2_r18", ALIASES["v2_r18"]), ("nano", "the embedded model")):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            model_of(word)
        home = (here / word).resolve()
        assert caplog.messages == [
            f"{word}: this is the folder {home}; for {published} type name:{word}"
        ]
    caplog.clear()
    for word in ("./v2_r18", "v2_r18/", Path("nano"), "../" + here.name + "/nano"):
        assert model_of(word).path is not None
    assert not caplog.messages, "nothing else could be meant"


def test_the_name_can_still_be_had(here):
    assert load_pretrained("name:nano").cfg.num_classes == 10
    assert model_of("name:v2_r18").repo == ALIASES["v2_r18"]
    assert model_of("name:org/model").repo == "org/model"
    with pytest.raises(UnknownModelError, match="not a known model"):
        model_of("name:./v2_r18")


def test_names_mean_the_hub_where_nothing_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert model_of("v2_r18").repo == ALIASES["v2_r18"]
    assert model_of("org/model").repo == "org/model"
    assert model_of("nano").embedded


PATHS = [
    "./v2_r18", "v2_r18/", "~/v2_r18", "/v2_r18", "../v2_r18", "a/b/c", "runs\\first",
    "C:\\models\\r18", "c:/models/r18", "r18.safetensors", "r18.pt", Path("v2_r18"),
]  # fmt: skip


@pytest.mark.parametrize("word", PATHS, ids=str)
def test_a_path_is_never_taken_for_a_name(word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert path_of(word) is not None
    with pytest.raises(CheckpointError, match="does not exist"):
        load_pretrained(word)


def test_a_missing_path_says_what_is_near(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "first").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="type v2_r18 for the published model"):
        model_of("./v2_r18")
    with pytest.raises(CheckpointError, match="folders are separated by /: give runs/first"):
        model_of("runs\\first")


@pytest.mark.parametrize("word", ["", "r19", "x" * 5000, "a\0b"])
def test_a_word_that_means_nothing_is_refused_by_name(word):
    with pytest.raises(UnknownModelError, match="is not a known model"):
        load_pretrained(word)


def test_a_pinned_name_is_asked_for_at_its_commit(monkeypatch):
    from rtdetr_lab.checkpoints import names

    pin = hub.Pin("a" * 40, "b" * 64)
    monkeypatch.setitem(names.PINS, "r18", pin)
    assert model_of("r18").revision(None) == pin.revision
    assert model_of("r18").revision("main") == "main"
