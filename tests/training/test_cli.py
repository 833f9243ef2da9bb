"""`rtdetr-lab data shapes`, `train` and `eval`: from nothing to a number, in files."""

import json

import pytest
import torch

from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.checkpoints.presets import preset_of
from rtdetr_lab.cli import _parsed, main
from rtdetr_lab.commands.sets import ENDLESS, stored_sets, training_set, validation_set
from rtdetr_lab.commands.train_options import augmentation_of, recipe_of
from rtdetr_lab.data import layout
from rtdetr_lab.data.augment import Place
from rtdetr_lab.data.batch import as_float
from rtdetr_lab.detector import Detector
from rtdetr_lab.errors import ConfigError
from rtdetr_lab.model import Metadata

SMALL = Metadata(image_size=(64, 64))
SHORT = ("--size", "96", "--batch-size", "4", "--pictures", "12", "--device", "cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six training pictures and two for validation, as COCO JSON and PNG."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    words = ("--count", "6", "--val-count", "2", "--size", "96")
    assert main(["data", "shapes", str(folder), *words]) == 0
    return folder


def test_a_run_reads_each_annotation_file_once(folder, tmp_path, monkeypatch):
    """COCO's own takes minutes."""
    read, inspect = [], layout.inspect_annotations

    def heard(path):
        read.append(path)
        return inspect(path)

    monkeypatch.setattr(layout, "inspect_annotations", heard)
    assert main(["train", "--data", str(folder), "--out", str(tmp_path / "run"), *SHORT]) == 0
    assert sorted(path.name for path in read) == ["train.json", "val.json"]


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


def test_weights_of_another_model_are_a_beginning(folder, tmp_path, capsys):
    train = ["train", "--data", str(folder), *SHORT]
    assert main([*train, "--out", str(tmp_path / "first"), "--eval-every", "2"]) == 0
    record = (tmp_path / "first" / "metrics.jsonl").read_text().splitlines()
    scores = [line["AP"] for line in map(json.loads, record) if "AP" in line]
    assert ("best: AP" in capsys.readouterr().out) == (scores[-1] < max(scores))
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
    assert "the data has (10) cat, ellipse, " in capsys.readouterr().err


def test_overfitting_judges_by_what_was_learned(folder, tmp_path, capsys):
    words = ["train", "--data", str(folder), "--out", str(tmp_path / "run"), *SHORT]
    assert main([*words, "--overfit", "1", "--warmup-steps", "9"]) == 1
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    assert described["num_data"] == 4
    assert described["recipe"]["weight_decay"] == 0
    said = capsys.readouterr().out
    assert "not overfitted: AP 0.0" in said
    assert "  1. " in said


def test_precision_is_asked_for_or_left_to_the_device():
    def asked(*words):
        return _parsed(["train", *words]).running.precision

    assert (asked(), asked("--amp"), asked("--fp32")) == (None, True, False)
    with pytest.raises(ConfigError, match="contradicts --amp"):
        asked("--amp", "--fp32")


@pytest.mark.parametrize("has", [True, False])
def test_amp_auto_takes_what_the_processor_computes_in_and_says_so(
    folder, tmp_path, monkeypatch, capsys, has
):
    monkeypatch.setattr("rtdetr_lab.training.memory.computes_in_bf16", lambda device: has)
    words = ["train", "--data", str(folder), "--out", str(tmp_path / "run"), *SHORT]
    assert main([*words, "--amp", "auto"]) == 0
    kept = json.loads((tmp_path / "run" / "run.json").read_text())["recipe"]
    assert kept["amp"] is has
    told = "bfloat16" if has else "single precision, because this processor has no bfloat16"
    assert f"--amp auto: computes in {told}\n" in capsys.readouterr().out


def test_patience_brings_validations_with_it():
    data = training_set("shapes", SMALL, 0)
    command = _parsed(["train", "--patience", "3", "--min-delta", "0.01"])
    model = preset_of("nano", 10).build()
    made = recipe_of(command, model, len(data))
    every = made.steps(made.eval_every)
    assert (made.patience, made.min_delta, every) == (3, 0.01, made.num_steps // 10)


def test_an_unknown_preset_is_named(tmp_path, capsys):
    assert main(["train", "--preset", "r19", "--out", str(tmp_path / "run")]) == 1
    assert "did you mean r18" in capsys.readouterr().err


# --- from a model -----------------------------------------------------------------------------


def test_a_model_and_data_are_enough_and_it_says_what_it_does(folder, tmp_path, capsys):
    begun = ["train", "--model", "nano", "--data", str(folder), "--out", str(tmp_path / "run")]
    assert main([*begun, "--batch-size", "2", "--stop-after", "0s"]) == 0
    said = capsys.readouterr().out
    assert "nano: class heads kept: the data has the model's classes" in said
    assert "fine-tune: 5,000 pictures (833 × 6) of 256 px in steps of 2, lr 0.001" in said


def test_other_classes_get_new_heads_frozen_parts_stay_and_both_are_said(folder, tmp_path, capsys):
    other = renamed(folder, tmp_path / "other", "cat")
    words = ["--model", "nano", "--freeze", "backbone, encoder", "--out", str(tmp_path / "run")]
    assert main(["train", "--data", str(other), *SHORT, *words]) == 0
    said = capsys.readouterr().out
    assert "nano: class heads keep their rows for ellipse, ring" in said
    assert "and have new ones for cat; the model had circle, ellipse" in said
    assert "  decoder.class_heads.0.weight (10, 96) → (10, 96)" in said
    assert "frozen: backbone, encoder (" in said
    nano, tuned = load_pretrained("nano"), load_pretrained(tmp_path / "run" / "model")
    assert tuned.metadata.names[0] == "cat"
    frozen = ("backbone.", "encoder.")
    after = tuned.state_dict()
    for name, tensor in nano.state_dict().items():
        assert torch.equal(after[name], tensor) == name.startswith(frozen), name
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    assert described["num_frozen"] == sum(
        p.numel() for n, p in nano.named_parameters() if n.startswith(frozen)
    )


def renamed(folder, copy, name, splits=("train", "val")):
    """The same data with another name for its first class."""
    copy.mkdir()
    (copy / "images").symlink_to(folder / "images")
    for split in ("train", "val"):
        tree = json.loads((folder / f"{split}.json").read_text())
        if split in splits:
            tree["categories"][0]["name"] = name
        (copy / f"{split}.json").write_text(json.dumps(tree))
    return copy


WRONG = [
    (["--model", "nana"], "nearest: nano"),
    (["--model", "nano", "--preset", "r18"], "--preset: cannot be combined with --model nano"),
    (["--model", "nano", "--freeze", "bakbone"], "did you mean backbone"),
    (["--freeze", "backbone"], "would freeze weights that were never trained"),
]


@pytest.mark.parametrize(("words", "said"), WRONG)
def test_a_senseless_beginning_is_refused(folder, tmp_path, capsys, words, said):
    out = ["--out", str(tmp_path / "run")]
    assert main(["train", "--data", str(folder), *out, *words]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_folder_without_both_splits_or_with_two_sets_of_classes_is_refused(
    folder, tmp_path, capsys
):
    other = renamed(folder, tmp_path / "other", "cat", splits=("val",))
    assert main(["train", "--data", str(other), "--out", str(tmp_path / "run")]) == 1
    assert "train has the classes circle, " in capsys.readouterr().err
    (other / "val.json").unlink()
    words = ["train", "--data", str(other), "--out", str(tmp_path / "run")]
    assert main([*words, "--val-split", "0"]) == 1
    assert "has no annotations for 'val'; there is train.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "rates"),
    [
        (["--backbone-weights", "x"], (1e-4, 1e-5, 0.1)),
        (["--preset", "r101", "--recipe", "v2", "--augment", "flip"], (1e-4, 1e-6, 0.1)),
        (["--recipe", "paper", "--augment", "flip", "--lr", "1e-3"], (1e-3, 1e-4, 0.1)),
        (["--lr", "1e-2", "--clip-norm", "3"], (1e-2, 1e-2, 3)),
        (["--recipe", "fine-tune", "--backbone-lr", "0"], (1e-3, 0, 1)),
    ],
)
def test_options_change_a_recipe_and_the_rest_follows(words, rates):
    command = _parsed(["train", *words])
    model = preset_of(command.preset or "nano", 10).build()
    data = training_set("shapes", SMALL, 0)
    made = recipe_of(command, model, len(data))
    every = made.num_steps // 10 if "fine-tune" in words else 0
    assert made.steps(made.eval_every) == every
    assert (made.lr, made.backbone_lr, made.clip_norm) == pytest.approx(rates)


def test_changed_pictures_end_a_run_before_it_goes_on(folder, tmp_path, capsys):
    data = renamed(folder, tmp_path / "data", "cat")
    run = ["train", "--data", str(data), "--out", str(tmp_path / "run"), *SHORT]
    assert main([*run, "--stop-after", "0s"]) == 0
    tree = json.loads((data / "train.json").read_text())
    tree["annotations"][0]["bbox"][2] += 1
    (data / "train.json").write_text(json.dumps(tree))
    assert main(run) == 1
    assert "CocoDataset.annotations was sha256 " in capsys.readouterr().err


def test_no_validation_picture_is_trained_on():
    learn, judge = training_set("shapes", SMALL, 0), validation_set("shapes", SMALL)
    assert (len(learn), len(judge)) == (ENDLESS, 500)
    assert not any((learn[i].image == judge[i].image).all() for i in range(5))


@pytest.mark.parametrize("recipe", ["paper", "v2"])
def test_the_recipes_augmentation_is_part_of_a_run(folder, tmp_path, recipe):
    words = ["train", "--data", str(folder), "--out", str(tmp_path / "run"), *SHORT]
    assert main([*words, "--augment", recipe]) == 0
    kept = json.loads((tmp_path / "run" / "run.json").read_text())["recipe"]["augment"]
    assert kept["until"] == (1 if recipe == "paper" else pytest.approx(70 / 72))
    assert kept["size"] == [96, 96]


@pytest.mark.parametrize(
    ("words", "mirrored", "colours"),
    [
        ([], True, 1),
        (["--augment", "none"], False, 1),
        (["--no-flip"], False, 1),
        (["--augment", "light"], True, 8),
        (["--augment", "light", "--no-flip"], False, 8),
        (["--augment", "v1"], True, 8),
    ],
)
def test_an_augmentation_mirrors_unless_the_mirror_is_off(folder, words, mirrored, colours):
    asked = _parsed(["train", "--data", str(folder), *words])
    augment, found = augmentation_of(asked, SMALL), stored_sets(str(folder), ["train"])["train"]
    data = training_set(found, SMALL, 0, bool(augment), mirrored=asked.learning.mirrors)
    centres, means = set(), set()
    for k in range(24):
        sample = data[3 if augment else 3 + len(found) * k]
        if augment is not None:
            sample = augment(sample, Place(0, k, k, 0.5))
        centres |= {round(float(x), 3) for x in sample.boxes[:1, 0]}
        means.add(round(float(as_float(sample.image).mean()), 3))
    if "v1" not in words:  # which moves the boxes
        assert len(centres) == 1 + mirrored
    assert len(means) >= colours


def test_shapes_are_not_cropped(tmp_path, capsys):
    assert main(["train", "--augment", "paper", "--out", str(tmp_path / "run")]) == 1
    assert "told apart by their aspect" in capsys.readouterr().err


def test_the_help_says_what_happens_by_default(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    said = capsys.readouterr().out
    assert "(default: None)" not in said
    assert all(f"{part} options" in said for part in ("learning", "evaluating", "running"))


# --- names, and what a run leaves -----------------------------------------------------------------


def test_a_folder_called_shapes_wins_over_the_drawn_world_and_says_so(
    folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shapes").symlink_to(folder)
    run = ["train", *SHORT, "--stop-after", "0s"]
    assert main([*run, "--data", "shapes", "--out", "one"]) == 0
    said = capsys.readouterr()
    known = "for the drawn world type name:shapes"
    assert known in said.err
    assert "12 pictures (2 × 6)" in said.out
    assert main([*run, "--data", "./shapes", "--out", "two"]) == 0
    assert known not in capsys.readouterr().err
    assert main([*run, "--data", "name:shapes", "--out", "three"]) == 0
    said = capsys.readouterr()
    assert known not in said.err
    assert f"× {ENDLESS:,}" in said.out


@pytest.mark.parametrize("words", [["{}"], ["--model", "{}"], ["{}", "--model", "{}"]])
def test_a_model_is_named_first_or_by_its_option(words, capsys):
    assert main(["classes", *(word.format("nano") for word in words)]) == 0
    assert "circle" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["classes", "eval", "export", "verify"])
def test_every_verb_about_one_model_takes_it_both_ways(verb):
    assert _parsed([verb, "r50"]).name == _parsed([verb, "--model", "r50"]).name == "r50"


def test_two_models_for_a_verb_about_one_are_refused(capsys):
    assert main(["classes", "nano", "--model", "r18"]) == 1
    assert "--model: is r18, but the first word is nano" in capsys.readouterr().err


def test_the_folder_of_a_run_is_judged_and_is_a_beginning(folder, tmp_path, capsys):
    run = ["train", "--data", str(folder), "--out", str(tmp_path / "run"), *SHORT]
    assert main([*run, "--eval-every", "1", "--stop-after", "0s"]) == 0
    capsys.readouterr()
    judged = []
    for name in ("run", "run/best.pt", "run/last.pt", "run/model"):
        words = ["eval", "--model", str(tmp_path / name), "--data", str(folder), "--json"]
        assert main([*words, "--device", "cpu"]) == 0
        judged.append(json.loads(capsys.readouterr().out)["AP"])
    assert len(set(judged)) == 1
    again = ["train", "--data", str(folder), "--out", str(tmp_path / "again"), *SHORT]
    assert main([*again, "--model", str(tmp_path / "run"), "--stop-after", "0s"]) == 0
    assert "class heads kept" in capsys.readouterr().out


def test_the_budget_of_a_fine_tuning_may_grow_and_shrink_and_its_steps_may_not(
    folder, tmp_path, capsys
):
    run = ["train", "--model", "nano", "--data", str(folder), "--out", str(tmp_path / "run")]
    run += ["--device", "cpu", "--size", "96", "--stop-after", "0s"]
    for pictures in ("40", "7000", "100"):
        assert main([*run, "--batch-size", "2", "--pictures", pictures]) == 0
    assert "step 3, paused" in capsys.readouterr().out
    assert main([*run, "--batch-size", "4", "--pictures", "40"]) == 1
    assert "another batch_size (2, now 4)" in capsys.readouterr().err


def test_queries_are_set_for_a_preset_and_for_a_model(folder, tmp_path, capsys):
    for number, words in enumerate((["--preset", "nano"], ["--model", "nano"])):
        out = tmp_path / str(number)
        run = ["train", "--data", str(folder), *SHORT, *words, "--queries", "120"]
        assert main([*run, "--stop-after", "0s", "--out", str(out)]) == 0
        assert load_pretrained(out).num_queries == 120
    assert main([*run, "--queries", "5000", "--out", str(tmp_path / "x")]) == 1
    assert "5000 queries, but the picture has only" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "count", "size"),
    [
        (("--model", "nano"), 299, 4),
        (("--model", "nano"), 300, 8),
        (("--model", "nano"), 600, 16),
        (("--model", "nano", "--batch-size", "3"), 299, 3),
        (("--model", "nano", "--overfit", "1"), 299, 16),
        ((), 299, 16),
    ],
)
def test_steps_are_small_where_a_model_is_fine_tuned_on_few_pictures(words, count, size):
    model = preset_of("nano", 10).build()
    assert recipe_of(_parsed(["train", *words]), model, count).batch_size == size
