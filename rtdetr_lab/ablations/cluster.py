r"""# Cluster: the runs of a study as jobs of a scheduler

submitit supports Slurm, and has a local executor for tests without it. We write no scheduler: we
submit every run as a command, and the run writes its row to a file on the shared disk.

    gpu = {"timeout_min": 240, "gpus_per_node": 1, "slurm_partition": "gpu"}
    study.run(Submitit(parameters=gpu))
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rtdetr_lab.ablations.executors import PYTHON, Errand, Outcome, Outcomes, Started
from rtdetr_lab.ablations.job import Job
from rtdetr_lab.errors import import_extra


@dataclass(frozen=True)
class Submitit:
    """Run jobs through submitit.

    `cluster=None` uses the scheduler that submitit finds (Slurm), `"local"` uses processes on this
    machine. `parameters` go to submitit's `update_parameters`.
    """

    cluster: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    command: tuple[str, ...] = PYTHON
    poll_seconds: float = 2.0

    def __call__(self, jobs: Sequence[Job], folder: Path, runs: Path, started: Started) -> Outcomes:
        submitit = import_extra("submitit", "cluster")
        executor = submitit.AutoExecutor(folder / "submitit", cluster=self.cluster)
        executor.update_parameters(**self.parameters)
        waiting = {}
        for job in jobs:
            errand = Errand.of(job, folder.resolve(), runs.resolve())
            started(job)
            if isinstance(errand, Outcome):
                yield errand
                continue
            call = submitit.helpers.CommandFunction([*self.command, *errand.arguments])
            waiting[errand] = executor.submit(call)
        while waiting:
            for errand in [e for e, submitted in waiting.items() if submitted.done()]:
                yield errand.outcome(str(waiting.pop(errand).exception() or ""))
            time.sleep(self.poll_seconds if waiting else 0)
