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

## A run is trained once, and then kept small

A run folder is named after the fingerprint of its run (`task.py`). While the run trains, the folder
has states to resume from: model, average, and two moments per parameter. A finished run keeps the
averaged model in `model/`, its record, and `finished.json`; that is a quarter of it or less.

What we evaluate is always the stored model, so a later evaluation gives the same numbers.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rtdetr_lab.ablations.source import own_classes
from rtdetr_lab.ablations.task import Task, fingerprint
from rtdetr_lab.ablations.variant import Setup
from rtdetr_lab.config import require
from rtdetr_lab.data.batch import First, in_order
from rtdetr_lab.errors import TrainingError
from rtdetr_lab.structures.environment import environment
from rtdetr_lab.writing import write_text

CURVE_PICTURES = 100
FINISHED = "finished.json"
STATES = ("last.pt", "previous.pt", "best.pt")
"""Files that only a resume needs."""


@dataclass(frozen=True, eq=False)
class Trained:
    """Averaged model of a run, in eval mode, and its record; `validated_on` is the digest of the
    validation pictures of its curve."""

    model: nn.Module
    history: list[dict[str, Any]]
    step: int
    validated_on: str


def trained(setup: Setup, task: Task, runs: Path, code: Sequence[str]) -> Trained:
    """Train a setup, or resume it, or load it; the run it starts from comes first.

    Raises `KeyboardInterrupt` if the run was paused: then `train` saved its state and returned.
    """
    folder = runs / fingerprint(setup, task.contents[0], code)
    if not (folder / FINISHED).exists():
        run = _train(setup, task, runs, code)
        if not run.finished:
            raise KeyboardInterrupt
        if run.folder is None:  # only the first process of a distributed run writes
            return Trained(run.model, run.history, run.step, task.contents[1])
        _keep(run, task.contents[1])
    return _stored(setup, folder, task.device)


def _keep(run: Any, validated_on: str) -> None:
    """Store the result of a run, then remove what only a resume needs."""
    from rtdetr_lab.checkpoints.save import save_pretrained

    save_pretrained(run.model, run.folder / "model")
    said = {"step": run.step, "validated_on": validated_on}
    write_text(run.folder / FINISHED, json.dumps(said), TrainingError)
    for name in STATES:
        (run.folder / name).unlink(missing_ok=True)


def _stored(setup: Setup, folder: Path, device: str | None) -> Trained:
    from rtdetr_lab.checkpoints.load import load_pretrained
    from rtdetr_lab.training.distributed import choose_device
    from rtdetr_lab.training.metrics import History

    said = json.loads((folder / FINISHED).read_text(encoding="utf8"))
    model = load_pretrained(folder / "model", classes=own_classes(setup.cfg))
    history = History(folder / "metrics.jsonl", said["step"]).records
    return Trained(model.to(choose_device(device)), history, said["step"], said["validated_on"])


def _train(setup: Setup, task: Task, runs: Path, code: Sequence[str]) -> Any:
    from rtdetr_lab.evaluation.evaluate import evaluate
    from rtdetr_lab.training import train
    from rtdetr_lab.training.callbacks import loggers
    from rtdetr_lab.training.state import seed_everything

    folder = runs / fingerprint(setup, task.contents[0], code)
    model = setup.cfg
    if setup.start is not None:
        before = trained(setup.start, task, runs, code[1:])
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
        callbacks=loggers(folder, task.loggers),
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
