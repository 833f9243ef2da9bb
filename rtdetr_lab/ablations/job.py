r"""# Job: one run of a study, from a value to a row

A job is a value: it can be written as JSON, and another process or machine that runs it gets the
same row. Its **fingerprint** (configuration, recipe, start, training data) is the name of its
folder, so that two studies share a common run and train it once.

| in a row     | what it is                                                                   |
|--------------|------------------------------------------------------------------------------|
| `scores`     | view → COCO's numbers and `resampled`, AP on each bootstrap replicate        |
| `curve`      | (pictures seen, AP) on the first validation pictures, during training        |
| `measures`   | results of the study's own measures                                          |
| `parameters` | number of parameters                                                         |
| `cost`       | seconds, date, machine: everything that differs in an equal run              |
"""

import hashlib
import inspect
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rtdetr_lab.ablations.variant import Setup
from rtdetr_lab.config import require
from rtdetr_lab.config_json import to_dict
from rtdetr_lab.data.batch import Dataset, First, in_order
from rtdetr_lab.structures.environment import environment

CURVE_PICTURES = 100
MACHINE = ("date", "platform", "torch", "threads", "gpu", "commit")
"""Facts about the environment that a row stores."""

Row = dict[str, Any]
Views = Callable[[Any], Mapping[str, Any]]
Measure = Callable[[nn.Module, list[list[Any]]], Mapping[str, Any]]


@dataclass(frozen=True)
class AsTrained:
    """One view: the whole model as it was trained."""

    def __call__(self, model: Any) -> Mapping[str, Any]:
        return {"": model}


@dataclass(frozen=True)
class Task:
    """Common part of all runs of a study: training and validation pictures, views, measures."""

    train: Dataset
    val: Dataset
    views: Views = field(default_factory=AsTrained)
    measures: tuple[Measure, ...] = ()
    device: str | None = None


@dataclass(frozen=True)
class Job:
    """Variant with a seed, and everything that its run needs."""

    variant: str
    seed: int
    setup: Setup
    task: Task

    @property
    def key(self) -> str:
        """Name of this job in the journal."""
        return f"{self.variant} #{self.seed}"

    @property
    def names(self) -> Row:
        """Common beginning of all lines about this job in the journal."""
        return {"variant": self.variant, "seed": self.seed, "run": self.fingerprint}

    @property
    def fingerprint(self) -> str:
        """Identify the run, independent of the study, the variant's name and the views."""
        return fingerprint(self.setup, self.task.train)


def fingerprint(setup: Setup, train: Dataset) -> str:
    """Identify the run, independent of the study, the variant's name and the views."""
    from rtdetr_lab.training.fingerprint import fingerprint as of_data

    # The code of a reader's own class is part of it: an edit in a notebook makes another run.
    tree = [[to_dict(setup), sorted(_own_code(setup))], of_data(train)]
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]


def _own_code(value: Any) -> set[str]:
    found: set[str] = set()
    kind = value if callable(value) and hasattr(value, "__qualname__") else type(value)
    if not str(kind.__module__).startswith(("rtdetr_lab", "torch", "builtins")):
        try:
            found.add(inspect.getsource(kind))
        except (OSError, TypeError):
            found.add(repr(kind))  # typed into a prompt: Python has no source of it
    if isinstance(value, tuple):
        return found.union(*map(_own_code, value))
    for name in getattr(type(value), "__dataclass_fields__", {}):
        found |= _own_code(getattr(value, name))
    return found


def execute(job: Job, runs: Path) -> Row:
    """Train (or resume, or load a finished run), evaluate, and return the row.

    The folder of the run is `runs / fingerprint`.
    """
    began = time.monotonic()
    run = trained(job.setup, job.task, runs)
    if not run.finished:
        raise KeyboardInterrupt  # interrupted: `train` saved its state and returned early
    seconds = max((r["seconds"] for r in run.history), default=0.0)
    scores, measures = judged(run.model, job.task)
    machine = environment()
    for name in ("previous.pt", "best.pt"):  # only a resume needs these
        (runs / job.fingerprint / name).unlink(missing_ok=True)
    cost = {"train_s": round(seconds, 2), "whole_s": round(time.monotonic() - began, 2)}
    return {
        **job.names,
        "pictures": run.step * job.setup.recipe.batch_size,
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "scores": scores,
        "measures": measures,
        "curve": [[r["pictures"], r["AP"]] for r in run.history if "AP" in r],
        "cost": cost | {name: machine[name] for name in MACHINE},
    }


def trained(setup: Setup, task: Task, runs: Path) -> Any:
    """Return the `Run` of a setup; the run it starts from is trained first."""
    from rtdetr_lab.evaluation.evaluate import evaluate
    from rtdetr_lab.training import train
    from rtdetr_lab.training.state import seed_everything

    folder = runs / fingerprint(setup, task.train)
    model = setup.cfg
    if setup.start is not None:
        before = trained(setup.start, task, runs)
        if not before.finished:
            return before
        model = model.build()
        model.load_state_dict(before.model.state_dict())
    elif setup.weights is not None:
        seed_everything(setup.recipe.seed)
        model = warm(model.build(), setup.weights)
    few = First(task.val, min(CURVE_PICTURES, len(task.val)))
    recipe = setup.recipe
    return train(
        model,
        task.train,
        folder,
        recipe,
        validate=(lambda m: evaluate(m, few)) if recipe.eval_every else None,
        device=task.device,
        backbone_weights=setup.backbone_weights if model is setup.cfg else None,
        progress=False,
    )


def warm(model: nn.Module, weights: str) -> nn.Module:
    """Fill `model` with the tensors of a checkpoint whose names and shapes fit; the rest is new."""
    from rtdetr_lab.checkpoints.load import load_pretrained

    known = load_pretrained(weights).state_dict()
    own = model.state_dict()
    fitting = {n: t for n, t in known.items() if n in own and own[n].shape == t.shape}
    what = "has no tensor with a name and shape of this model"
    require(fitting, weights, what, "start from a model of the same family")
    model.load_state_dict(own | fitting)
    return model


def judged(model: nn.Module, task: Task) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (view → scores, measures) on the validation pictures."""
    from rtdetr_lab.ablations.judge import judge

    with torch.inference_mode():
        model.eval()
        scores = {name: judge(view, task.val) for name, view in task.views(model).items()}
        batches = list(in_order(task.val, 16)) if task.measures else []
        measures: dict[str, Any] = {}
        for measure in task.measures:
            measures |= measure(model, batches)
    return scores, measures
