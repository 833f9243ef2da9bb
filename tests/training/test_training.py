"""The loop: whatever happens to a run, it goes on as if nothing had."""

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from paths import TESTS, child_environment, hear_signals
from torch import nn
from training_toy import CONFIG, Toy, ToyData, same, untimed

from rtdetr_lab.data.augment import Augmentation
from rtdetr_lab.errors import ConfigError, DataError, TrainingError
from rtdetr_lab.training import Cosine, from_scratch, train
from rtdetr_lab.training.distributed import World
from rtdetr_lab.training.ema import ema_decay
from rtdetr_lab.training.loop import Run
from rtdetr_lab.training.metrics import Means
from rtdetr_lab.training.optim import lr_factor
from rtdetr_lab.training.state import (
    load_state,
    rng_state,
    save_state,
    seed_everything,
    set_rng_state,
)
from rtdetr_lab.training.stop import seconds_of
from rtdetr_lab.training.stream import Steps, shuffle
from rtdetr_lab.training.trainer import Trainer
from rtdetr_lab.writing import ENDING


def run_toy(folder=None, config=CONFIG, data=None, **how) -> Run:
    data = ToyData() if data is None else data
    return train(Toy(), data, folder, config, progress=False, **how)


def mean_weight(model: nn.Module) -> dict[str, float]:
    torch.rand(7), torch.randperm(5)  # a validation may use random numbers
    return {"AP": float(model.head.weight.mean())}


# --- stop and go ----------------------------------------------------------------------------------


@pytest.mark.parametrize("stops", [[1], [2], [3], [5], [11], [1, 4, 2], [3, 3, 3]])
def test_a_run_that_was_stopped_equals_one_that_was_not(tmp_path, stops):
    whole = run_toy(tmp_path / "whole", validate=mean_weight)
    for steps in stops:
        assert not run_toy(tmp_path / "parts", validate=mean_weight, stop_after=steps).finished
    parts = run_toy(tmp_path / "parts", validate=mean_weight)
    assert parts.finished
    assert parts.step == 12
    states = [load_state(tmp_path / name / "last.pt") for name in ("whole", "parts")]
    for state in states:  # the shape checks of this very test draw from python's random numbers
        assert state["rng"].pop("python")
    assert same(*states)
    assert untimed(parts.history) == untimed(whole.history)
    lines = (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == parts.history


def test_a_resume_that_forgets_the_random_numbers_would_be_noticed(tmp_path, monkeypatch):
    whole = run_toy(tmp_path / "whole")
    run_toy(tmp_path / "parts", stop_after=5)
    monkeypatch.setattr("rtdetr_lab.training.state.set_rng_state", lambda state: None)
    parts = run_toy(tmp_path / "parts")
    assert not same(whole.model.state_dict(), parts.model.state_dict())


def test_the_random_numbers_of_python_numpy_and_torch_go_on_where_they_were(tmp_path):
    """In the middle of a block of numpy's, with the second of a pair of normal numbers waiting."""

    def draw():
        set_rng_state(load_state(tmp_path / "state.pt")["rng"])
        waiting, block = np.random.normal(), np.random.rand(700).tolist()
        return random.random(), waiting, block, torch.rand(3).tolist()

    random.random(), np.random.rand(7), np.random.normal()
    save_state(tmp_path / "state.pt", {"rng": rng_state()})
    went_on = (np.random.normal(), np.random.rand(700).tolist())
    first = draw()
    assert first[1:3] == went_on
    seed_everything(99)
    for one, again in zip(first, draw(), strict=True):
        assert one == again


def test_the_number_of_workers_changes_nothing(tmp_path):
    alone = run_toy()
    run_toy(tmp_path, stop_after=5)
    helped = run_toy(tmp_path, replace(CONFIG, num_workers=2))
    assert same(alone.model.state_dict(), helped.model.state_dict())


def test_a_validation_leaves_no_trace_in_the_weights():
    with_validation = run_toy(validate=mean_weight)
    assert same(with_validation.model.state_dict(), run_toy().model.state_dict())


def test_what_comes_back_is_the_average_in_eval_mode(tmp_path):
    run = run_toy(tmp_path)
    assert not run.model.training
    assert same(run.model.state_dict(), load_state(tmp_path / "last.pt")["ema"])
    assert not same(run.model.state_dict(), load_state(tmp_path / "last.pt")["model"])


def test_the_best_state_is_the_one_with_the_highest_ap(tmp_path):
    run = run_toy(tmp_path, validate=mean_weight)
    best = max((r for r in run.history if "AP" in r), key=lambda r: r["AP"])
    assert load_state(tmp_path / "best.pt")["step"] == best["step"]


def test_of_equal_bests_the_first_is_kept(tmp_path):
    run_toy(tmp_path, validate=lambda model: {"AP": 0.5})
    assert load_state(tmp_path / "best.pt")["step"] == CONFIG.eval_every


def test_a_resumed_run_keeps_a_best_that_it_does_not_beat(tmp_path):
    scores = iter((0.3, 0.6, 0.5, 0.4))
    for _ in range(2):
        run_toy(tmp_path, validate=lambda model: {"AP": next(scores)}, stop_after=7)
    assert load_state(tmp_path / "best.pt")["step"] == 6


def test_a_number_of_steps_to_stop_after_counts_from_the_resume(tmp_path):
    assert [run_toy(tmp_path, stop_after=5).step for _ in range(3)] == [5, 10, 12]


def test_the_record_has_the_highest_rate_of_all_groups():
    rate = CONFIG.lr * lr_factor(11, 12, 3, CONFIG.schedule)
    assert run_toy().history[-1]["lr"] == pytest.approx(rate)


def test_the_average_moves_after_every_step_by_the_decay_of_that_step():
    learner = Trainer(Toy().build(), CONFIG, torch.device("cpu"))
    before = learner.model.head.weight.detach().clone()
    learner.learn(Steps(ToyData(), batch_size=4, seed=0, last=12).batch(0))
    after, decay = learner.model.head.weight, ema_decay(1, 0.9, 4)
    wanted = decay * before + (1 - decay) * after
    assert torch.allclose(learner.ema.model.head.weight, wanted, atol=1e-6, rtol=0)
    assert not torch.allclose(after, before, atol=1e-4, rtol=0)


def test_a_finished_run_stays_as_it_is(tmp_path):
    first = run_toy(tmp_path)
    again = run_toy(tmp_path)
    assert again.finished
    assert same(first.model.state_dict(), again.model.state_dict())


@pytest.mark.curves
@pytest.mark.parametrize("validate", [None, mean_weight])
def test_a_run_folder_tells_what_it_is(tmp_path, validate):
    run_toy(tmp_path, replace(CONFIG, eval_every=5), validate=validate)
    described = json.loads((tmp_path / "run.json").read_text())
    assert described["recipe"]["lr"] == CONFIG.lr
    assert described["num_data"] == 10
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob(".*.tmp"))


