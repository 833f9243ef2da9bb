r"""# Executors: where the runs of a study happen

An executor is a function from jobs to outcomes, in the order in which they finish:

| executor           | a run is                | for                                      |
|--------------------|-------------------------|------------------------------------------|
| `InProcess()`      | a call                  | notebooks, and variants defined in them  |
| `LocalProcesses()` | a separate process      | several cores or GPUs                    |
| `Submitit()`       | a job of the cluster    | Slurm, through submitit (`cluster.py`)   |

A process reads its job from a file, `JOB.json`, and writes `JOB.row.json` (a row or a traceback).
So if a study is killed while its runs continue, the next start finds their rows. A reader's own
class must be in a file, a module or the script that starts the study: the process imports it from
there (a script needs `if __name__ == "__main__":` around its start, as for `multiprocessing`). If
the file was edited in between, the run does not start. `command` is the
start of the worker's command line: `("torchrun", "--nproc-per-node=2", "-m")` makes every run a
distributed one.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rtdetr_lab.ablations.job import Job, Row, execute
from rtdetr_lab.ablations.journal import Line
from rtdetr_lab.ablations.source import own_classes
from rtdetr_lab.ablations.task import fingerprint, starts
from rtdetr_lab.ablations.uses import IN_PROCESS, modules_of
from rtdetr_lab.config import require
from rtdetr_lab.config_json import from_json, to_json
from rtdetr_lab.errors import ConfigError, TrainingError
from rtdetr_lab.structures.environment import num_cores
from rtdetr_lab.writing import file_stem, write_text

Started = Callable[[Job], None]
PYTHON = (sys.executable, "-m")
WORKER = "rtdetr_lab.ablations.worker"


@dataclass(frozen=True, eq=False)
class Outcome:
    """Row of a job, or the error that prevented it."""

    job: Job
    row: Row | None = None
    error: str | None = None

    @property
    def line(self) -> Line:
        """Entry of the journal for this outcome."""
        if self.row is not None:
            return {"kind": "row", **self.row}
        return {"kind": "failed", **self.job.names, "traceback": self.error}


def attempt(job: Job, runs: Path) -> Outcome:
    """Run a job in this process."""
    try:
        return Outcome(job, execute(job, runs))
    except Exception:  # any error: the other jobs continue
        return Outcome(job, error=traceback.format_exc())


Outcomes = Iterator[Outcome]
Executor = Callable[[Sequence[Job], Path, Path, Started], Outcomes]
"""Function that runs jobs and yields an outcome per job; a failed job is an outcome too.

The first folder is the study's. The second has the runs of all studies."""


@dataclass(frozen=True)
class InProcess:
    """Run jobs one after the other, in this process."""

    def __call__(self, jobs: Sequence[Job], folder: Path, runs: Path, started: Started) -> Outcomes:
        for job in jobs:
            started(job)
            yield attempt(job, runs)


@dataclass(frozen=True)
class Errand:
    """Job as files, for another process."""

    job: Job
    path: Path
    runs: Path
    modules: tuple[str, ...] = ()
    """Modules with a reader's own classes, as NAME=FILE; and folders to search, as =FOLDER."""

    @classmethod
    def of(cls, job: Job, folder: Path, runs: Path) -> "Errand | Outcome":
        """Write the job to a file; a job that another process could not read is an outcome."""
        # "a b", "a_b" and "A_b" differ
        apart = hashlib.sha256(job.key.encode(errors="surrogatepass")).hexdigest()[:8]
        path = folder / "jobs" / f"{file_stem(job.key)}.{apart}.{job.fingerprint}.json"
        try:
            text = to_json(job)
            modules = modules_of(text)
            same = from_json(text, own_classes(job)) == job
            require(same, job.key, "changes when it is written to JSON", IN_PROCESS)
        except ConfigError:
            return Outcome(job, error=traceback.format_exc())
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text, TrainingError)
        return cls(job, path, runs, tuple(modules))

    @property
    def log(self) -> Path:
        """File for the output of a process."""
        return self.path.with_suffix(".log")

    @property
    def answer(self) -> Path:
        """File in which the worker leaves its row."""
        return self.path.with_suffix(".row.json")

    @property
    def arguments(self) -> tuple[str, ...]:
        """Arguments of the worker's command line."""
        return (WORKER, str(self.path), str(self.answer), str(self.runs), *self.modules)

    @cached_property
    def needs(self) -> set[str]:
        """Run folders that this job writes; only one job at a time may use a folder."""
        job, needs = self.job, {self.job.fingerprint}
        for n, start in enumerate(starts(job.setup), 1):
            needs.add(fingerprint(start, job.task.contents[0], job.code[n:]))
        return needs

    def outcome(self, complaint: str) -> Outcome:
        """Read the worker's file; without one, `complaint` is the error."""
        try:
            answer = json.loads(self.answer.read_text(encoding="utf8"))
        except (OSError, ValueError):
            return Outcome(self.job, error=complaint or "the process ended without a message")
        self.answer.unlink()
        return Outcome(self.job, answer.get("row"), answer.get("error"))


@dataclass(frozen=True)
class LocalProcesses:
    """Run several jobs at a time: as many as the cores allow at `threads` each, or one per GPU."""

    workers: int | None = None
    threads: int = 1
    gpus: tuple[int, ...] = ()
    command: tuple[str, ...] = PYTHON

    def __call__(self, jobs: Sequence[Job], folder: Path, runs: Path, started: Started) -> Outcomes:
        waiting: list[Errand] = []
        for job in jobs:
            errand = Errand.of(job, folder, runs)
            if isinstance(errand, Errand):
                waiting.append(errand)
            else:
                started(job)
                yield errand
        count = self.workers or max(1, num_cores() // self.threads)
        places: list[int | None] = list(self.gpus) or [None] * count
        running: dict[Any, tuple[Errand, Any]] = {}
        try:
            while waiting or running:
                for errand in self._ready(waiting, running, len(places)):
                    waiting.remove(errand)
                    place = places.pop()
                    running[self._begin(errand, place)] = (errand, place)
                    started(errand.job)
                for process in [p for p in running if p.poll() is not None]:
                    errand, place = running.pop(process)
                    places.append(place)
                    said = errand.log.read_text(encoding="utf8", errors="replace")
                    yield errand.outcome(said[-2000:])
                time.sleep(0.05)
        finally:
            for process in running:
                process.terminate()  # the worker saves its state and ends
            for process in running:
                process.wait()

    def _ready(
        self, waiting: list[Errand], running: dict[Any, tuple[Errand, Any]], free: int
    ) -> list[Errand]:
        """Return jobs that may start now: there is a free place, and their run folders are free."""
        held = set().union(*(errand.needs for errand, _ in running.values()))
        chosen: list[Errand] = []
        for errand in waiting:
            if len(chosen) < free and not errand.needs & held:
                chosen.append(errand)
                held |= errand.needs
        return chosen

    def _begin(self, errand: Errand, gpu: int | None) -> "subprocess.Popen[bytes]":
        env = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        env["RTDETR_LAB_PARENT"] = str(os.getpid())
        if gpu is not None:
            env["CUDA_VISIBLE_DEVICES"] = str(gpu)
        with open(errand.log, "wb") as log:
            command = [*self.command, *errand.arguments]
            return subprocess.Popen(command, env=env, stdout=log, stderr=log)
