"""# Folder: one run, one folder, and what stands in `run.json`"""

import json
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from rtdetr_lab.config import to_dict
from rtdetr_lab.data.batch import Dataset
from rtdetr_lab.errors import TrainingError
from rtdetr_lab.training import state as keep
from rtdetr_lab.training.recipe import MAY_CHANGE
from rtdetr_lab.training.trainer import Trainer


def saved_state(folder: Path | None) -> dict[str, Any] | None:
    """The state to go on from, or None; damage is said on stderr."""
    state, damaged = keep.load_last(folder) if folder else (None, [])
    for error in damaged:
        print(f"{error} Going on from the save before it.", file=sys.stderr)
    return state


def check_same_run(folder: Path, saved: dict[str, Any], trainer: Trainer, data: Dataset) -> None:
    """A folder is one run: another model, recipe or data set must not be mixed into it."""
    mine = {"cfg": to_dict(trainer.model.cfg), "config": to_dict(trainer.config)}
    for part, now in mine.items():
        then = json.loads(saved[part])
        other = sorted(k for k in now.keys() | then.keys() if now.get(k) != then.get(k))
        other = [name for name in other if part == "cfg" or name not in MAY_CHANGE]
        if other:
            what = f"holds a run with another {', '.join(other)}"
            raise TrainingError(str(folder), what, "give another folder, or the same settings")
    if saved["num_data"] != len(data):
        what = f"holds a run on {saved['num_data']} pictures, these are {len(data)}"
        raise TrainingError(str(folder), what, "give another folder, or the same data")


def description(trainer: Trainer, data: Dataset) -> str:
    """What a reader wants to know of a run in a year."""
    return json.dumps(
        {
            "model": to_dict(trainer.model.cfg),
            "recipe": to_dict(trainer.config),
            "num_data": len(data),
            "names": list(data.names),
            "category_ids": list(data.category_ids),
            "num_parameters": sum(p.numel() for p in trainer.parameters),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "device": str(trainer.device),
            "threads": torch.get_num_threads(),
        },
        indent=2,
    )
