r"""# Folder: one folder per run, and what `run.json` contains

`enter` runs before the first step. It refuses another model, recipe or data set, checks that the
disk has enough room, and writes `run.json` or adds a session to it. A fault that would end the run
after an hour should end it now.

| in `run.json`                      | what it is                                           |
|------------------------------------|------------------------------------------------------|
| `model`, `recipe`                  | the complete configuration                           |
| `metadata`, `names`, `category_ids` | of the data                                         |
| `num_data`, `fingerprint`          | of the data, see below                               |
| `num_parameters`, `num_frozen`     | parameters that learn, and that do not               |
| `sessions`                         | one per start: date, step, command line, environment |

## Is this still the data that the run began with?

A run that changes its data in the middle gives a result that has no explanation. So a run folder
stores a fingerprint of its data and refuses other data. A fingerprint maps names to short values,
from the outermost wrapper to the pictures. So an error can name what changed, instead of two
digests that differ.

    {"Mapped.transform": "Resize(size=(256, 256))", "CocoDataset.pictures": "205",
     "CocoDataset.annotations": "sha256 0f3c…", "CocoDataset.files": "sha256 91ab…"}

It is computed before every start, so it must be cheap. In a COCO folder it reads the annotation
file, but of each picture only the size in bytes. For drawn data it uses the parameters of the
drawing. The place of the folder is not part of it: a run may move to another machine.
"""

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from rtdetr_lab.config import require
from rtdetr_lab.config_json import to_dict
from rtdetr_lab.data.batch import Dataset
from rtdetr_lab.data.coco import CocoDataset
from rtdetr_lab.errors import TrainingError
from rtdetr_lab.model import Metadata, declared
from rtdetr_lab.structures.environment import environment
from rtdetr_lab.training import state as keep
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
    return sum(tensor.nbytes for tensor in tensors)


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


Fingerprint = dict[str, str]


def fingerprint(data: Dataset) -> Fingerprint:
    """Return the fingerprint of `data`. For your own data set that is no dataclass, it has the
    class, the length and the class names."""
    return dict(_parts(data))


def check_same_data(where: Path, then: Fingerprint, now: Fingerprint) -> None:
    """Raise `TrainingError` that lists every changed part with its old and new value."""
    other = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    changes = (f"{n} was {then.get(n, 'absent')}, is {now.get(n, 'absent')}" for n in other)
    what = f"holds a run on other data: {'; '.join(changes)}"
    require(not other, where, what, "give another folder, or the same data", TrainingError)


def _parts(data: Any) -> Iterator[tuple[str, str]]:
    kind = type(data).__name__
    if isinstance(data, CocoDataset):
        yield from ((f"{kind}.{name}", value) for name, value in _coco(data))
        return
    if not is_dataclass(data):
        yield f"{kind}.pictures", str(len(data))
        yield f"{kind}.classes", _short(repr((tuple(data.names), tuple(data.category_ids))))
        return
    for field in fields(data):
        value = getattr(data, field.name)
        if isinstance(value, Dataset):
            yield from _parts(value)
        else:
            yield f"{kind}.{field.name}", _short(repr(value))


def _coco(data: CocoDataset) -> Iterator[tuple[str, str]]:
    files = data.annotations.files
    yield "pictures", str(len(data))
    yield "annotations", _digest(b"".join(path.read_bytes() for path in files))
    found = (data.places.find(p) for p in data.annotations.pictures)
    sizes = sorted((f.name, f.stat().st_size) for f in found if isinstance(f, Path))
    yield "files", _digest(repr(sizes).encode())
    yield "with_masks", str(data.with_masks)
    if data.limits.bits:  # older runs do not have this key
        yield "bits", str(data.limits.bits)


def _digest(content: bytes) -> str:
    return f"sha256 {hashlib.sha256(content).hexdigest()[:16]}"


def _short(text: str) -> str:
    """Shorten a value for a message, and remove memory addresses: they change from run to run."""
    text = re.sub(r" at 0x[0-9a-f]+", "", text)
    return text if len(text) <= 80 else f"{text[:40]}… {_digest(text.encode())}"
