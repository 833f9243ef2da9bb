r"""# Job: one run of a study, from a value to a row

A job is a value: it can be written as JSON, and another process or machine that runs it gets the
same row.

| in a row     | what it is                                                                   |
|--------------|------------------------------------------------------------------------------|
| `run`, `judged` | fingerprints of the training and of the evaluation (`task.py`)            |
| `scores`     | view → COCO's numbers; `resampled`, AP on each bootstrap replicate;          |
|              | `pictures`, AP on each picture alone                                         |
| `curve`      | (pictures seen, AP) on the first validation pictures, during training;       |
|              | empty if these were others than today's                                      |
| `measures`   | results of the study's own measures                                          |
| `parameters` | number of parameters                                                         |
| `cost`       | seconds, date, machine: everything that differs in an equal run              |
"""

import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rtdetr_lab.ablations.task import Task, fingerprint
from rtdetr_lab.ablations.trained import trained
from rtdetr_lab.ablations.variant import Setup
from rtdetr_lab.data.batch import in_order
from rtdetr_lab.structures.environment import environment

MACHINE = ("date", "platform", "torch", "threads", "gpu", "commit")
"""Facts about the environment that a row stores."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """Variant with a seed, and everything that its run needs."""

    variant: str
    seed: int
    setup: Setup
    task: Task
    code: tuple[str, ...]
    """Digests of the code of the setup, and of those it starts from."""

    @property
    def key(self) -> str:
        """Name of this job in the journal."""
        return f"{self.variant} #{self.seed}"

    @property
    def names(self) -> Row:
        """Common beginning of all lines about this job in the journal."""
        return {"variant": self.variant, "seed": self.seed, "run": self.fingerprint}

    @cached_property
    def fingerprint(self) -> str:
        """Identify the run, independent of the study, the variant's name and the views."""
        return fingerprint(self.setup, self.task.contents[0], self.code)


def execute(job: Job, runs: Path) -> Row:
    """Train (or resume, or load a finished run), evaluate, and return the row.

    The folder of the run is `runs / fingerprint`.
    """
    began = time.monotonic()
    run = trained(job.setup, job.task, runs, job.code)
    seconds = max((r["seconds"] for r in run.history), default=0.0)
    scores, measures = judged(run.model, job.task)
    machine = environment()
    cost = {"train_s": round(seconds, 2), "whole_s": round(time.monotonic() - began, 2)}
    curve = [[r["pictures"], r["AP"]] for r in run.history if "AP" in r]
    return {
        **job.names,
        "judged": job.task.judgement,
        "pictures": run.step * job.setup.recipe.batch_size,
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "scores": scores,
        "measures": measures,
        "curve": curve if run.validated_on == job.task.contents[1] else [],
        "cost": cost | {name: machine[name] for name in MACHINE},
    }


def judged(model: nn.Module, task: Task) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (view → scores, measures) on the validation pictures."""
    from rtdetr_lab.ablations.resample import judge

    with torch.inference_mode():
        model.eval()
        scores = {name: judge(view, task.val) for name, view in task.views(model).items()}
        batches = list(in_order(task.val, 16)) if task.measures else []
        measures: dict[str, Any] = {}
        for measure in task.measures:
            measures |= measure(model, batches)
    return scores, measures
