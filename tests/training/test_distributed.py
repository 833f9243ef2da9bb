"""Two processes learn what one learns from the joined batch, and only one of them writes."""

import json
import socket
import subprocess
import sys
from contextlib import nullcontext, suppress

import pytest
import ranks_run
import torch
from paths import PROGRAMS, child_environment
from torch import nn
from training_toy import Toy, ToyData

from rtdetr_lab.errors import TrainingError
from rtdetr_lab.training import TrainConfig, distributed, loop
from rtdetr_lab.training.distributed import World, join_processes

SCRIPT = PROGRAMS / "ranks_run.py"


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def on_two_ranks(kind, outs):
    """Start both, wait for both; their outputs."""
    shared = child_environment(WORLD_SIZE="2", MASTER_ADDR="127.0.0.1")
    shared["MASTER_PORT"] = str(free_port())
    started = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), kind, str(out)],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank, out in enumerate(outs)
    ]
    said = [process.communicate(timeout=900)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    return said


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    outs = [folder / "0.pt", folder / "1.pt"]
    on_two_ranks("steps", outs)
    return [torch.load(out, weights_only=True) for out in outs]


@pytest.fixture(scope="module")
def alone():
    try:
        return ranks_run.steps()
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("what", ["gradients", "weights"])
def test_two_ranks_with_one_nine_and_none_five_boxes_equal_the_joined_batch(both, alone, what):
    assert alone[what]
    for rank in (0, 1):
        assert both[rank][what].keys() == alone[what].keys()
        for name, wanted in alone[what].items():
            largest = wanted.abs().max().clamp(min=1e-9)  # keys' biases: zero but for rounding
            off = (both[rank][what][name] - wanted).abs().max() / largest
            assert off < 1e-6, (rank, name, float(off))


def test_a_process_takes_the_gpu_of_its_number_on_its_own_machine(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("RANK", "9")  # the second process of the fifth machine
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert distributed.choose_device(None) == torch.device("cuda", 1)
    assert distributed.choose_device("cpu") == torch.device("cpu")


def test_one_rank_writes_and_both_agree_when_to_stop(tmp_path):
    folder = tmp_path / "run"
    said = on_two_ranks("train", [folder, folder])
    assert said[0].split()[-2:] == ["4", str(folder)]
    assert said[1].split()[-2:] == ["4", "None"]
    lines = (folder / "metrics.jsonl").read_text(encoding="utf8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]
    said = on_two_ranks("train", [folder, folder])
    assert said[0].split()[-2] == said[1].split()[-2] == "6"


def test_shares_are_everybodys_and_nobodys_twice():
    pictures = list(range(7))
    shares = [World(rank, 3).share(pictures) for rank in range(3)]
    assert sorted(picture for share in shares for picture in share) == pictures


def test_every_process_draws_random_numbers_of_its_own(monkeypatch):
    seeds = []
    monkeypatch.setattr(loop.keep, "seed_everything", seeds.append)
    for rank in (1, 2):
        monkeypatch.setattr(loop, "join_processes", lambda *_, n=rank: nullcontext(World(n, 3)))
        loop.train(Toy(), ToyData(), config=TrainConfig(num_pictures=3, batch_size=3))
    assert len({*seeds[1::2]}) == 2, seeds


def test_only_with_the_last_part_of_a_step_are_gradients_averaged():
    class Wrapped(nn.parallel.DistributedDataParallel):
        def __init__(self):
            nn.Module.__init__(self)

        def no_sync(self):
            return suppress(ZeroDivisionError)

    assert isinstance(distributed.hold_gradients(Wrapped(), last=False), suppress)
    assert isinstance(distributed.hold_gradients(Wrapped(), last=True), nullcontext)
    assert isinstance(distributed.hold_gradients(nn.Linear(1, 1), last=False), nullcontext)


@pytest.mark.parametrize("step", [2, 4])
def test_a_step_behind_or_ahead_of_another_process_is_refused(monkeypatch, step):
    """The other process has found step 3."""
    others = {True: 3, False: -3}
    monkeypatch.setattr(distributed, "max_over_ranks", lambda n, device: max(n, others[n >= 0]))
    World(0, 2).check_step(3, ranks_run.CPU)
    with pytest.raises(TrainingError, match=f"process 0 found step {step}"):
        World(0, 2).check_step(step, ranks_run.CPU)


def test_more_processes_than_pictures_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")
    with (
        pytest.raises(TrainingError, match="4 pictures a step for 8"),
        join_processes(ranks_run.CPU, 4),
    ):
        pass
