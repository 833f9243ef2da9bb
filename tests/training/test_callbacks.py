"""Callbacks: the bar, early stopping, TensorBoard, W&B, and whatever a reader writes."""

import json
import sys
import types
from dataclasses import replace

import pytest
import torch
from training_toy import CONFIG, StandInForWandb, Toy, ToyData, same, untimed

from rtdetr_lab.cli import main
from rtdetr_lab.errors import ConfigError, MissingExtraError
from rtdetr_lab.training import Callback, train
from rtdetr_lab.training.callbacks import Bar, EarlyStopping, TensorBoard, WandB
from rtdetr_lab.training.state import load_state
from rtdetr_lab.training.trainer import Trainer

SCORES = (0.1, 0.4, 0.3, 0.40, 0.405, 0.2, 0.9)


class Falling:
    """A validation whose scores are known beforehand, by the number of the validation."""

    def __init__(self, done=0):
        self.done = done

    def __call__(self, model):
        self.done += 1
        return {"AP": SCORES[self.done - 1]}


EARLY = replace(CONFIG, eval_every=1, patience=3, min_delta=0.01, accumulate=2, save_every=0)


def run(folder=None, config=EARLY, done=0, **how):
    how = {"progress": False, "validate": Falling(done)} | how
    return train(Toy(), ToyData(), folder, config, **how)


def test_a_run_ends_when_patience_does_and_says_so():
    ended = run()
    assert (ended.step, ended.finished) == (5, True)
    assert ended.reason == "AP 0.400 was not beaten by 0.01 in 3 validations"
    assert run(config=replace(EARLY, patience=4)).step == 6


@pytest.mark.parametrize(
    ("scores", "ends"), [((0.1, 0.15, 0.155), True), ((0.1, 0.15, 0.17), False)]
)
def test_little_by_little_counts_from_the_last_best(scores, ends):
    stopping = EarlyStopping(patience=2, min_delta=0.06)
    trainer = Trainer(Toy().build(), CONFIG, torch.device("cpu"))
    for score in scores:
        stopping.recorded(trainer, {"AP": score})
    assert bool(stopping.reason) == ends


def test_an_ap_that_is_only_reached_again_is_no_better():
    stopping = EarlyStopping(patience=1)
    trainer = Trainer(Toy().build(), CONFIG, torch.device("cpu"))
    for score in (0.25, 0.5, 0.5):
        assert not stopping.reason
        stopping.recorded(trainer, {"AP": score})
    assert stopping.reason == "AP 0.500 was not beaten in 1 validations"


# --- the bar -------------------------------------------------------------------------------------


def test_every_validation_has_a_line_that_a_log_file_keeps(capsys):
    run(progress=True)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    assert lines == [
        "step 1: AP 0.100, the best so far",
        "step 2: AP 0.400, the best so far",
        "step 3: AP 0.300",
        "step 4: AP 0.400",
        "step 5: AP 0.405, the best so far",
    ]


class Watch(Callback):
    """Keeps what the bar shows after every step, and after every line of the record."""

    def __init__(self, bar):
        super().__init__()
        self.bar, self.seen = bar, []

    def stepped(self, trainer):
        self.seen.append(dict(self.bar.shown))

    def recorded(self, trainer, record):
        self.stepped(trainer)


def test_the_bar_shows_a_loss_after_one_step_and_then_loss_and_ap():
    bar = Bar()
    watch = Watch(bar)
    config = replace(CONFIG, log_every=3, eval_every=2, num_pictures=16)  # four steps
    ended = run(config=config, callbacks=[bar, watch])
    first, *_, last = watch.seen
    assert set(first) == {"loss"}
    assert set(last) == {"loss", "lr", "AP"}
    training = [r for r in ended.history if "loss" in r]
    assert last["loss"] == f"{training[-1]['loss']:.3f}"
    assert last["AP"] == "0.400"


def test_a_resumed_run_says_where_it_continues(tmp_path, capsys):
    run(tmp_path / "run", stop_after=2, progress=True)
    assert "continues" not in capsys.readouterr().err
    run(tmp_path / "run", done=2, stop_after=1, progress=True)
    assert f"continues at step 2 of {EARLY.num_steps}" in capsys.readouterr().err


@pytest.mark.parametrize("stops", [[1], [3], [4], [2, 1, 1]])
def test_early_stopping_survives_a_resume_to_the_bit(tmp_path, stops):
    whole = run(tmp_path / "whole")
    for steps in stops:
        done = json_step(tmp_path / "parts")
        assert not run(tmp_path / "parts", done=done, stop_after=steps).finished
    parts = run(tmp_path / "parts", done=json_step(tmp_path / "parts"))
    assert (parts.step, parts.reason) == (whole.step, whole.reason)
    states = [load_state(tmp_path / name / "last.pt") for name in ("whole", "parts")]
    for state in states:
        assert state["rng"].pop("python")
    assert same(*states)
    assert untimed(parts.history) == untimed(whole.history)


def json_step(folder) -> int:
    path = folder / "last.pt"
    return load_state(path)["step"] if path.exists() else 0


def test_a_run_that_was_ended_stays_ended_until_patience_is_raised(tmp_path):
    ended = run(tmp_path)
    again = run(tmp_path, done=ended.step)
    assert (again.step, again.finished, again.reason) == (ended.step, True, ended.reason)
    further = run(tmp_path, replace(EARLY, patience=9, num_pictures=28), done=ended.step)
    assert further.step == 7


