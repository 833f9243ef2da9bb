"""What a run folder holds: at any time the best model, ready to load, and a state to go on from."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from small import small
from training_toy import Toy, ToyData

from rtdetr_lab import AutoModelForObjectDetection
from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.checkpoints.save import save_pretrained
from rtdetr_lab.commands.sets import world
from rtdetr_lab.data.shapes import ShapesDataset
from rtdetr_lab.detector import Detector
from rtdetr_lab.errors import CheckpointError, TrainingError
from rtdetr_lab.training import Callback, Constant, TrainConfig, fine_tune, session, train
from rtdetr_lab.training.state import load_state

CONFIG = TrainConfig(num_pictures=48, batch_size=4, lr=1e-2, save_every=0, eval_every=3)


def falling(model):
    """The first validation is the best."""
    falling.calls += 1
    return {"AP": 0.5 / falling.calls}


@pytest.fixture
def score():
    falling.calls = 0
    return falling


def run_toy(folder, validate=None, config=CONFIG, **how):
    return train(Toy(), ToyData(), folder, config, validate, progress=False, **how)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two validations of a detector, the second of which is the worse, and then a kill."""
    torch.manual_seed(2)
    folder = tmp_path_factory.mktemp("runs") / "first"
    data = ShapesDataset(world(64), 0, 8)
    recipe = replace(CONFIG, num_pictures=1000, batch_size=2, save_every=4)
    cfg = small({"encoder.ccff.num_blocks": 3}, num_classes=len(data.names))
    falling.calls = 0
    train(cfg, data, folder, recipe, falling, stop_after=7, progress=False)
    return folder


# --- a model, whatever of the run is named --------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "step"),
    [("", 3), ("model", 3), ("model/model.safetensors", 3), ("best.pt", 3), ("last.pt", 7)],
)
def test_the_folder_of_a_run_and_everything_in_it_is_a_model(run, name, step):
    model = load_pretrained(run / name)
    state = load_state(run / ("last.pt" if step == 7 else "best.pt"))
    assert state["step"] == step
    found = model.state_dict()
    assert all(torch.equal(tensor, found[name]) for name, tensor in state["ema"].items())
    assert model.metadata.names[:2] == ("circle", "ellipse")
    assert model.metadata.image_size == (64, 64)
    assert not model.training
    assert Detector.from_pretrained(run / name, "cpu").classes.category_ids[0] == 1


def test_before_there_is_a_model_the_newest_state_is_taken(run, tmp_path):
    young = tmp_path / "young"
    young.mkdir()
    shutil.copy(run / "last.pt", young)
    assert load_pretrained(young).metadata.source.endswith("last.pt")
    shutil.copy(run / "best.pt", young)
    assert load_pretrained(young).metadata.source.endswith("best.pt")


def test_a_folder_of_runs_says_which_there_are(run):
    with pytest.raises(CheckpointError, match=rf"did you mean {run}\?"):
        load_pretrained(run.parent)


def test_a_damaged_state_is_refused(run, tmp_path):
    content = bytearray((run / "best.pt").read_bytes())
    content[-100] ^= 1
    (tmp_path / "best.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged: its sha256 does not fit"):
        load_pretrained(tmp_path / "best.pt")


def test_the_documented_classes_say_what_they_need_of_a_run(run, tmp_path):
    model = load_pretrained(run)
    other = shutil.copytree(run, tmp_path / "other")
    shutil.rmtree(other / "model")
    save_pretrained(model, other / "model", layout="transformers")
    assert AutoModelForObjectDetection.from_pretrained(other).config.num_labels == 10


# --- when it is written ---------------------------------------------------------------------------


def test_the_best_is_a_model_after_every_validation(tmp_path, score):
    run_toy(tmp_path, score, stop_after=3)
    first = (tmp_path / "model" / "model.safetensors").read_bytes()
    assert json.loads((tmp_path / "model" / "config.json").read_text())["metadata"]["names"]
    run_toy(tmp_path, score)
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == first
    falling.calls = 0
    run_toy(tmp_path / "rising", lambda model: {"AP": -score(model)["AP"]}, stop_after=7)
    state = load_state(tmp_path / "rising" / "best.pt")
    assert state["step"] == 6
    assert state["best"] == -0.25


def test_without_validations_the_newest_is_published_at_the_end(tmp_path):
    run_toy(tmp_path, stop_after=3)
    assert (tmp_path / "model" / "model.safetensors").exists()
    run = run_toy(tmp_path)
    from safetensors.torch import load_file

    published = load_file(tmp_path / "model" / "model.safetensors")
    assert torch.equal(published["head.weight"], run.model.head.weight)


class Killed(Exception):
    pass


def killed_in_validation(number):
    def validate(model):
        validate.calls += 1
        if validate.calls == number:
            raise Killed
        return {"AP": 0.1 * validate.calls}

    validate.calls = 0
    return validate


def test_every_validation_is_followed_by_a_save_so_a_short_run_can_be_resumed(tmp_path):
    """Twelve steps and no save by number: what is lost is what came after the last validation."""
    with pytest.raises(Killed):
        run_toy(tmp_path, killed_in_validation(3))
    assert load_state(tmp_path / "last.pt")["step"] == 6
    assert load_state(tmp_path / "best.pt")["step"] == 6
    whole, resumed = run_toy(tmp_path / "whole", killed_in_validation(0)), run_toy(tmp_path)
    expected = whole.model.state_dict()
    assert all(torch.equal(t, expected[n]) for n, t in resumed.model.state_dict().items())