# --- what is refused ------------------------------------------------------------------------------


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def test_a_damaged_checkpoint_is_named_and_the_one_before_used(tmp_path, capsys):
    whole = run_toy()
    run_toy(tmp_path, stop_after=6)
    flip_a_byte(tmp_path / "last.pt")
    with pytest.raises(TrainingError, match=r"last\.pt: is damaged"):
        load_state(tmp_path / "last.pt")
    assert load_state(tmp_path / "previous.pt")["step"] == 4
    healed = run_toy(tmp_path)
    assert "last.pt: is damaged" in capsys.readouterr().err
    assert same(whole.model.state_dict(), healed.model.state_dict())


@pytest.mark.parametrize("content", [b"", b"rtdetr_lab run 1 ", b"PK\x03\x04 something else"])
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "last.pt"
    path.write_bytes(content)
    with pytest.raises(TrainingError, match="is not a checkpoint"):
        load_state(path)


def test_a_folder_with_nothing_but_damage_is_not_silently_begun_anew(tmp_path):
    run_toy(tmp_path, stop_after=6)
    for name in ("last.pt", "previous.pt"):
        flip_a_byte(tmp_path / name)
    with pytest.raises(TrainingError, match="damaged"):
        run_toy(tmp_path)


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"step": Evil()}, tmp_path / "payload")
    payload = (tmp_path / "payload").read_bytes()
    digest = hashlib.sha256(payload).hexdigest().encode()
    (tmp_path / "last.pt").write_bytes(b"rtdetr_lab run 1 " + digest + b"\n" + payload)
    with pytest.raises(TrainingError, match="holds more than"):
        load_state(tmp_path / "last.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [({"lr": 0.5}, "lr"), ({"seed": 3}, "seed"), ({"schedule": Cosine(0.2)}, "schedule")],
)
def test_another_recipe_is_not_mixed_into_a_run(tmp_path, change, named):
    run_toy(tmp_path, stop_after=2)
    with pytest.raises(TrainingError, match=f"another {named}"):
        run_toy(tmp_path, replace(CONFIG, **change))


def test_other_data_and_another_model_are_not_mixed_into_a_run(tmp_path):
    run_toy(tmp_path, stop_after=2)
    with pytest.raises(TrainingError, match="10 pictures, these are 11"):
        run_toy(tmp_path, data=ToyData(11))
    with pytest.raises(TrainingError, match="another width"):
        train(Toy(width=4), ToyData(), tmp_path, CONFIG, progress=False)


def test_a_run_may_be_made_longer(tmp_path):
    run_toy(tmp_path)
    longer = run_toy(tmp_path, replace(CONFIG, num_pictures=60))
    assert longer.step == 15


def test_no_data_is_named():
    with pytest.raises(DataError, match="holds no pictures"):
        run_toy(data=ToyData(0))


