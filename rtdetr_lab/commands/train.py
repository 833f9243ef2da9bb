"""# Train: a new model, or one that is already trained

    rtdetr-lab train --data shapes --out runs/nano --amp --stop-after 50m
    rtdetr-lab train --model r18 --data my_data
    rtdetr-lab train --model r18 --masks --data my_data
    rtdetr-lab train --data my_data --overfit 1

The same command resumes a run that was stopped. `training/ship.py` shows how the nano checkpoint
was made.

A run begins with a preset, a preset with a pretrained backbone, or a whole model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rtdetr_lab.checkpoints.presets import PRESETS, preset_of
from rtdetr_lab.commands.base import DONE, FAILED, model_of, resized_for, say, shown_size
from rtdetr_lab.commands.train_options import TrainOptions, augmentation_of, recipe_name, recipe_of
from rtdetr_lab.config import require

if TYPE_CHECKING:
    from rtdetr_lab.data.batch import Dataset
    from rtdetr_lab.data.coco import CocoDataset
    from rtdetr_lab.model import DetectionModel
    from rtdetr_lab.training import Callback, Run, TrainConfig
    from rtdetr_lab.training.doctor import Doctor


@dataclass(frozen=True, kw_only=True)
class Train(TrainOptions):
    """Train a detector on your data or on drawn shapes: a new one, or one that is already trained.
    The same command resumes a stopped run; Ctrl-C saves and stops. To fine-tune, --model and --data
    are enough.
    """

    def run(self) -> int:
        import torch

        from rtdetr_lab.commands.sets import names_of, stored_sets, tell
        from rtdetr_lab.data.batch import innermost
        from rtdetr_lab.data.preflight import look_at
        from rtdetr_lab.evaluation.evaluate import evaluate
        from rtdetr_lab.training import train

        if self.running.threads:
            torch.set_num_threads(self.running.threads)
        splits = ("train",) if self.evaluating.overfit else ("train", "val")
        found = stored_sets(self.data, splits, self.reading, self.evaluating.val_split)
        start, model = starting_point(self, found["train"].names if found else names_of(self.data))
        as_stored = bool(augmentation_of(self, model.metadata))
        learn, judge = self._data(model, as_stored, found)
        tell([*look_at(learn, model.num_queries), *look_at(judge)])
        recipe = recipe_of(self, model, len(innermost(learn)))
        announce(recipe, recipe_name(self), learn, model.metadata.fixed_size)
        if self.running.amp_auto:
            without = "single precision, because this processor has no bfloat16"
            say(f"--amp auto: computes in {'bfloat16' if recipe.amp else without}")
        watching = self._watching(found)
        if self.evaluating.overfit:
            watching.append(doctor := doctor_for(judge, model.num_queries))
        run = train(
            start,
            learn,
            self.out,
            recipe,
            validate=lambda model: evaluate(model, judge, recipe.batch_size),
            backbone_weights=self.backbone_weights,
            stop_after=self.running.stop_after,
            device=self.running.device,
            callbacks=watching,
        )
        report(run)
        return verdict(doctor, run) if self.evaluating.overfit else DONE

    def _watching(self, found: dict[str, "CocoDataset"]) -> "list[Callback]":
        from rtdetr_lab.commands.sets import divided
        from rtdetr_lab.training.callbacks import LOGGERS, Note, loggers

        watching = loggers(self.out, (name for name in LOGGERS if getattr(self.running, name)))
        if parts := divided(found):
            watching.append(Note(self.out / "split.json", parts))
        return watching

    def _data(
        self, model: "DetectionModel", as_stored: bool, found: dict[str, "CocoDataset"]
    ) -> tuple["Dataset", "Dataset"]:
        from rtdetr_lab.commands.sets import training_set, validation_set

        metadata, masks = model.metadata, model.draws_masks
        if self.evaluating.overfit:
            count = self.evaluating.overfit * self.step_of(0)
            few = validation_set(found.get("train", self.data), metadata, count, masks)
            return few, few
        how = (self.learning.seed, as_stored, masks, self.learning.mirrors)
        learn = training_set(found.get("train", self.data), metadata, *how)
        most, judge = self.evaluating.val_limit, found.get("val", self.data)
        return learn, validation_set(judge, metadata, most, masks)


def announce(recipe: "TrainConfig", name: str, data: "Dataset", size: tuple[int, int]) -> None:
    """Print in one line what the run will do."""
    from rtdetr_lab.data.batch import innermost

    count = len(innermost(data))
    rounds = f"{recipe.num_pictures / count:.3g} × {count:,}"
    say(
        f"{name}: {recipe.num_pictures:,} pictures ({rounds}) of {shown_size(size)} in steps of "
        f"{recipe.batch_size}, lr {recipe.lr:.3g}, backbone {recipe.backbone_lr:.3g}"
    )


def report(run: "Run") -> None:
    """Print how far the run is, and where its files are."""
    scores = [r for r in run.history if "AP" in r]
    for record in scores[-1:]:
        say(f"AP {record['AP']:.3f}, AP50 {record['AP50']:.3f} at step {record['step']}")
    best = max(scores, key=lambda r: r["AP"], default={})
    if scores and best["AP"] > scores[-1]["AP"]:
        say(f"best: AP {best['AP']:.3f}, AP50 {best['AP50']:.3f} at step {best['step']}")
    state = "finished" if run.finished else "paused: the same command resumes it"
    say(f"step {run.step}, {state}; model in {run.folder}/model, curves in {run.folder}/curves.png")


def doctor_for(data: "Dataset", num_queries: int) -> "Doctor":
    """Return the doctor of a run that overfits `data`; print what it finds before training."""
    from rtdetr_lab.training.doctor import Doctor, examine_samples

    samples = [data[i] for i in range(len(data))]
    for finding in examine_samples(samples, num_queries):
        say(f"before training: {finding}")
    return Doctor(samples, data.names)


def verdict(doctor: "Doctor", run: "Run") -> int:
    """Print the doctor's findings after the run; return the exit code."""
    if not run.finished or not doctor.history:  # it will resume, or another process evaluates it
        return DONE
    for line in doctor.mirror:
        say(line)
    if doctor.healthy:
        say(f"healthy: AP {doctor.best:.3f} on the overfitted pictures")
        return DONE
    say(f"not overfitted: AP {doctor.best:.3f}. Possible faults, causes first:")
    for number, finding in enumerate(doctor.findings, 1):
        say(f"  {number}. {finding}")
    return FAILED


