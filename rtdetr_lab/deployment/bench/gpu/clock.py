"""# Clock: rows until the time is up, in a process that may break

A kernel that reads outside its memory breaks its process: CUDA refuses everything after it. So the
rows run in a process of their own, and a new one goes on after each failure. A row that takes too
long ends the process, with the lines that it was executing. The budget ends it in any case.
"""

import faulthandler
import gc
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from tempfile import TemporaryFile

import torch

from rtdetr_lab.deployment.bench.gpu import kernels, learning, speed
from rtdetr_lab.deployment.bench.gpu import record as records
from rtdetr_lab.deployment.bench.gpu.record import Record, Row, Task

AGAIN = 75
"""Exit code of a process after a row that failed: another one goes on."""
LEAST = 10.0
"""Seconds below which no row begins."""
LONGEST = 240.0
"""Seconds that a row may take, except one of training, which keeps what it has."""


@dataclass(frozen=True)
class Section:
    """Rows of one file, and the seconds that one of them may take."""

    name: str
    rows: Callable[[Task], dict[str, Row]]
    longest: float = LONGEST


SECTIONS = (
    Section("kernels", kernels.rows),
    Section("speed", speed.rows),
    Section("steps", speed.step_rows),
    Section("notebook", learning.notebook_rows),
    Section("learning", learning.rows, float("inf")),
)


def measure(task: Task, sections: tuple[Section, ...] = SECTIONS) -> int:
    """Run all rows that are not over; return the exit code. Nothing runs after `task.until`."""
    for section in sections:
        record = Record(task.out, section.name)
        for name, row in section.rows(task).items():
            if record.is_over(name, task.run):
                continue
            if task.left < LEAST:
                return 0
            print(f"{section.name}: {name}", flush=True)
            if not attempt(record, name, row, task, section.longest):
                return AGAIN
    return 0


def attempt(record: Record, name: str, row: Row, task: Task, longest: float) -> bool:
    """Run a row and record what came of it; return False if the process may be broken."""
    record.put(name, state="running", run=task.run)
    began = time.monotonic()
    limit = max(1.0, min(longest, task.left))
    faulthandler.dump_traceback_later(limit, exit=True, file=sys.__stderr__ or sys.stderr)
    known: dict[str, object] = {}
    try:
        known = {"state": "done", "found": row()}
    except records.Skipped as error:
        known = {"state": "skipped", "why": str(error)}
    except records.Cut as error:
        known = {"state": "cut", "found": error.found}
    except Exception:
        known = {"state": "failed", "why": traceback.format_exc()}
    finally:
        faulthandler.cancel_dump_traceback_later()
    seconds = round(time.monotonic() - began, 1)
    record.put(name, run=task.run, seconds=seconds, **known)
    forget()
    return known["state"] != "failed"


def forget() -> None:
    """Free the memory of a row: models, what was compiled, graphs."""
    if "torch._dynamo" in sys.modules:  # it takes seconds to import
        torch.compiler.reset()
    gc.collect()
    torch.cuda.empty_cache()


def supervise(task: Task, command: list[str]) -> int:
    """Start `command` until it has nothing left to do; record a row that broke it."""
    while task.left >= LEAST:
        with TemporaryFile("w+", encoding="utf8", errors="replace") as said:
            line = [sys.executable, *command, "--until", str(task.until), "--run", str(task.run)]
            code = subprocess.run(line, stderr=said, preexec_fn=records.end_with_parent).returncode
            said.seek(0)
            heard = said.read()[-4000:]
        broken = settle(task, code, heard)
        if code not in (0, AGAIN) and not broken:
            print(heard, file=sys.stderr)
            return 1
        if code == 0:
            break
    return 0


def settle(task: Task, code: int, heard: str) -> bool:
    """Record the row that ran when its process ended; return True if there was one."""
    for section, rows in records.all_rows(task.out).items():
        for name, row in rows.items():
            if row["state"] == "running" and row["run"] == task.run:
                why = f"its process ended with {code}\n{heard}"
                known = {"state": "failed", "why": why} if task.left > 1 else {"state": "cut"}
                Record(task.out, section).put(name, run=task.run, **known)
                return True
    return False
