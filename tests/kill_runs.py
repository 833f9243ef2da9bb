"""Kill a training run at random moments, let it go on, and compare the end with an untouched run.

    python tests/kill_runs.py --count 200 --seed 1

A run is a process of its own (a fork: torch is loaded once), killed by SIGKILL. Of every four
moments three are drawn uniformly over the time a run takes, and one over the points *inside* its
saves: half the bytes written, before and after each flush and rename. The hook that stops the child
there lives in this file; the package knows nothing of it. Prints a line per kill, and at the end
what was seen; exit code 1 if a run could not go on, or ended with other bits.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parent))  # wherever this is started from

import torch
from training_toy import Toy, ToyData

from rtdetr_lab.training import Cosine, TrainConfig, train
from rtdetr_lab.training import state as keep

CONFIG = TrainConfig(
    num_pictures=160,
    batch_size=4,
    lr=1e-2,
    backbone_lr=1e-3,
    warmup_steps=3,
    schedule=Cosine(0.1),
    ema_decay=0.9,
    ema_warmup=4,
    log_every=3,
    save_every=4,
    eval_every=5,
)


def score(model):
    return {"AP": float(model.head.weight.mean())}


def learn(folder):
    """One run from wherever it stands to the end."""
    train(Toy(), ToyData(delay=0.002), folder, CONFIG, score, device="cpu", progress=False)


# --- inside a save --------------------------------------------------------------------------------


class Points:
    """Counts the moments inside saves; at number `at` tells the parent, and waits for the end."""

    def __init__(self, at=None, pipe=None):
        self.at, self.pipe, self.seen = at, pipe, 0

    def __call__(self):
        if self.seen == self.at:
            os.write(self.pipe, b"x")
            time.sleep(3600)
        self.seen += 1

    def around(self, function):
        def watched(*args, **how):
            self()
            result = function(*args, **how)
            self()
            return result

        return watched

    def open(self, path, mode="r", *more, **how):
        file = open(path, mode, *more, **how)  # noqa: SIM115 (handed on)
        return HalfWritten(file, self) if mode == "wb" else file

    def install(self):
        """Into the one module that writes what a run continues from."""
        watched = {name: getattr(os, name) for name in dir(os)}
        watched |= {name: self.around(getattr(os, name)) for name in ("fsync", "replace")}
        keep.os = type("os", (), {k: staticmethod(v) for k, v in watched.items() if callable(v)})
        keep.os.O_RDONLY = os.O_RDONLY
        keep.open = self.open


class HalfWritten:
    """A file whose every write can be met half-way."""

    def __init__(self, file, points):
        self.file, self.points = file, points

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, content):
        half = len(content) // 2
        self.file.write(content[:half])
        self.file.flush()
        self.points()
        self.file.write(content[half:])


# --- processes ------------------------------------------------------------------------------------


def child(work):
    """The id of a forked process that does `work` and ends with 0, or says why not."""
    sys.stdout.flush()
    if process := os.fork():
        return process
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended_well(process):
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0


def killed_at(folder, moment):
    """Kill a run after so many seconds; False if it was faster."""
    process = child(lambda: learn(folder))
    time.sleep(moment)
    os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL


def killed_inside_a_save(folder, point):
    """Kill a run at this point of its saves."""
    told, tell = os.pipe()

    def work():
        Points(point, tell).install()
        learn(folder)

    process = child(work)
    os.close(tell)
    reached = os.read(told, 1) == b"x"  # or nothing, when the other end is closed
    os.close(told)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return reached


def points_of_a_run(folder):
    """How many moments inside saves a whole run has."""
    read, write = os.pipe()

    def work():
        points = Points()
        points.install()
        learn(folder)
        os.write(write, str(points.seen).encode())

    process = child(work)
    os.close(write)
    count = int(os.read(read, 100))
    os.close(read)
    assert ended_well(process)
    return count


# --- what a run is --------------------------------------------------------------------------------


def result(folder):
    """A digest of everything a run leaves behind that should not depend on where it was killed."""
    digest = hashlib.sha256()
    for name in ("last.pt", "best.pt"):
        state = keep.load_state(folder / name)
        _add(digest, state)
    for name in ("model/model.safetensors", "model/config.json"):
        digest.update((folder / name).read_bytes())
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        timeless = {k: v for k, v in json.loads(line).items() if k not in TIMES}
        digest.update(json.dumps(timeless, sort_keys=True).encode())
    return digest.hexdigest()


TIMES = {"seconds", "pictures_per_s"}


def _add(digest, value):
    if isinstance(value, torch.Tensor):
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            digest.update(str(key).encode())
            _add(digest, value[key])
    elif isinstance(value, list | tuple):
        for part in value:
            _add(digest, part)
    else:
        digest.update(repr(value).encode())


def one_kill(folder, number, draw, seconds, points, expected):
    """What happened, in one line, and whether it is as it should be."""
    if number % 4 == 3:
        point = draw.randrange(points)
        struck, where = killed_inside_a_save(folder, point), f"inside a save, point {point}"
    else:
        moment = draw.uniform(0, seconds)
        struck, where = killed_at(folder, moment), f"after {moment:.3f} s"
    state, damaged = keep.load_last(folder)
    stood = "before the first save" if state is None else f"step {state['step']}"
    went_on = ended_well(child(lambda: learn(folder)))
    same = went_on and result(folder) == expected
    clean = not [*folder.glob(".*.tmp"), *folder.glob("damaged*")]
    verdict = "same bits" if same else "OTHER BITS" if went_on else "DID NOT GO ON"
    missed = "" if struck else " (it had ended)"
    print(f"{number + 1:4} killed {where}{missed}; valid: {stood}; {verdict}", flush=True)
    return same and clean and not damaged, struck, number % 4 == 3


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first kill")
    asked = parser.parse_args()
    torch.set_num_threads(1)  # a fork has only the thread that forked
    draw = random.Random(asked.seed)
    with TemporaryDirectory() as place:
        learn(Path(place) / "warm")  # what is imported late is then there, in every fork
        points = points_of_a_run(Path(place) / "counted")
        began = time.monotonic()
        assert ended_well(child(lambda: learn(Path(place) / "whole")))
        seconds, expected = time.monotonic() - began, result(Path(place) / "whole")
        print(f"a run takes {seconds:.2f} s and has {points} points inside saves", flush=True)
        outcomes = []
        for number in range(asked.first, asked.first + asked.count):
            folder = Path(place) / f"run{number}"
            outcomes.append(one_kill(folder, number, draw, seconds, points, expected))
    good, struck, inside = (sum(column) for column in zip(*outcomes, strict=True))
    summary = {"kills": asked.count, "struck": struck, "inside": inside, "same": good}
    print(json.dumps(summary))
    return 0 if good == asked.count else 1


if __name__ == "__main__":
    sys.exit(main())
