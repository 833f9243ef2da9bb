r"""# Folder: one folder per run, and what `run.json` contains

`enter` runs before the first step. It refuses another model, recipe or data set, checks that the
disk has enough room, and writes `run.json` or adds a session to it. A fault that would end the run
after an hour should end it now.

| in `run.json`                      | what it is                                           |
|------------------------------------|------------------------------------------------------|
| `model`, `recipe`                  | the complete configuration                           |
| `metadata`, `names`, `category_ids` | of the data                                         |
| `num_data`, `fingerprint`          | of the data (`fingerprint.py`)                       |
| `num_parameters`, `num_frozen`     | parameters that learn, and that do not               |
| `sessions`                         | one per start: date, step, command line, environment |
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from torch import Tensor

from rtdetr_lab.config import require
from rtdetr_lab.config_json import to_dict
from rtdetr_lab.data.batch import Dataset
from rtdetr_lab.errors import TrainingError
from rtdetr_lab.model import Metadata, declared
from rtdetr_lab.structures.environment import environment
from rtdetr_lab.training import state as keep
from rtdetr_lab.training.fingerprint import check_same_data, fingerprint
from rtdetr_lab.training.recipe import MAY_CHANGE
from rtdetr_lab.training.trainer import Trainer
from rtdetr_lab.writing import remove_left_overs, write_text


def saved_state(folder: Path | None) -> dict[str, Any] | None:
    """Return the state to resume from, or None. Damage is reported on stderr."""
    if folder is None:
        return None
    remove_left_overs(folder)
    state, damaged = keep.load_last(folder)
    for error in damaged:
        print(f"{error} Resuming from the save before it.", file=sys.stderr)
    _, damaged_best = keep.load_or_set_aside(folder / "best.pt", "damaged_best.pt")
    if damaged_best and state:
        print(f"{damaged_best} The next validation counts as the best.", file=sys.stderr)
        state["best"] = float("-inf")
    return state


def enter(
    folder: Path, trainer: Trainer, data: Dataset, saved: dict[str, Any] | None
) -> dict[str, Any]:
    """Check that this run may begin or resume in `folder`; return what each save must contain about
    the data.

    Raises `TrainingError` before the first step.
    """
    known = remembered(data, declared(trainer.model).metadata)
    if saved:
        check_same_run(folder, saved, trainer, known)
    check_room(folder, trainer)
    path = folder / "run.json"
    step = saved["step"] if saved else 0
    sessions = _sessions(path) if saved else []
    session = {"step": step, "device": str(trainer.device), **environment()}
    tree = description(trainer, known) | {"sessions": [*sessions, session]}
    write_text(path, json.dumps(tree, indent=2), TrainingError)
    return known


def remembered(data: Dataset, metadata: Metadata) -> dict[str, Any]:
    """Return what a checkpoint stores about the data set."""
    return {
        "metadata": metadata.to_dict(),
        "num_data": len(data),
        "names": list(data.names),
        "category_ids": list(data.category_ids),
        "fingerprint": fingerprint(data) if len(data) else {},
    }


def check_same_run(
    folder: Path, saved: dict[str, Any], trainer: Trainer, known: dict[str, Any]
) -> None:
    """Raise `TrainingError` for another model, recipe or data set: a folder holds one run."""
    mine = {"cfg": to_dict(trainer.model.cfg), "config": to_dict(trainer.config)}
    for part, now in mine.items():
        then = json.loads(saved[part])
        other = sorted(k for k in now.keys() | then.keys() if now.get(k) != then.get(k))
        other = [name for name in other if part == "cfg" or name not in MAY_CHANGE]
        if other:
            changes = (f"{n} ({_spelled(then.get(n))}, now {_spelled(now.get(n))})" for n in other)
            what = f"holds a run with another {', '.join(changes)}"
            raise TrainingError(str(folder), what, "give another folder, or the same settings")
    _check_same_parameters(folder, saved, trainer)
    what = f"holds a run on {saved['num_data']} pictures, these are {known['num_data']}"
    remedy = "give another folder, or the same data"
    require(saved["num_data"] == known["num_data"], folder, what, remedy, TrainingError)
    check_same_data(folder, saved.get("fingerprint") or known["fingerprint"], known["fingerprint"])


def _spelled(value: Any) -> str:
    """Write a value of a JSON tree the way a reader would."""
    if not isinstance(value, dict) or "class" not in value:
        return json.dumps(value)
    inner = ", ".join(f"{n}={_spelled(v)}" for n, v in value.items() if n != "class")
    return f"{value['class'].rpartition(':')[2]}({inner})"


def _check_same_parameters(folder: Path, saved: dict[str, Any], trainer: Trainer) -> None:
    then = {n for group in saved["optimizer"]["param_groups"] for n in group["names"]}
    now = {n for group in trainer.optimizer.param_groups for n in group["names"]}
    if other := sorted(then ^ now):
        which = "learns" if other[0] in now else "is frozen"
        what = f"holds a run in which other parameters learn: now {other[0]} {which}"
        what += f" (and {len(other) - 1} more differ)" if len(other) > 1 else ""
        raise TrainingError(str(folder), what, "freeze the same modules, or give another folder")


SAVES = 4
"""The most states at one time: last, previous, best, and the one that is being written."""


def check_room(folder: Path, trainer: Trainer) -> None:
    """Raise `TrainingError` if the disk has less room than the run will need."""
    model = _bytes(trainer.model.state_dict().values())
    moments = 2 * _bytes(trainer.parameters)
    there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    needed = SAVES * (2 * model + moments) + 2 * model - there
    free = shutil.disk_usage(folder).free
    what = f"needs {needed / 1e6:.1f} MB for checkpoints, {free / 1e6:.1f} MB are free"
    remedy = "make room, or give a folder on another disk"
    require(free >= needed, folder, what, remedy, TrainingError)


def _bytes(tensors: Any) -> int:
    found: list[Tensor] = list(tensors)
    return sum(t.numel() * t.element_size() for t in found)


def description(trainer: Trainer, known: dict[str, Any]) -> dict[str, Any]:
    """Return what a reader wants to find out about a run in a year."""
    frozen = (p for p in trainer.model.parameters() if not p.requires_grad)
    return {
        "model": to_dict(trainer.model.cfg),
        "recipe": to_dict(trainer.config),
        **known,
        "num_parameters": sum(p.numel() for p in trainer.parameters),
        "num_frozen": sum(p.numel() for p in frozen),
    }


def _sessions(path: Path) -> list[Any]:
    try:
        found = json.loads(path.read_text(encoding="utf8")).get("sessions", [])
    except (OSError, ValueError, AttributeError):
        return []  # only people read it: a run does not need it
    return found if isinstance(found, list) else []
