"""`rtdetr-lab data shapes`, `train` and `eval`: from nothing to a number, in files."""

import json

import pytest
import torch

from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.cli import main
from rtdetr_lab.commands.sets import ENDLESS, training_set, validation_set
from rtdetr_lab.detector import Detector

SHORT = ("--size", "96", "--batch-size", "4", "--pictures", "12", "--device", "cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six training pictures and two for validation, as COCO JSON and PNG."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    words = ("--count", "6", "--val-count", "2", "--size", "96")
    assert main(["data", "shapes", str(folder), *words]) == 0
    return folder


def test_a_run_is_paused_continued_and_judged(folder, tmp_path, capsys):
    train = ["train", "--data", str(folder), "--out", str(tmp_path / "run"), *SHORT]
    assert main([*train, "--stop-after", "0s"]) == 0
    assert "step 1, paused" in capsys.readouterr().out
    assert main(train) == 0
    assert "step 3, finished" in capsys.readouterr().out

    model = str(tmp_path / "run" / "model")
    assert main(["eval", model, "--data", str(folder), "--json", "--device", "cpu"]) == 0
    judged = json.loads(capsys.readouterr().out)
    record = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert judged["AP"] == pytest.approx(json.loads(record[-1])["AP"], abs=1e-6)
    assert Detector.from_pretrained(model, "cpu").classes.names[:2] == ("circle", "ellipse")


def test_weights_of_another_model_are_a_beginning(folder, tmp_path):
    train = ["train", "--data", str(folder), *SHORT]
    assert main([*train, "--out", str(tmp_path / "first")]) == 0
    further = ["--model", str(tmp_path / "first" / "model"), "--lr", "1e-9"]
    assert main([*train, *further, "--out", str(tmp_path / "second")]) == 0
    first, second = (load_pretrained(tmp_path / name / "model") for name in ("first", "second"))
    weight, same = first.state_dict()["backbone.stem.0.conv.weight"], second.state_dict()
    assert torch.allclose(weight, same["backbone.stem.0.conv.weight"], atol=1e-6)


def test_a_pretrained_backbone_alone_is_a_beginning(folder, tmp_path):
    words = ["--backbone-weights", "nano", "--lr", "1e-9", "--out", str(tmp_path / "run")]
    assert main(["train", "--data", str(folder), *SHORT, *words]) == 0
    nano, begun = load_pretrained("nano").state_dict(), load_pretrained(tmp_path / "run" / "model")
    name, head = "backbone.stages.3.0.conv2.conv.weight", "decoder.class_heads.0.weight"
    assert torch.allclose(begun.state_dict()[name], nano[name], atol=1e-6)
    assert not torch.allclose(begun.state_dict()[head], nano[head], atol=1e-3)


def test_other_classes_are_not_judged(folder, tmp_path, capsys):
    tree = json.loads((folder / "val.json").read_text())
    tree["categories"][0]["name"] = "cat"
    other = tmp_path / "other"
    other.mkdir()
    (other / "val.json").write_text(json.dumps(tree))
    run = ["train", "--data", str(folder), "--out", str(tmp_path / "run"), *SHORT]
    assert main([*run, "--stop-after", "0s"]) == 0
    assert main(["eval", str(tmp_path / "run" / "model"), "--data", str(other)]) == 1
    assert "the data has 10 others" in capsys.readouterr().err


def test_overfitting_judges_by_what_was_learnt(folder, tmp_path, capsys):
    words = ["train", "--data", str(folder), "--out", str(tmp_path / "run"), *SHORT, "--overfit"]
    assert main(words) == 0
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    assert described["num_data"] == 4


def test_an_unknown_preset_is_named(tmp_path, capsys):
    assert main(["train", "--preset", "r19", "--out", str(tmp_path / "run")]) == 1
    assert "use one of nano, r18" in capsys.readouterr().err


def test_no_validation_picture_is_trained_on():
    learn, judge = training_set("shapes", 64, 0), validation_set("shapes", 64)
    assert (len(learn), len(judge)) == (ENDLESS, 500)
    assert not any((learn[i].image == judge[i].image).all() for i in range(5))


@pytest.mark.parametrize("recipe", ["paper", "v2"])
def test_the_recipes_augmentation_is_part_of_a_run(folder, tmp_path, recipe):
    words = ["train", "--data", str(folder), "--out", str(tmp_path / "run"), *SHORT]
    assert main([*words, "--augment", recipe]) == 0
    kept = json.loads((tmp_path / "run" / "run.json").read_text())["recipe"]["augment"]
    assert kept["until"] == (1 if recipe == "paper" else pytest.approx(70 / 72))
    assert kept["size"] == [96, 96]


def test_shapes_are_not_cropped(tmp_path, capsys):
    assert main(["train", "--augment", "paper", "--out", str(tmp_path / "run")]) == 1
    assert "told apart by their aspect" in capsys.readouterr().err
