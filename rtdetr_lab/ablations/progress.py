r"""# Progress: running, finished and failed jobs, and the time left

There is one line per running job and one for the study. The number of pictures that a run has seen
comes from its log (`metrics.jsonl`), on any machine. The time left follows from the remaining
pictures and the speed so far.
"""

import json
import sys
import time
from pathlib import Path

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from rtdetr_lab.ablations.executors import Outcome
from rtdetr_lab.ablations.job import Job
from rtdetr_lab.ablations.journal import Journal, Line
from rtdetr_lab.ablations.plan import belongs
from rtdetr_lab.ablations.study import Watch
from rtdetr_lab.writing import printable

LOOKS_PER_SECOND = 0.5
"""Rate at which the logs are read and the bars are drawn."""


class ProgressBars(Progress, Watch):
    """Bars of a study on a terminal; without one, a line when a run begins or ends."""

    def __init__(self, pictures: int, todo: int, runs: Path) -> None:
        console = Console(file=sys.stderr, highlight=False)
        super().__init__(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} pictures"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            refresh_per_second=LOOKS_PER_SECOND,
        )
        self.pictures, self.runs = pictures, runs
        self.running: dict[str, tuple[Job, TaskID]] = {}
        self.failed = self.gone = 0
        self.whole = self.add_task("study", total=todo * pictures)

    def started(self, job: Job) -> None:
        task = self.add_task(printable(job.key), total=job.setup.recipe.num_pictures)
        self.running[job.key] = (job, task)
        if self.disable:
            self._tell(f"{job.key} begins ({job.fingerprint})")

    def ended(self, outcome: Outcome) -> None:
        _, task = self.running.pop(outcome.job.key)
        self.remove_task(task)
        self.gone += 1
        if outcome.row is None:
            self.failed += 1
            self._tell(f"{outcome.job.key} failed: {_last(outcome.error or '')}", "red")
        else:
            scores = outcome.row["scores"].get("") or next(iter(outcome.row["scores"].values()))
            seconds = outcome.row["cost"]["whole_s"]
            self._tell(f"{outcome.job.key}: AP {scores['AP']:.3f}, {seconds:.0f} s")
        words = f"study ({self.failed} failed)" if self.failed else "study"
        self.update(self.whole, description=words)

    def _tell(self, text: str, style: str | None = None) -> None:
        self.console.print(printable(text), style=style, markup=False)

    def get_renderable(self) -> RenderableType:
        """Return the bars, updated from the logs."""
        if self.tasks:  # empty while `__init__` runs
            seen = self.gone * self.pictures
            for job, task in list(self.running.values()):
                pictures = _seen(self.runs / job.fingerprint / "metrics.jsonl")
                self.update(task, completed=pictures)
                seen += min(pictures, self.pictures)
            self.update(self.whole, completed=seen)
        return super().get_renderable()


def show_progress(plan: Line, journal: Journal) -> ProgressBars:
    """Show bars on stderr; use it as `Study.run(watch=show_progress)`."""
    total = sum(map(len, plan["runs"].values()))
    done = {(r["variant"], r["seed"]) for r in journal.of_kind("row") if belongs(r, plan)}
    return ProgressBars(plan["pictures"], total - len(done), journal.path.parent.parent / "runs")


def _seen(path: Path) -> int:
    """Read the number of pictures from the last whole line of a log."""
    try:
        lines = path.read_text(encoding="utf8").splitlines()
        return int(json.loads(lines[-1])["pictures"]) if lines else 0
    except (OSError, ValueError, KeyError, IndexError):
        return 0


def _last(error: str) -> str:
    return (error.strip() or "no error message").splitlines()[-1]


def estimate(plan: Line, workers: int = 1) -> str:
    """Estimate the hours and minutes of a plan from its seconds per picture."""
    per_seed = sum(plan["s_per_picture"].values()) * plan["pictures"]
    seconds = per_seed * len(plan["seeds"]) / workers
    if seconds >= 86400:
        return f"{seconds / 3600:.0f} h"
    return time.strftime("%H h %M min", time.gmtime(seconds))
