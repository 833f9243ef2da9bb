r"""# State: what a run saves, so that it resumes as if it had never stopped

A checkpoint appears whole or not at all (`writing.py`), and holds its own checksum
(`checkpoints/run_state.py`). The save before it stays as `previous.pt`. If the disk damages the
last save, the run resumes from the one before, and reports it. A damaged `best.pt` is reported and
set aside, and the next validation writes a new one.

| in a run folder              | what it is                                               |
|------------------------------|----------------------------------------------------------|
| `run.json`                   | model, recipe and environment, for people                |
| `metrics.jsonl`              | the record: one line per logged step and per validation  |
| `last.pt`, `previous.pt`     | the complete state, to resume                            |
| `best.pt`                    | the complete state with the highest validation AP        |
| `model/`                     | the averaged model of the best validation, to load       |
| `curves.png`                 | the record as curves                                     |
| `damaged.pt`, `damaged_best.pt` | a checkpoint with a wrong checksum, set aside         |
| `lock`                       | held by the process that trains here, free when it dies  |
"""

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rtdetr_lab.checkpoints.run_state import packed, read_state
from rtdetr_lab.errors import CheckpointError, TrainingError
from rtdetr_lab.writing import write_bytes


def rng_state() -> dict[str, Any]:
    """Return the random states of python, numpy and torch, as plain values and tensors."""
    version, words, gauss = random.getstate()
    kind, keys, *others = np.random.get_state()
    return {
        "python": [version, list(words), gauss],
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *others],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Go back to what `rng_state` returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def seed_everything(seed: int) -> None:
    """Seed the random numbers of python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def save_state(path: Path, state: dict[str, Any], keep_old_as: Path | None = None) -> None:
    """Write a checkpoint."""
    write_bytes(path, *packed(state), error=TrainingError, keep_old_as=keep_old_as)


def load_state(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU. Raises `TrainingError` if it is not what was saved."""
    try:
        return read_state(Path(path))
    except CheckpointError as error:
        raise TrainingError(error.where, error.what, error.remedy) from error


def save_last(folder: Path, state: dict[str, Any]) -> None:
    """Write `last.pt`, and keep the save before it as `previous.pt`."""
    save_state(folder / "last.pt", state, keep_old_as=folder / "previous.pt")


def load_last(folder: Path) -> tuple[dict[str, Any] | None, list[TrainingError]]:
    """Return the newest valid state of a run folder, and the errors of newer ones.

    The state is None if none was saved. Raises `TrainingError` if there are checkpoints and all are
    damaged.
    """
    damaged: list[TrainingError] = []
    for name in ("last.pt", "previous.pt"):
        # A damaged file must move, or the next save would keep it as `previous.pt`.
        state, error = load_or_set_aside(folder / name, "damaged.pt")
        if state:
            return state, damaged
        damaged += [error] if error else []
    if damaged:
        raise damaged[0]
    return None, damaged


def load_or_set_aside(path: Path, aside: str) -> tuple[dict[str, Any] | None, TrainingError | None]:
    """Return a state, or None if there is none. If it is damaged, return the error, and rename the
    file to `aside`."""
    if not path.exists():
        return None, None
    try:
        return load_state(path), None
    except TrainingError as error:
        os.replace(path, path.with_name(aside))
        return None, error
