r"""# Progress: what runs, what is done, what failed, how long it will take

One line per running job, one for the study. What a run has seen is read from its own record
(`metrics.jsonl`), wherever it runs; the time left follows from the pictures still to be seen and
the speed so far.
"""

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rtdetr_lab.ablations.executors import Outcome
from rtdetr_lab.ablations.job import Job
from rtdetr_lab.ablations.journal import Journal, Line
from rtdetr_lab.ablations.study import Watch

EVERY = 2.0
"""Seconds between looks at the records."""


class ProgressBars(Watch):
    """Shows a study on a terminal; without one, a line when a run begins or ends."""

    def __init__(self, bars: Any, pictures: int, runs: Path, whole: Any) -> None:
        self.bars, self.pictures, self.runs, self.whole = bars, pictures, runs, whole
        self.running: dict[str, tuple[Job, Any]] = {}
        self.failed = 0
        self.finished = 0

    def started(self, job: Job) -> None:
        task = self.bars.add_task(job.key, total=job.setup.recipe.num_pictures)
        self.running[job.key] = (job, task)
        if not self.bars.console.is_terminal:
            self.bars.console.print(f"{job.key} begins ({job.fingerprint})")

    def ended(self, outcome: Outcome) -> None:
        _, task = self.running.pop(outcome.job.key)
        self.bars.remove_task(task)
        self.finished += 1
        if outcome.error:
            self.failed += 1
            self.bars.console.print(f"[red]{outcome.job.key} failed[/]: {_last(outcome.error)}")
        else:
            assert outcome.row is not None
            scores = outcome.row["scores"].get("") or next(iter(outcome.row["scores"].values()))
            seconds = outcome.row["cost"]["whole_s"]
            self.bars.console.print(f"{outcome.job.key}: AP {scores['AP']:.3f}, {seconds:.0f} s")
        words = f"study ({self.failed} failed)" if self.failed else "study"
        self.bars.update(self.whole, description=words)
        self.look()

    def look(self) -> None:
        """Move the bars to what the records say."""
        seen = 0
        for job, task in list(self.running.values()):
            pictures = _seen(self.runs / job.fingerprint / "metrics.jsonl")
            self.bars.update(task, completed=pictures)
            seen += min(pictures, self.pictures)
        self.bars.update(self.whole, completed=self.finished * self.pictures + seen)


@contextmanager
def show_progress(plan: Line, journal: Journal) -> Iterator[ProgressBars]:
    """For `Study.run(watch=show_progress)`: bars on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    total = len(plan["variants"]) * len(plan["seeds"])
    done = {(r["variant"], r["seed"]) for r in journal.of_kind("row") if _belongs(r, plan)}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} pictures"),
        TimeRemainingColumn(),
    )
    console = Console(file=sys.stderr, highlight=False)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        todo = (total - len(done)) * plan["pictures"]
        whole = bars.add_task("study", total=todo)
        watching = ProgressBars(bars, plan["pictures"], journal.path.parent.parent / "runs", whole)
        over = threading.Event()
        looker = threading.Thread(target=_keep_looking, args=(watching, over), daemon=True)
        if console.is_terminal:
            looker.start()
        try:
            yield watching
        finally:
            over.set()


def _keep_looking(watching: ProgressBars, over: threading.Event) -> None:
    while not over.wait(EVERY):
        watching.look()


def _belongs(row: Line, plan: Line) -> bool:
    return row["run"] in plan["runs"].get(row["variant"], ())


def _seen(path: Path) -> int:
    """Pictures in the last whole line of a record."""
    try:
        lines = path.read_text(encoding="utf8").splitlines()
        return int(json.loads(lines[-1])["pictures"]) if lines else 0
    except (OSError, ValueError, KeyError, IndexError):
        return 0


def _last(error: str) -> str:
    lines = [line for line in error.strip().splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"


def estimate(plan: Line, workers: int = 1) -> str:
    """Hours and minutes the plan takes, from the measured steps."""
    per_seed = sum(v["s_per_picture"] for v in plan["variants"]) * plan["pictures"]
    seconds = per_seed * len(plan["seeds"]) / workers
    if seconds >= 86400:
        return f"{seconds / 3600:.0f} h"
    return time.strftime("%H h %M min", time.gmtime(seconds))
