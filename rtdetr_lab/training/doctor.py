r"""# Doctor: why does the model not overfit one batch?

    rtdetr-lab train --overfit 1 --data my_data

A correct detector overfits one batch: AP reaches 1. If it does not, something is wrong. More data,
more time or a larger model only hide the fault; here it shows within minutes. The doctor ends the
run as soon as AP is high enough. If AP stays low, it checks for the faults that it can recognise,
causes before effects, and reports each with its numbers and a remedy.

| question                                         | looks at                 |
|--------------------------------------------------|--------------------------|
| Are there objects, and are they large enough?    | samples, at the model's size |
| Does every object have a query?                  | samples and model        |
| Do all parameters learn?                         | gradients, rates         |
| Does the loss fall?                              | the record               |
| Does the average follow the weights?             | weights, averaged weights |
| Does a mirror exchange classes?                  | predictions for mirrored pictures |
| Are the predictions right except for labels, box format or scores? | predictions (`symptoms.py`) |
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from rtdetr_lab.data.batch import Sample, as_float
from rtdetr_lab.detr.transformer import DETRDecoder
from rtdetr_lab.evaluation.coco import Metrics
from rtdetr_lab.evaluation.evaluate import inference
from rtdetr_lab.evaluation.mirror import about_mirror, labels_said, turned_back
from rtdetr_lab.images.predict import predict
from rtdetr_lab.training.callbacks import Callback
from rtdetr_lab.training.metrics import Record
from rtdetr_lab.training.symptoms import SIDE, Case, Finding, examine_answers
from rtdetr_lab.training.trainer import Trainer
from rtdetr_lab.writing import first_few

ENOUGH = 0.99
"""The AP at which a batch counts as overfitted."""

SMALLEST = 2.0
"""Smallest side of a box in pixels at the model's size: a stride of 8 cannot see less."""

FALLEN = 0.7
"""The loss has not fallen if it is still above this part of the first loss."""

FROM_ZERO = ("decoder.layers.0.self_attn.", "decoder.layers.0.norm1.weight")
"""Parameters of a DETR that get no useful gradient even in a healthy run. Its content begins at
zero, so all values in the first self-attention are the same, and the gradients of these parameters
are zero or rounding errors."""


class Doctor(Callback):
    """Ends a run that has overfitted `samples`; otherwise it fills `findings` when the run ends."""

    def __init__(self, samples: Sequence[Sample], names: Sequence[str]) -> None:
        super().__init__()
        self.samples, self.names = list(samples), tuple(names)
        self.history: list[Record] = []
        self.best = -1.0
        self.findings: list[Finding] = []
        self.mirror: list[str] = []

    @property
    def healthy(self) -> bool:
        """Return True if AP reached 0.99."""
        return self.best >= ENOUGH

    def recorded(self, trainer: Trainer, record: Record) -> None:
        self.history.append(record)
        self.best = max(self.best, record.get("AP", -1.0))
        if self.healthy:
            self.reason = f"AP {self.best:.3f}: the batch is overfitted"

    def ends(self, trainer: Trainer) -> None:
        if len(self.names) > 1:
            self.mirror = examine_mirror(trainer, self.samples, self.names)
        if not self.healthy:
            self.findings = diagnose(trainer, self.samples, self.names, self.history)


def diagnose(
    trainer: Trainer, samples: Sequence[Sample], names: Sequence[str], history: Sequence[Record]
) -> list[Finding]:
    """Return all findings about a run that did not overfit `samples`."""
    average = case_of(trainer.ema.model, samples, names, trainer.device)
    scores = average.metrics()
    itself = case_of(trainer.model, samples, names, trainer.device)
    model: Any = trainer.model
    found = examine_samples(samples, model.num_queries)
    found += examine_learning(trainer) + examine_loss(history)
    if lag := examine_average(itself.metrics(), scores):
        # The average lags behind. The weights themselves show what is learned.
        found.append(lag)
    found += examine_answers(itself)
    return found or [
        Finding(
            f"none of the known faults; AP {scores.AP:.3f}, AP50 {scores.AP50:.3f}",
            "give more --pictures: exact boxes take the longest",
        )
    ]


def examine_mirror(trainer: Trainer, samples: Sequence[Sample], names: Sequence[str]) -> list[str]:
    """Return what a mirror exchanges: predict for these pictures, and for mirrored ones."""
    mirrored = [replace(sample, image=sample.image.flip(-1)) for sample in samples]
    plain, other = (case_of(trainer.model, s, names, trainer.device) for s in (samples, mirrored))
    back = [turned_back(found, SIDE) for found in other.found]
    now, then = (labels_said(plain.truths, found, len(names)) for found in (plain.found, back))
    return about_mirror(now, then, names)


