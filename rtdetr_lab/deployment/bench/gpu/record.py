"""# Record: what is known about every row, in one JSON file per section

| `state` | meaning | tried again |
|---|---|---|
| `running` | its process was killed | by the next command |
| `done` | `found` holds the result | never |
| `cut` | the time was up; `found` holds what there is | by the next command |
| `failed` | `why` holds the traceback | by the next command: the code may be better |
| `skipped` | `why` says what is missing here | by the next command: it may be there |

A `Task` is what one call of the command measures, and on what.
"""

import ctypes
import json
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from rtdetr_lab.config import require
from rtdetr_lab.deployment.bench.report import machine
from rtdetr_lab.errors import DataError
from rtdetr_lab.notation import Size
from rtdetr_lab.writing import write_text

SECTIONS = ("kernels", "speed", "steps", "notebook", "learning")
"""Names of the files of a folder, in the order in which they are filled."""


class Skipped(Exception):
    """This machine cannot run a row; the message says why."""


class Cut(Exception):
    """The time was up before a row was finished. `found` is what there is."""

    def __init__(self, found: dict[str, Any]) -> None:
        super().__init__("the time was up")
        self.found = found


@dataclass(frozen=True)
class Record:
    """Rows of one section. Every change is on disk before the next row begins."""

    out: Path
    section: str

    @property
    def path(self) -> Path:
        """JSON file of this section."""
        return self.out / f"{self.section}.json"

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """Rows by name. Raises `DataError` for a file that is not a record."""
        if not self.path.exists():
            return {}
        try:
            found: dict[str, dict[str, Any]] = json.loads(self.path.read_text(encoding="utf8"))
            whole = all(type(row["run"]) is int and row["state"] for row in found.values())
        except (ValueError, TypeError, KeyError, AttributeError):
            whole = False
        remedy = "delete the file: its rows are then measured again"
        what = "is not a record of this command"
        require(whole, self.path, what, remedy, DataError)
        return found

    def put(self, name: str, **values: Any) -> None:
        """Replace a row; it names the machine and its card."""
        now = {**values, "machine": here()}
        write_text(self.path, json.dumps(self.rows | {name: now}, indent=1) + "\n")

    def is_over(self, name: str, run: int) -> bool:
        """Return True for a row that is done, or that this run has tried."""
        row = self.rows.get(name, {})
        over = row.get("run") == run and row["state"] != "running"
        return over or row.get("state") == "done"


@lru_cache(maxsize=1)
def here() -> dict[str, Any]:
    """Describe this machine, once per process."""
    return machine()


def all_rows(out: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Return section → name → row."""
    return {section: Record(out, section).rows for section in SECTIONS}


def runs_so_far(out: Path) -> int:
    """Return the number of the last run that left a row in a folder."""
    rows = [row for section in all_rows(out).values() for row in section.values()]
    return max((row["run"] for row in rows), default=0)


RUNS = 3
"""Runs that the whole measurement is planned for."""

Row = Callable[[], dict[str, Any]]
"""Function that measures a row. It may raise `Skipped` or `Cut`."""


@dataclass(frozen=True)
class Task:
    """One run into a folder. `tiny` tests the command: small models, one round."""

    out: Path
    minutes: float
    run: int = 1
    until: float = field(default=0.0)
    tiny: bool = False

    @property
    def left(self) -> float:
        """Seconds that are left of this run."""
        return self.until - time.time()

    @property
    def left_in_all(self) -> float:
        """Seconds that are left of this run and of those after it."""
        return self.left + 60 * self.minutes * max(0, RUNS - self.run)

    @property
    def device(self) -> str:
        """CUDA where there is a card."""
        return "cuda" if torch.cuda.is_available() else "cpu"

    @property
    def size(self) -> Size:
        """Height and width of the pictures."""
        return (96, 96) if self.tiny else (640, 640)

    @property
    def rounds(self) -> int:
        """Interleaved rounds of every comparison."""
        return 1 if self.tiny else 20


def end_with_parent() -> None:
    """Ask the system to kill this process when its parent ends (Linux; called between fork and
    exec)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
