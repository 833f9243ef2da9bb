"""Kill a training run at random moments, let it go on, and compare the end with an untouched run.

    python tests/programs/kill_runs.py --count 200 --seed 1

A run is a process of its own (a fork: torch is loaded once), killed by SIGKILL. Of every four
moments three are drawn uniformly over the time a run takes, and one over the points *inside* its
saves: half the bytes written, before and after each flush and rename (`kill_tools.py`). Prints a
line per kill, and at the end what was seen; exit code 1 if a run could not go on, or ended with
other bits.
"""

import hashlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # wherever this is started from

import torch
from kill_tools import campaign, child, ended_well
from training_toy import Toy, ToyData

from rtdetr_lab import writing
from rtdetr_lab.checkpoints.files import HEADER, read_weights
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


def install(points):
    """Into the one module that writes what a run continues from."""
    writing.os, writing.open = points.os(), points.open


# --- what a run is --------------------------------------------------------------------------------


def result(folder):
    """A digest of everything a run leaves behind that should not depend on where it was killed."""
    digest = hashlib.sha256()
    for name in ("last.pt", "best.pt"):
        state = keep.load_state(folder / name)
        _add(digest, state)
    # Not its bytes: safetensors writes the header in any order, and it may say what was replaced.
    model = read_weights(folder / "model" / "model.safetensors")
    _add(digest, [model.tensors, model.header[HEADER]])
    digest.update((folder / "model" / "config.json").read_bytes())
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


def judge(folder, expected):
    """Whether it goes on from something valid to the same bits, and leaves nothing lying about."""
    state, damaged = keep.load_last(folder)
    stood = "before the first save" if state is None else f"step {state['step']}"
    went_on = ended_well(child(lambda: learn(folder)))
    same = went_on and result(folder) == expected
    clean = not [*folder.glob(".*.tmp"), *folder.glob("damaged*")]
    verdict = "same bits" if same else "OTHER BITS" if went_on else "DID NOT GO ON"
    return same and clean and not damaged, f"valid: {stood}; {verdict}"


if __name__ == "__main__":
    sys.exit(campaign(__doc__, 20, learn, install, result, judge))