def case_of(
    model: Any, samples: Sequence[Sample], names: Sequence[str], device: torch.device
) -> Case:
    """Predict on the samples; return the predictions with their truths."""
    with inference(model):
        images = [as_float(sample.image) for sample in samples]
        found = predict(model, images, [(SIDE, SIDE)] * len(images), to=device)
    return Case.of([sample.truth for sample in samples], found, names)


def examine_samples(samples: Sequence[Sample], queries: int) -> list[Finding]:
    """Check for missing objects, boxes too small to see, and more objects than queries."""
    counts = [len(sample.labels) for sample in samples]
    if not sum(counts):
        remedy = "check that this split has annotations: run `rtdetr-lab data check`"
        return [Finding(f"{len(samples)} pictures contain no object: AP is undefined", remedy)]
    sides = torch.cat([_sides(sample) for sample in samples])
    found, small = [], sides < SMALLEST
    if flat := int((sides <= 0).sum()):
        fault = f"{flat} of {len(sides)} boxes have no width or no height"
        found.append(Finding(fault, "remove them: `rtdetr-lab data check` lists them"))
    elif bool(small.any()):
        fault = f"{int(small.sum())} of {len(sides)} boxes are narrower than {SMALLEST:g} px at "
        fault += f"this size, the smallest {float(sides.min()):.2f} px"
        found.append(Finding(fault, "raise --size, cut pictures into tiles, or remove such boxes"))
    if max(counts) > queries:
        crowded = sum(count > queries for count in counts)
        fault = f"{crowded} pictures hold up to {max(counts)} objects, the model has {queries} "
        found.append(Finding(f"{fault}queries", "raise num_queries, or cut pictures into tiles"))
    return found


def _sides(sample: Sample) -> torch.Tensor:
    """Return the shorter side of every box, in pixels at the model's size."""
    height, width = sample.image.shape[-2:]
    return (sample.boxes[:, 2:] * torch.tensor([width, height])).amin(1)


def examine_learning(trainer: Trainer) -> list[Finding]:
    """Find parameters that are frozen, get no gradient, or have a rate of zero."""
    config, found = trainer.config, []
    named = list(trainer.model.named_parameters())
    if frozen := [n for n, p in named if not p.requires_grad]:
        fault = f"{len(frozen)} of {len(named)} parameters are frozen ({first_few(frozen)})"
        found.append(Finding(fault, "train without --freeze to see whether this is the cause"))
    learning = [(n, p) for n, p in named if p.requires_grad]
    if any(p.grad is not None for _, p in learning):
        idle = [n for n, p in learning if p.grad is None or not bool(p.grad.any())]
        if any(isinstance(module, DETRDecoder) for module in trainer.model.modules()):
            idle = [n for n in idle if not any(part in n for part in FROM_ZERO)]
        if idle:
            fault = f"{len(idle)} parameters get no gradient ({first_few(idle)})"
            found.append(Finding(fault, "look for an unused module, a detach, or a dead ReLU"))
    groups = trainer.optimizer.param_groups
    if still := [n for g in groups if g["base_lr"] == 0 for n in g["names"]]:
        fault = f"the learning rate of {len(still)} parameters is 0 ({first_few(still)})"
        found.append(Finding(fault, "set --lr or --backbone-lr above zero"))
    warmup = config.steps(config.warmup_steps)
    if warmup >= config.num_steps > 1:
        fault = f"the warm-up takes {warmup} of {config.num_steps} steps"
        found.append(Finding(fault, "lower --warmup-steps, or give more --pictures"))
    return found


def examine_loss(history: Sequence[Record]) -> list[Finding]:
    """Check whether the loss falls."""
    losses = [(r["step"], r["loss"]) for r in history if "loss" in r]
    if len(losses) < 2 or losses[-1][1] < FALLEN * losses[0][1]:
        return []
    (first, before), (last, after) = losses[0], losses[-1]
    fault = f"the loss does not fall: {before:.3g} at step {first}, {after:.3g} at step {last}"
    return [Finding(fault, "try a ten times lower and a ten times higher --lr")]


def examine_average(itself: Metrics, average: Metrics) -> Finding | None:
    """Check whether the average looks back further than the run is long."""
    if itself.AP < average.AP + 0.2:
        return None
    fault = f"the weights reach AP {itself.AP:.2f}, their average only {average.AP:.2f}"
    return Finding(fault, "lower ema_decay: it looks back 1 / (1 - ema_decay) steps")