class Clock(Callback):
    """Time goes by in steps and in saves only."""

    def __init__(self, step):
        super().__init__()
        self.now, self.step = 0.0, step

    def monotonic(self):
        return self.now

    def stepped(self, trainer):
        self.now += self.step


@pytest.mark.parametrize(
    ("step", "save", "expected"),
    [
        (20.0, 0.0, [0, 2, 11, 20, 29, 30]),  # after 30 s, then every 180 s, and at the end
        (100.0, 0.0, [0, 1, 3, 5, 7, 8]),
        (20.0, 15.0, [0, 2, 17, 30]),  # a slow disk: 15 s are at most a twentieth of the time
    ],
)
def test_a_run_is_saved_early_and_then_every_few_minutes(
    tmp_path, monkeypatch, step, save, expected
):
    clock, steps, original = Clock(step), [], session.keep.save_last
    monkeypatch.setattr(session, "time", clock)

    def noted(folder, state):
        steps.append(state["step"])
        clock.now += save
        original(folder, state)

    monkeypatch.setattr(session.keep, "save_last", noted)
    config = replace(CONFIG, num_pictures=4 * expected[-1], eval_every=0)
    run_toy(tmp_path, config=config, callbacks=[clock])
    assert steps == expected


# --- the budget may change ------------------------------------------------------------------------


def recipe(pictures, **changes):
    return fine_tune(Toy(), pictures, batch_size=4, lr=1e-2, **changes)


@pytest.mark.parametrize("pictures", [4000, 48, 24])
def test_a_fine_tuning_may_get_a_larger_or_smaller_budget(tmp_path, pictures):
    train(Toy(), ToyData(), tmp_path, recipe(400), stop_after=5, progress=False)
    run = train(Toy(), ToyData(), tmp_path, recipe(pictures), stop_after=2, progress=False)
    assert run.step == min(7, max(5, pictures // 4))
    kept = json.loads((tmp_path / "run.json").read_text())["recipe"]["warmup_steps"]
    assert kept["share"] == 0.1, "the rule is kept, and not what followed from it"


def test_a_budget_that_is_used_up_says_so_and_changes_nothing(tmp_path, capsys):
    done = run_toy(tmp_path)
    again = run_toy(tmp_path, config=replace(CONFIG, num_pictures=16))
    assert "12 steps are made, the budget is 4" in capsys.readouterr().err
    assert (again.step, again.finished) == (12, True)
    assert torch.equal(again.model.head.weight, done.model.head.weight)


def test_what_follows_from_the_budget_follows_from_the_present_one():
    short, long = recipe(400), recipe(4_000_000)
    assert (short.num_steps, short.steps(short.warmup_steps)) == (100, 10)
    assert recipe(401).num_steps == 101, "the last picture is seen, too"
    assert short.decay == pytest.approx(0.9)
    assert long.steps(long.warmup_steps) == 2000
    assert long.decay == pytest.approx(0.9999)
    grown = replace(short, num_pictures=800)
    assert (grown.steps(grown.warmup_steps), grown.decay) == (20, pytest.approx(0.95))
    chosen = recipe(400, warmup_steps=7, ema_decay=0.5)
    assert (chosen.steps(chosen.warmup_steps), chosen.decay) == (7, 0.5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_size": 2}, r"another batch_size \(4, now 2\)"),
        ({"lr": 2e-2}, r"another lr \(0\.01, now 0\.02\)"),
        (
            {"warmup_steps": 9},
            r"warmup_steps \(ShareOfRun\(share=0\.1, most=2000\), now 9\)",
        ),
        ({"schedule": Constant()}, r"another schedule \(Cosine\(floor=0\.05\), now Constant\(\)\)"),
    ],
)
def test_what_was_chosen_may_not_change_and_both_values_are_named(tmp_path, changes, said):
    train(Toy(), ToyData(), tmp_path, recipe(400), stop_after=2, progress=False)
    with pytest.raises(TrainingError, match=said):
        other = replace(recipe(400), **changes)
        train(Toy(), ToyData(), tmp_path, other, progress=False)


def test_how_often_one_looks_may_change(tmp_path, score):
    run_toy(tmp_path, score, stop_after=4)
    often = replace(CONFIG, eval_every=1, log_every=2, save_every=3)
    assert run_toy(tmp_path, score, config=often).finished


def test_precision_that_nobody_chose_is_the_devices_and_not_compared(tmp_path):
    """A run that began on a GPU, in bfloat16, goes on elsewhere; one that was told to does not."""
    run_toy(tmp_path, stop_after=2)
    assert json.loads((tmp_path / "run.json").read_text())["recipe"]["amp"] is None


class Scored(dict):
    """What an evaluation returns: scores, and the threshold that it recommends."""

    def __init__(self, threshold, score=0.5):
        super().__init__(AP=score)
        self.threshold = threshold


def test_a_model_has_the_threshold_of_its_newest_validation():
    seen = iter((0.25, 0.4, 0.3, 0.35))
    run = run_toy(None, lambda model: Scored(next(seen)))
    assert run.model.metadata.threshold == 0.35


def test_the_best_model_is_written_with_the_threshold_of_its_own_validation(tmp_path):
    seen = iter(((0.3, 0.25), (0.6, 0.4), (0.5, 0.3), (0.4, 0.35)))

    def validate(model):
        score, threshold = next(seen)
        return Scored(threshold, score)

    run_toy(tmp_path, validate)
    tree = json.loads((tmp_path / "model" / "config.json").read_text())
    assert tree["metadata"]["threshold"] == 0.4