def test_a_fault_of_the_data_keeps_its_type_through_a_worker():
    class Faulty(ToyData):
        def __getitem__(self, index):
            raise DataError(f"picture {index}", "has a hole", "mend it")

    with pytest.raises(DataError, match="has a hole"):
        run_toy(config=replace(CONFIG, num_workers=1), data=Faulty())


def test_a_folder_that_cannot_be_written_is_named_first(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainingError, match="cannot be written"):
        run_toy(tmp_path / "file" / "run")


# --- processes ------------------------------------------------------------------------------------


COMMAND = [sys.executable, str(TESTS / "training_toy.py")]
TOO_LONG = 600
"""Seconds after which we take it for hung; it needs some ten of them."""


@pytest.fixture
def training(tmp_path):
    """A process that trains in `tmp_path / "run"` and has saved at least once."""
    command = [*COMMAND, str(tmp_path / "run")]
    how = {"env": child_environment(), "preexec_fn": hear_signals}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **how)
    deadline = time.monotonic() + TOO_LONG
    while not (tmp_path / "run" / "previous.pt").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_saves_and_ends_in_peace(training, tmp_path, number):
    training.send_signal(number)
    printed, _ = training.communicate(timeout=TOO_LONG)
    assert training.returncode == 0
    step, finished = printed.split()
    assert finished == "False"
    assert load_state(tmp_path / "run" / "last.pt")["step"] == int(step)


def test_a_second_process_is_refused_until_the_first_is_gone(training, tmp_path):
    command = [*COMMAND, str(tmp_path / "run"), "1"]
    second = subprocess.run(command, capture_output=True, text=True, env=child_environment())
    assert second.returncode == 1
    assert "another process writes into this folder" in second.stderr
    training.kill()
    training.wait()
    third = subprocess.run(command, capture_output=True, text=True, env=child_environment())
    assert third.returncode == 0
    assert int(third.stdout.split()[0]) > 3


# --- small parts ----------------------------------------------------------------------------------


def test_every_picture_is_seen_once_per_round_and_orders_differ():
    steps = Steps(ToyData(6), batch_size=4, seed=1, last=6)
    stream = [picture for step in range(6) for picture in steps.pictures(step)]
    rounds = [stream[i : i + 6] for i in range(0, 24, 6)]
    assert all(sorted(r) == list(range(6)) for r in rounds)
    assert len({tuple(r) for r in rounds}) == 4
    other = replace(steps, seed=2)
    assert [other.pictures(step) for step in range(6)] != [steps.pictures(s) for s in range(6)]


def test_a_step_is_a_function_of_its_number_and_processes_share_it():
    steps = Steps(ToyData(), batch_size=4, seed=3, last=9)
    whole = steps.batch(7)
    assert torch.equal(list(steps.batches(first=5))[2].images, whole.images)
    assert whole.targets.pictures == tuple(f"picture {i}" for i in steps.pictures(7))
    shares = [replace(steps, world=World(rank, 3)).batch(7) for rank in range(3)]
    assert [len(share) for share in shares] == [2, 1, 1]
    assert torch.equal(shares[0].images, whole.images[::3])
    assert {name for share in shares for name in share.targets.pictures} == set(
        whole.targets.pictures
    )


def test_orders_of_neighbouring_seeds_are_not_each_others_a_round_later():
    orders = [[shuffle(50, seed, epoch).tolist() for epoch in range(3)] for seed in (1, 2)]
    assert not any(order in orders[0] for order in orders[1])


@pytest.mark.parametrize("world", [World(0, 1), World(1, 3)])
def test_every_picture_has_its_own_place_in_the_stream(world):
    places = []

    class Noted(Augmentation):
        def __call__(self, sample, place):
            places.append((place.position, place.step, place.progress))
            return sample

    Steps(ToyData(), 4, seed=3, last=8, augment=Noted(), world=world).batch(2)
    assert places == [(n, 2, 0.25) for n in world.share(range(8, 12))]


def test_the_record_has_means_of_the_steps_since_its_last_line():
    means = Means()
    for loss in (1.0, 4.0):
        means.add({"loss": torch.tensor(loss)})
    assert means.take() == {"loss": 2.5}
    means.add({"loss": torch.tensor(3.0)})
    assert means.take() == {"loss": 3.0}


def test_durations_are_read():
    assert [seconds_of(t) for t in ("90s", "50m", "1.5h")] == [90, 3000, 5400]
    with pytest.raises(ConfigError, match="is not a time"):
        seconds_of("50 minutes")


def test_a_stop_after_a_time_is_kept():
    slow = replace(CONFIG, num_pictures=10**6)
    run = run_toy(config=slow, stop_after="0.5s")
    assert not run.finished
    assert 0 < run.step < slow.num_steps


@pytest.mark.parametrize("bad", [{"lr": 0.0}, {"batch_size": 0}, {"ema_decay": -1.0}])
def test_a_recipe_that_cannot_learn_is_refused(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        from_scratch(100, **bad)