def starting_point(asked: TrainOptions, classes: Sequence[str]) -> tuple[Any, "DetectionModel"]:
    """Return what `train` begins with for these classes, and a model of that kind, from which sizes
    can be read."""
    from rtdetr_lab.model import declared
    from rtdetr_lab.training.finetune import add_masks, prepare

    freeze = tuple(part.strip() for part in asked.freeze.split(",") if part.strip())
    if not asked.model:
        return _from_preset(asked, len(classes), freeze)
    what = f"cannot be combined with --model {asked.model}, which has its own"
    require(not asked.preset, "--preset", what, "leave one of them out")
    require(not asked.backbone_weights, "--backbone-weights", what, "leave one of them out")
    model = model_of(asked.model, asked.size, asked.names)
    if asked.masks and not model.draws_masks:
        model = add_masks(model, asked.learning.seed)
    ready = prepare(model, classes, freeze, asked.learning.seed, asked.queries)
    for line in ready.lines():
        say(line if line.startswith(" ") else f"{asked.model}: {line}")
    return ready.model, declared(ready.model)


def _from_preset(
    asked: TrainOptions, num_classes: int, freeze: Sequence[str]
) -> tuple[Any, "DetectionModel"]:
    """Return a new model, or one with a pretrained backbone; only in the second can parts be
    frozen."""
    import torch
    from torch import nn

    from rtdetr_lab.config import build, replace_at
    from rtdetr_lab.masks.query_masks import with_masks
    from rtdetr_lab.model import declared
    from rtdetr_lab.training.finetune import freeze_module, with_queries
    from rtdetr_lab.training.state import seed_everything

    name = asked.preset or "nano"
    cfg = preset_of(name, num_classes)
    if asked.masks:
        cfg = with_masks(cfg)
    if asked.queries is not None:
        cfg = with_queries(cfg, asked.queries)
    if not asked.backbone_weights:
        what = "would freeze weights that were never trained"
        require(not freeze, "--freeze", what, "give --model, or --backbone-weights")
        # Frozen statistics belong to a pretrained backbone; new weights need their own.
        cfg = replace_at(cfg, "backbone.norm", nn.BatchNorm2d)
        if "frozen_stages" in vars(cfg.backbone):
            cfg = replace_at(cfg, "backbone.frozen_stages", 0)
    with torch.device("meta"):  # no memory, no random numbers: we only read its attributes
        model = declared(build(cfg))
    size = asked.size or PRESETS[name][1]
    model.metadata = resized_for(model.metadata, size, model.takes_padding)
    if not freeze:
        return cfg, model
    seed_everything(asked.learning.seed)
    start = build(cfg)
    for part in freeze:
        freeze_module(start, part)
    return start, model
