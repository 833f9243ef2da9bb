"""# Train: a model from nothing, or from another one

    rtdetr-lab train --data shapes --out runs/nano --amp --stop-after 50m
    rtdetr-lab train --model r18 --data my_data
    rtdetr-lab train --data my_data --overfit 1

The same command continues a run that was stopped. `training/ship.py` says how the nano checkpoint
was made.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from rtdetr_lab.commands.base import DONE, Command
from rtdetr_lab.commands.starting_points import Beginning, from_model, from_preset
from rtdetr_lab.commands.train_options import Judging, Learning, Running
from rtdetr_lab.commands.train_words import num_stored, overfitting, report, tell, verdict
from rtdetr_lab.errors import ConfigError

if TYPE_CHECKING:
    from rtdetr_lab.data.augment import Augmentation
    from rtdetr_lab.data.augment_detr import AspectAugmentation
    from rtdetr_lab.data.batch import Dataset
    from rtdetr_lab.model import Metadata
    from rtdetr_lab.training import Callback, TrainConfig

ROUNDS = {"fine-tune": 50, "paper": 72, "v2": 72}
"""Default budget: how often each picture is seen."""

BY_HEART = 400
"""The same for `--overfit`; a healthy run ends long before."""


@dataclass(frozen=True, kw_only=True)
class Train(Command):
    """Train a detector, new or from another one, on your data or on drawn shapes. The same command
    continues a stopped run; Ctrl-C saves and stops. To fine-tune, --model and --data are enough."""

    data: str = "shapes"
    """`shapes` (drawn while training), or a folder with train and val: COCO JSON, YOLO or VOC."""
    model: Annotated[str | None, tyro.conf.arg(help_behavior_hint="(default: a new one)")] = None
    """Begin with this model: a short name, a hub id, a folder or a file. Class heads are new where
    the data has other classes."""
    preset: Annotated[str | None, tyro.conf.arg(help_behavior_hint="(default: nano)")] = None
    """Begin with new weights of: nano, r18, r34, r50_m, r50, r101, v2_r18 … v2_r101, detr_nano,
    detr_r50, detr_r101, detr_r50_dc5, detr_r101_dc5."""
    backbone_weights: Annotated[
        str | None, tyro.conf.arg(help_behavior_hint="(default: new weights)")
    ] = None
    """Pretrained ResNet-D weights for a preset's backbone: a hub id, a folder or a file."""
    freeze: Annotated[str, tyro.conf.arg(help_behavior_hint="(default: nothing)")] = ""
    """Modules that shall not learn: backbone, or backbone,encoder …"""
    out: Path = Path("runs/train")
    """Run folder: state, metrics.jsonl, curves.png, and the model in model/."""
    size: Annotated[
        str | None, tyro.conf.arg(help_behavior_hint="(default: the model's; new: 256 nano, 640)")
    ] = None
    """What the model sees: one number, or HxW; of a DETR, which keeps the shape, one number is the
    shortest side."""
    names: Annotated[str | None, tyro.conf.arg(help_behavior_hint="(default: it says so)")] = None
    """What the classes of --model are called, with commas, if its file does not say."""
    learning: Annotated[Learning, tyro.conf.OmitArgPrefixes] = field(default_factory=Learning)
    judging: Annotated[Judging, tyro.conf.OmitArgPrefixes] = field(default_factory=Judging)
    running: Annotated[Running, tyro.conf.OmitArgPrefixes] = field(default_factory=Running)

    def run(self) -> int:
        import torch

        from rtdetr_lab.commands.sets import classes, look_at
        from rtdetr_lab.evaluation.evaluate import evaluate
        from rtdetr_lab.training import train
        from rtdetr_lab.training.callbacks import TensorBoard

        if self.running.threads:
            torch.set_num_threads(self.running.threads)
        begun = self._begin(classes(self.data, with_val=not self.judging.overfit))
        metadata = begun.model.metadata
        learn, judge = self._data(metadata)
        look_at(learn, begun.model.num_queries)
        look_at(judge)
        recipe = self.recipe(begun, learn)
        tell(recipe, self._recipe(), learn, metadata.fixed_size)
        watching: list[Callback] = []
        if self.running.tensorboard:
            watching.append(TensorBoard(self.out / "tensorboard"))
        if self.judging.overfit:
            watching.append(doctor := overfitting(judge, begun.model.num_queries))
        run = train(
            begun.start,
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
        return verdict(doctor, run) if self.judging.overfit else DONE

    def recipe(self, begun: Beginning, data: "Dataset") -> "TrainConfig":
        """The options as a value."""
        from rtdetr_lab.training import fine_tune, from_scratch, paper, v2
        from rtdetr_lab.training.recipe import by_heart

        given, running = self.learning, self.running
        cfg = begun.model.cfg
        count, batch = given.pictures or self._budget(data), given.batch_size
        makers: dict[str, Any] = {
            "scratch": lambda: from_scratch(count, batch_size=batch),
            "fine-tune": lambda: fine_tune(cfg, count, batch_size=batch),
            "paper": lambda: paper(count, batch_size=batch),
            "v2": lambda: v2(cfg, count, batch_size=batch),
        }
        made: TrainConfig = makers[self._recipe()]()
        if given.lr is not None:
            ratio = given.lr / made.lr
            made = replace(made, lr=given.lr, backbone_lr=made.backbone_lr * ratio)
        values: dict[str, Any] = {
            **given.rates(),
            "seed": given.seed,
            "accumulate": given.accumulate,
            "augment": self._augmentation(begun.model.metadata),
            "amp": running.precision,
            "patience": self.judging.patience,
            "min_delta": self.judging.min_delta,
            "num_workers": running.workers,
            "save_every": running.save_every,
            "eval_every": self._eval_every(made.num_steps),
        }
        made = replace(made, **values)
        return by_heart(made) if self.judging.overfit else made

    def _eval_every(self, num_steps: int) -> int:
        if self.judging.eval_every is not None:
            return self.judging.eval_every
        often = self._recipe() == "fine-tune" or self.judging.patience
        return max(1, num_steps // 10) if often else 0

    def _recipe(self) -> str:
        automatic = "fine-tune" if self.model else "paper" if self.backbone_weights else "scratch"
        return self.learning.recipe or automatic

    def _budget(self, data: "Dataset") -> int:
        rounds, count = ROUNDS.get(self._recipe()), num_stored(data)
        if self.judging.overfit:
            return BY_HEART * count
        if rounds is None:
            return 200_000
        return 20_000 if self.data == "shapes" else max(5_000, rounds * count)

    def _begin(self, classes: tuple[str, ...]) -> Beginning:
        seed = self.learning.seed
        freeze = tuple(part.strip() for part in self.freeze.split(",") if part.strip())
        if not self.model:
            name, weights = self.preset or "nano", self.backbone_weights
            return from_preset(name, len(classes), weights, freeze, seed, self.size)
        for option, value in (("preset", self.preset), ("backbone-weights", self.backbone_weights)):
            if value:
                what = f"cannot be had with --model {self.model}, which brings its own"
                raise ConfigError(f"--{option}", what, "leave one of them out")
        return from_model(self.model, classes, freeze, seed, self.size, self.names)

    def _data(self, metadata: "Metadata") -> tuple["Dataset", "Dataset"]:
        from rtdetr_lab.commands.sets import training_set, validation_set

        if self.judging.overfit:
            count = self.judging.overfit * self.learning.batch_size
            few = validation_set(self.data, metadata, count, "train")
            return few, few
        stored = self._augmentation(metadata) is not None
        learn = training_set(self.data, metadata, self.learning.seed, stored)
        return learn, validation_set(self.data, metadata, self.judging.val_limit)

    def _augmentation(self, metadata: "Metadata") -> "Augmentation | AspectAugmentation | None":
        from rtdetr_lab.data.augment import paper_augmentation, v2_augmentation
        from rtdetr_lab.data.augment_detr import detr_augmentation

        size, edges = metadata.fixed_size, metadata.edges
        asked = self.learning.recipe
        chosen = self.learning.augment or (asked if asked in ("paper", "v2") else "flip")
        if chosen == "flip" or self.judging.overfit:
            return None
        if self.data == "shapes":
            what = "shapes are told apart by their aspect, which crops would change"
            raise ConfigError("--augment", what, "say flip, or give a folder as --data")
        if chosen == "paper":
            whole = paper_augmentation(size[0])
            return detr_augmentation(edges) if edges else replace(whole, size=size)
        if edges:
            what = (
                "v2 is RT-DETRv2's, which stretches pictures to squares; a DETR keeps their shape"
            )
            raise ConfigError("--augment", what, "say paper, which for a DETR is its own, or flip")
        return replace(v2_augmentation(size[0]), size=size)
