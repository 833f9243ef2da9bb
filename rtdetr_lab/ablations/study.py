r"""# Study: a base, changes of it, and several seeds

    study = Study(rtdetr_nano(10), [no_aifi, two_layers], seeds=(0, 1, 2), budget=6400)
    study.run()                      # in this process; LocalProcesses(), Submitit(…) elsewhere
    print(study.report().markdown)

Every (variant, seed) has one run folder, and the study has a journal (`journal.py`). If a study is
stopped at any moment, the same call resumes it. A variant that fails is reported and does not stop
the others. If code, pictures or measures change, the same call makes a new plan and runs what it
needs: no row of the old plan is shown. All runs see the same number of pictures, in an order that
depends only on the seed: **runs with the same seed are a pair**, and differences are taken within
pairs.

The budget is a number of pictures per run, or a time for the whole study ("20m"). For a time, we
measure a few steps of every variant once, and compute the number from them.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rtdetr_lab.ablations import plan as planning
from rtdetr_lab.ablations.bases import short_recipe, small_world
from rtdetr_lab.ablations.executors import Executor, InProcess, Outcome
from rtdetr_lab.ablations.job import Job
from rtdetr_lab.ablations.journal import Journal, Line
from rtdetr_lab.ablations.measure import latencies, rough_seconds
from rtdetr_lab.ablations.report import Report, report_of
from rtdetr_lab.ablations.task import AsTrained, Measure, Task, Views, codes, content_of
from rtdetr_lab.ablations.variant import Change, Setup, Variant, variant, with_seed
from rtdetr_lab.config import require
from rtdetr_lab.data.batch import Dataset
from rtdetr_lab.errors import TrainingError
from rtdetr_lab.training.callbacks import loggers
from rtdetr_lab.writing import locked


class Watch:
    """Observer of a running study. This one does nothing; `progress.py` shows bars."""

    def started(self, job: Job) -> None:
        """A run begins."""

    def ended(self, outcome: Outcome) -> None:
        """A run is done, or failed."""


@dataclass(frozen=True)
class Study:
    """Variants of one base, with several seeds.

    `base` is a model's configuration, or a `Setup` for another recipe; `data` is (train, val).
    `views` evaluates a trained model in several ways, each as a row; `measures` adds columns beside
    AP. The variant that changes nothing is the reference; if there is none, the study adds it as
    `base`. `loggers` names other programs that get the record of every run: tensorboard, wandb.
    """

    base: Any
    variants: Sequence[Change | Variant]
    seeds: Sequence[int] = (0, 1, 2)
    budget: int | str = 6400
    data: tuple[Dataset, Dataset] = field(default_factory=small_world)
    name: str = "study"
    folder: Path = Path("runs/ablations")
    views: Views = field(default_factory=AsTrained)
    measures: tuple[Measure, ...] = ()
    curve_points: int = 4
    latency_rounds: int = 20
    device: str | None = None
    loggers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        inside = Path(self.name).name == self.name not in ("", "..")
        require(inside, "name", f"{self.name!r} is no name of a folder", "use letters and digits")
        names = [v.name for v in self._rows]
        twice = sorted({n for n in names if names.count(n) > 1})
        require(not twice, "variants", f"{twice} occur twice", "give each its own name")
        require(self.seeds, "seeds", "is empty", "give at least one seed; three show a spread")
        require(len(set(self.seeds)) == len(self.seeds), "seeds", "repeat", "give each seed once")
        loggers(Path(self.folder), self.loggers)  # says what is missing before anything is trained

    @cached_property
    def _setup(self) -> Setup:
        return self.base if isinstance(self.base, Setup) else Setup(self.base, short_recipe())

    @cached_property
    def _rows(self) -> tuple[Variant, ...]:
        rows = tuple(map(variant, self.variants))
        if any(row.changes_nothing(self._setup) for row in rows):
            return rows
        return (Variant("base", _unchanged, "The configuration that the variants change."), *rows)

    @property
    def reference(self) -> str:
        """Name of the variant that changes nothing; all others are compared with it."""
        return next(row.name for row in self._rows if row.changes_nothing(self._setup))

    @cached_property
    def task(self) -> Task:
        """Common part of all runs of this study, with the digests of its pictures."""
        return replace(self._task, contents=(content_of(self.data[0]), content_of(self.data[1])))

    @cached_property
    def _task(self) -> Task:
        """The task before its pictures are read."""
        train, val = self.data
        task = Task(train, val, self.views, self.measures, self.device)
        return replace(task, loggers=self.loggers)

    @property
    def home(self) -> Path:
        """Folder of the study; run folders are beside it, in `runs`."""
        return Path(self.folder) / self.name

    @property
    def journal(self) -> Journal:
        """Journal of the study, read from disk."""
        return Journal(self.home / "journal.jsonl")

    def prepared(self, num_pictures: int) -> planning.Prepared:
        """Apply all variants, for the given number of pictures per run."""
        steps = -(-num_pictures // self._setup.recipe.batch_size)
        every = max(1, steps // self.curve_points) if self.curve_points else 0
        recipe = replace(self._setup.recipe, num_pictures=num_pictures, eval_every=every)
        base = replace(self._setup, recipe=recipe)
        return planning.prepare(self._rows, base, self.reference, self._task)

    def jobs(self, num_pictures: int) -> list[Job]:
        """List all runs, seed by seed, so that a stopped study has complete pairs."""
        return self._jobs(self.prepared(num_pictures).setups)

    def _jobs(self, setups: Mapping[str, Setup]) -> list[Job]:
        code = {name: codes(setup) for name, setup in setups.items()}
        return [
            Job(name, seed, with_seed(setup, seed), self.task, code[name])
            for seed in self.seeds
            for name, setup in setups.items()
        ]

    def preview(self) -> Line:
        """Return what `run` would do, in seconds: nothing is trained, timed or read in full.

        The time per picture is a rough estimate from GFLOPs, and with a budget in time the number
        of pictures is, too.
        """
        began, timed = time.monotonic(), isinstance(self.budget, str)
        ready = self.prepared(1 if timed else int(self.budget))
        gflops = {line["name"]: line["gflops"] for line in ready.lines if "gflops" in line}
        size = self.data[1][0].image.shape[-2:]
        speed = rough_seconds(ready.setups[self.reference].cfg, gflops, size)
        batch, seeds, budget = self._setup.recipe.batch_size, list(self.seeds), str(self.budget)
        count = planning.pictures_for(budget, speed, len(seeds), batch, began) if timed else 0
        line = {"name": self.name, "variants": ready.lines, "seeds": seeds, "s_per_picture": speed}
        return {**line, "pictures": count or self.budget, "failures": dict(ready.failures)}

    def run(
        self,
        executor: Executor | None = None,
        watch: Callable[[Line, Journal], AbstractContextManager[Watch]] | None = None,
    ) -> Report:
        """Run everything that is missing, and return the report. Failed runs are tried again."""
        with locked(self.home, TrainingError):
            journal = self.journal
            ready, jobs = self._planned(journal)
            plan = journal.plan
            with watch(plan, journal) if watch else nullcontext(Watch()) as watching:
                self._finish(journal, jobs, executor or InProcess(), watching)
            if self.latency_rounds and not _timed(journal, plan):
                found = latencies(ready.setups, plan["picture_size"], self.latency_rounds)
                runs = plan["runs"]
                journal.append({"kind": "latency", "milliseconds": found, "runs": runs})
        return self.report()

    def report(self) -> Report:
        """Make the report from the journal, without training."""
        return report_of(self.journal)

    def _planned(self, journal: Journal) -> tuple[planning.Prepared, list[Job]]:
        """Prepare all runs. Append their plan to the journal if its last plan is another."""
        began, speed, pictures = time.monotonic(), None, self.budget
        asked: Line = {"name": self.name, "budget": self.budget, "seeds": list(self.seeds)}
        if isinstance(pictures, str):
            pictures = planning.pictures_of(journal.plan, asked, [row.name for row in self._rows])
        if not pictures:
            speed = planning.measured(self.prepared(1).setups, self._task)
            seeds, batch = len(self.seeds), self._setup.recipe.batch_size
            pictures = planning.pictures_for(str(self.budget), speed, seeds, batch, began)
        ready = self.prepared(pictures)
        jobs = self._jobs(ready.setups)
        line = planning.plan_line(ready, jobs, self.reference, self.task) | asked
        if not planning.is_same(line, journal.plan):
            journal.append({**line, "s_per_picture": speed} if speed else line)
        for failed in ready.failed_lines():
            if failed not in journal.lines:
                journal.append(failed)
        return ready, jobs

    def _finish(
        self, journal: Journal, jobs: Sequence[Job], executor: Executor, watch: Watch
    ) -> None:
        rows = [line for line in journal.of_kind("row") if planning.belongs(line, journal.plan)]
        done = {(row["variant"], row["run"]) for row in rows}
        missing = [job for job in jobs if (job.variant, job.fingerprint) not in done]
        runs = Path(self.folder) / "runs"
        for outcome in executor(missing, self.home, runs, watch.started):
            journal.append(outcome.line)
            watch.ended(outcome)


def _unchanged(setup: Setup) -> Setup:
    return setup


def _timed(journal: Journal, plan: Line) -> bool:
    """Return True if the last latencies are those of this plan's runs."""
    found = journal.of_kind("latency")
    return bool(found) and found[-1].get("runs") == plan["runs"]