def test_patience_without_validations_is_refused():
    with pytest.raises(ConfigError, match="validations that never come"):
        replace(EARLY, eval_every=0)


def test_a_readers_own_callback_sees_everything_in_order_and_may_end_the_run():
    class Mine(Callback):
        def __init__(self):
            super().__init__()
            self.seen = []

        def begins(self, trainer):
            self.seen.append("begins")

        def stepped(self, trainer):
            self.seen.append(trainer.step)

        def recorded(self, trainer, record):
            self.seen.append("AP" if "AP" in record else "loss")
            self.reason = "enough" if trainer.step == 6 and "AP" in record else ""

        def ends(self, trainer):
            self.seen.append("ends")

    mine = Mine()
    ended = run(config=replace(CONFIG, eval_every=3), callbacks=[mine])
    assert ended.reason == "enough"
    assert mine.seen == ["begins", 1, 2, 3, "AP", 4, 5, "loss", 6, "AP", "ends"]


def test_the_bar_shows_loss_rate_speed_and_time_left(capsys):
    run(config=replace(CONFIG, log_every=1), progress=True)
    said = capsys.readouterr().err
    assert "48/48" in said
    assert all(part in said for part in ("loss=", "lr=", "img/s", "<00:"))


def test_tensorboard_is_optional_and_its_absence_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match="pip install tensorboard"):
        TensorBoard(tmp_path)


def test_a_tag_of_tensorboard_is_one_line_of_text(tmp_path, monkeypatch):
    """protobuf refuses half of a surrogate pair, in the middle of a run."""
    written = []

    class Writer:
        def __init__(self, folder, purge_step):
            self.close = list

        def add_scalar(self, name, value, step):
            written.append(name)

    fake = types.SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    odd = lambda model: {"AP": 0.5, "AP of a/b\n\x1b\udc80": 0.25}  # noqa: E731
    run(config=replace(CONFIG, eval_every=6), validate=odd, callbacks=[TensorBoard(tmp_path)])
    assert {n for n in written if n.startswith("val/AP of")} == {"val/AP of a/b\\n\\x1b\\udc80"}


def test_tensorboard_gets_the_numbers_of_the_record(tmp_path, monkeypatch):
    written = []

    class Writer:
        def __init__(self, folder, purge_step):
            written.append((folder, purge_step))

        def add_scalar(self, name, value, step):
            written.append((name, value, step))

        def close(self):
            written.append("closed")

    fake = types.SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    config = replace(CONFIG, eval_every=6)
    first = run(tmp_path / "run", config, stop_after=6)
    ended = run(tmp_path / "run", config, done=1, callbacks=[TensorBoard(tmp_path / "tb")])
    assert written[0] == (str(tmp_path / "tb"), 7)
    assert written[-1] == "closed"
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    recorded = [json.loads(line) for line in lines][len(first.history) :]
    expected = [
        (f"{'train' if 'loss' in r else 'val'}/{n}", v, r["step"])
        for r in recorded
        for n, v in r.items()
        if n != "step"
    ]
    assert written[1:-1] == expected
    assert any(name == "val/AP" for name, *_ in written[1:-1])
    assert ended.step == 12


def test_weights_and_biases_gets_the_record_and_a_resumed_run_goes_on_in_its_place(
    tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "wandb", fake := StandInForWandb())
    config, seen = replace(CONFIG, eval_every=6), {"callbacks": [WandB(tmp_path / "wandb")]}
    first = run(tmp_path / "run", config, stop_after=6, **seen)
    begun, *logged, end = fake.calls
    assert begun["dir"] == str(tmp_path / "wandb")
    assert begun["config"]["recipe"]["batch_size"] == config.batch_size
    assert (
        begun["config"]["model"] == json.loads((tmp_path / "run" / "run.json").read_text())["model"]
    )
    assert (begun["name"], begun["reinit"]) == (tmp_path.name, "finish_previous")
    assert (begun["settings"]["console"], begun["settings"]["disable_git"]) == ("off", True)
    assert "id" not in begun
    expected = [
        (r["step"], {f"{'train' if 'loss' in r else 'val'}/{n}": r[n] for n in r if n != "step"})
        for r in first.history
    ]
    assert (logged, end) == (expected, "finished")
    assert any("val/AP" in values for _, values in logged)

    fake.calls.clear()
    run(tmp_path / "run", config, done=1, callbacks=[WandB(tmp_path / "wandb")])
    assert (fake.calls[0]["id"], fake.calls[0]["resume"]) == ("made by W&B", "allow")


def test_the_real_package_of_weights_and_biases_writes_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="no wandb; runs where it is installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run(config=replace(CONFIG, eval_every=6), callbacks=[WandB(tmp_path)])
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    (written,) = folder.glob("*.wandb")
    assert b"val/AP" in written.read_bytes()


def test_the_command_line_names_a_program_that_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    out = tmp_path / "run"
    assert main(["train", "--wandb", "--size", "64", "--pictures", "2", "--out", str(out)]) == 1
    assert capsys.readouterr().err.endswith("wandb: is not installed; pip install wandb\n")
    assert not (out / "last.pt").exists()
