r"""# Apart: half of the classes in a process of its own

The library computes on one core, and classes have nothing to do with each other. So of a large
table every second group of classes goes to a second process, as files in a temporary folder:

    python -m rtdetr_lab.evaluation.other_half FOLDER   # given.json, table.npz → N.npz

It is started as a program, not forked: a fork would inherit torch's threads, and `multiprocessing`
would run a reader's script a second time.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from rtdetr_lab.evaluation.table import Table

Curves = tuple[np.ndarray, np.ndarray]
Compute = Callable[[Mapping[str, Any], Table, Sequence[int]], Curves]

PROGRAM = "rtdetr_lab.evaluation.other_half"

WORTH_IT = 400_000
"""Detections from which the start of a process (about 3 s) pays."""


def side_by_side(
    ground_truth: Mapping[str, Any], table: Table, groups: Sequence[list[int]], compute: Compute
) -> list[Curves]:
    """`compute` for every group of category ids, in their order, on two cores."""
    theirs = [i for i in range(len(groups)) if i % 2]
    found: dict[int, Curves] = {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        wanted = [category for i in theirs for category in groups[i]]
        _write(folder, ground_truth, table, [groups[i] for i in theirs], wanted)
        package = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        command = [sys.executable, "-m", PROGRAM, name]
        environment = {**os.environ, "PYTHONPATH": path}
        helper = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        for i in range(0, len(groups), 2):
            found[i] = compute(ground_truth, table, groups[i])
        done = helper.wait() == 0
        for place, i in enumerate(theirs):
            # What it could not do is done here: slower, and just as right.
            read = _read(folder / f"{place}.npz") if done else None
            found[i] = read or compute(ground_truth, table, groups[i])
    return [found[i] for i in range(len(groups))]


def _write(
    folder: Path,
    ground_truth: Mapping[str, Any],
    table: Table,
    groups: list[list[int]],
    wanted: list[int],
) -> None:
    given = {"ground_truth": dict(ground_truth), "groups": groups}
    (folder / "given.json").write_text(json.dumps(given), encoding="utf8")
    own = table.at(np.isin(table.category_ids, wanted))
    np.savez(folder / "table.npz", **vars(own))


def _read(path: Path) -> Curves | None:
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["precision"], arrays["recall"]
