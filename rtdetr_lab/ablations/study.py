r"""# Study: a base, changes of it, and several seeds

    study = Study(rtdetr_nano(10), [no_aifi, two_layers], seeds=(0, 1, 2), budget=6400)
    study.run()                      # in this process; LocalProcesses(), Submitit(…) elsewhere
    print(study.report().markdown)

Every (variant, seed) has one run folder, and the study has a journal (`journal.py`). If a study is
stopped at any moment, the same call resumes it. A variant that fails is reported and does not stop
the others. All runs see the same number of pictures, in an order that depends only on the seed:
**runs with the same seed are a pair**, and differences are taken within pairs.

The budget is a number of pictures per run, or a time for the whole study ("20m"). For a time, we
measure a few steps of every variant and compute the number from them.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rtdetr_lab.ablations.bases import short_recipe, small_world
from rtdetr_lab.ablations.executors import Executor, InProcess, Outcome
from rtdetr_lab.ablations.job import AsTrained, Job, Measure, Task, Views
from rtdetr_lab.ablations.journal import Journal, Line
from rtdetr_lab.ablations.measure import latencies
from rtdetr_lab.ablations.plan import pictures_and_speed, plan_line
from rtdetr_lab.ablations.report import Report, report_of
from rtdetr_lab.ablations.variant import Change, Setup, Variant, variant, with_seed
from rtdetr_lab.config import require
from rtdetr_lab.config_json import to_dict
from rtdetr_lab.data.batch import Dataset
from rtdetr_lab.errors import TrainingError
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
    `base`.
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

    def __post_init__(self) -> None:
        inside = Path(self.name).name == self.name not in ("", "..")
        require(inside, "name", f"{self.name!r} is no name of a folder", "use letters and digits")
        names = [v.name for v in self._rows]
        twice = sorted({n for n in names if names.count(n) > 1})
        require(not twice, "variants", f"{twice} occur twice", "give each its own name")
        require(self.seeds, "seeds", "is empty", "give at least one seed; three show a spread")
        require(len(set(self.seeds)) == len(self.seeds), "seeds", "repeat", "give each seed once")

    @cached_property
    def _setup(self) -> Setup:
        return self.base if isinstance(self.base, Setup) else Setup(self.base, short_recipe())

    @cached_property
    def _rows(self) -> tuple[Variant, ...]:
        rows = tuple(map(variant, self.variants))
        if any(row(self._setup) == self._setup for row in rows):
            return rows
        return (Variant("base", _unchanged, "The configuration that the variants change."), *rows)

    @property
    def reference(self) -> str:
        """Name of the variant that changes nothing; all others are compared with it."""
        return next(row.name for row in self._rows if row(self._setup) == self._setup)

    @cached_property
    def task(self) -> Task:
        """Common part of all runs of this study."""
        train, val = self.data
        return Task(train, val, self.views, self.measures, self.device)

    @property
    def home(self) -> Path:
        """Folder of the study; run folders are beside it, in `runs`."""
        return Path(self.folder) / self.name

    @property
    def journal(self) -> Journal:
        """Journal of the study, read from disk."""
        return Journal(self.home / "journal.jsonl")

    def setups(self, num_pictures: int) -> dict[str, Setup]:
        """Map every variant to its setup, for the given number of pictures per run."""
        steps = -(-num_pictures // self._setup.recipe.batch_size)
        every = max(1, steps // self.curve_points) if self.curve_points else 0
        recipe = replace(self._setup.recipe, num_pictures=num_pictures, eval_every=every)
        base = replace(self._setup, recipe=recipe)
        return {row.name: row(base) for row in self._rows}

    def jobs(self, num_pictures: int) -> list[Job]:
        """List all runs, seed by seed, so that a stopped study has complete pairs."""
        setups = self.setups(num_pictures)
        return [
            Job(name, seed, with_seed(setup, seed), self.task)
            for seed in self.seeds
            for name, setup in setups.items()
        ]

    def plan(self) -> Line:
        """Time some steps and return the plan, the first line of a journal."""
        first = self.setups(self.budget if isinstance(self.budget, int) else 1)
        count, speed = pictures_and_speed(self.budget, first, self.task, len(self.seeds))
        setups = self.setups(count)
        line = plan_line(self._rows, setups, self.reference, self.task, self.seeds, speed)
        return {**line, "name": self.name, "budget": self.budget}

    def run(
        self,
        executor: Executor | None = None,
        watch: Callable[[Line, Journal], AbstractContextManager[Watch]] | None = None,
    ) -> Report:
        """Run everything that is missing, and return the report. Failed runs are tried again."""
        with locked(self.home, TrainingError):
            journal = self.journal
            plan = self._plan_for(journal)
            with watch(plan, journal) if watch else nullcontext(Watch()) as watching:
                self._finish(journal, plan, executor or InProcess(), watching)
            if self.latency_rounds and not _measured(journal, plan):
                setups = self.setups(plan["pictures"])
                found = latencies(setups, plan["picture_size"], self.latency_rounds)
                journal.append({"kind": "latency", "milliseconds": found})
        return self.report()

    def report(self) -> Report:
        """Make the report from the journal, without training."""
        return report_of(self.journal)

    def _plan_for(self, journal: Journal) -> Line:
        """Return the journal's plan if it is of this study; otherwise append a new one."""
        if not (journal.plan and self._is(journal.plan)):
            journal.append(self.plan())
        return journal.plan

    def _is(self, plan: Line) -> bool:
        """Return True if a journal's plan is of this study."""
        base = self.setups(plan["pictures"])[self.reference]
        mine = {
            "reference": self.reference,
            "seeds": list(self.seeds),
            "budget": self.budget,
            "val_pictures": len(self.task.val),
            "base": to_dict(base),
        }
        rows = [row.describe(base) for row in self._rows]
        then = [{k: v[k] for k in rows[0]} for v in plan["variants"]]
        return rows == then and mine == {k: plan[k] for k in mine}

    def _finish(self, journal: Journal, plan: Line, executor: Executor, watch: Watch) -> None:
        done = {(r["variant"], r["seed"], r["run"]) for r in journal.of_kind("row")}
        jobs = self.jobs(plan["pictures"])
        missing = [j for j in jobs if (j.variant, j.seed, j.fingerprint) not in done]
        runs = Path(self.folder) / "runs"
        for outcome in executor(missing, self.home, runs, watch.started):
            journal.append(outcome.line)
            watch.ended(outcome)


def _unchanged(setup: Setup) -> Setup:
    return setup


def _measured(journal: Journal, plan: Line) -> bool:
    """Return True if the last latencies are those of this plan's variants."""
    wanted = {v["name"] for v in plan["variants"]}
    found = journal.of_kind("latency")
    return bool(found) and set(found[-1]["milliseconds"]) == wanted
