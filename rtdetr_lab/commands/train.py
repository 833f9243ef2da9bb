"""# Train: a model from nothing, or from another one

    rtdetr-lab train --preset nano --data shapes --out runs/nano --amp --stop-after 50m

The same command continues a run that was stopped. `training/ship.py` says how the nano checkpoint
was made.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rtdetr_lab.commands.base import DONE, Command, say
from rtdetr_lab.errors import ConfigError

if TYPE_CHECKING:
    from rtdetr_lab.data.augment import Augmentation
    from rtdetr_lab.training import Run, TrainConfig

PRESETS = {
    "nano": "rtdetr:rtdetr_nano",
    **{size: f"rtdetr:rtdetr_{size}" for size in ("r18", "r34", "r50_m", "r50", "r101")},
    **{
        f"v2_{size}": f"rtdetrv2:rtdetrv2_{size}" for size in ("r18", "r34", "r50_m", "r50", "r101")
    },
}
"""What `--preset` may name."""


@dataclass(frozen=True, kw_only=True)
class Train(Command):
    """Train a detector; the same command continues a stopped run. Ctrl-C saves and stops."""

    data: str = "shapes"
    """`shapes` (drawn while training), or a folder with COCO annotations train and val."""
    preset: str = "nano"
    """Architecture, with new weights: nano, r18, r34, r50_m, r50, r101, v2_r18 …"""
    model: str | None = None
    """Begin with the weights of this model instead: a short name, a hub id, a folder or a file.
    Class heads are new where the classes are others."""
    backbone_weights: str | None = None
    """Pretrained ResNet-D weights for a preset's backbone: a hub id, a folder or a file."""
    out: Path = Path("runs/train")
    """Run folder: state, metrics.jsonl, curves.png, and the model in model/."""
    pictures: int = 200_000
    """Budget: pictures seen, however often each."""
    size: int = 256
    """Height and width the model sees."""
    batch_size: int = 16
    """Pictures per step."""
    lr: float = 1e-3
    """Learning rate after the warm-up."""
    backbone_lr: float | None = None
    """That of the backbone; default: the same."""
    clip_norm: float = 1.0
    """Longest gradient."""
    warmup_steps: int = 500
    """Steps over which the rate rises."""
    seed: int = 0
    """Of weights, order and augmentation."""
    augment: Literal["flip", "paper", "v2"] = "flip"
    """For folders: mirror only, or the recipe of RT-DETR or RT-DETRv2: colours, zoom-out, crops,
    several sizes. Long runs on photos need it."""
    amp: bool = False
    """Compute in bfloat16: about half the time on a GPU, or a CPU that has it."""
    workers: int = 0
    """Processes that load pictures; 0: between the steps."""
    threads: int | None = None
    """Threads for the arithmetic; 1 is fastest where other programs compete for the cores."""
    stop_after: str | None = None
    """Pause after a time: 90s, 50m, 1.5h."""
    save_every: int = 250
    """Steps between saves."""
    eval_every: int = 0
    """Steps between validations; 0: only at the end."""
    val_limit: int | None = None
    """At most so many pictures in a validation."""
    overfit: bool = False
    """Learn one batch by heart and be judged by it: AP must come near 1, or something is wrong."""
    device: str | None = None
    """cpu, cuda, cuda:1 …; default: the GPU where there is one."""

    def run(self) -> int:
        import torch

        from rtdetr_lab.commands.sets import training_set, validation_set
        from rtdetr_lab.evaluation.evaluate import evaluate
        from rtdetr_lab.training import train

        if self.threads:
            torch.set_num_threads(self.threads)
        if self.overfit:
            learn = judge = validation_set(self.data, self.size, self.batch_size, "train")
        else:
            learn = training_set(self.data, self.size, self.seed, self._augmentation() is not None)
            judge = validation_set(self.data, self.size, self.val_limit)
        run = train(
            self._model(len(learn.names)),
            learn,
            self.out,
            self.recipe(),
            validate=lambda model: evaluate(model, judge, self.batch_size),
            backbone_weights=self.backbone_weights,
            stop_after=self.stop_after,
            device=self.device,
        )
        report(run)
        return DONE

    def recipe(self) -> "TrainConfig":
        """The options as a value."""
        from rtdetr_lab.training import from_scratch

        return from_scratch(
            self.pictures,
            batch_size=self.batch_size,
            lr=self.lr,
            backbone_lr=self.lr if self.backbone_lr is None else self.backbone_lr,
            clip_norm=self.clip_norm,
            warmup_steps=self.warmup_steps,
            seed=self.seed,
            augment=self._augmentation(),
            amp=self.amp,
            num_workers=self.workers,
            save_every=self.save_every,
            eval_every=self.eval_every,
        )

    def _augmentation(self) -> "Augmentation | None":
        from rtdetr_lab.data.augment import paper_augmentation, v2_augmentation

        if self.augment == "flip" or self.overfit:
            return None
        if self.data == "shapes":
            what = "shapes are told apart by their aspect, which crops would change"
            raise ConfigError("--augment", what, "leave it out, or give a folder as --data")
        recipe = paper_augmentation if self.augment == "paper" else v2_augmentation
        return recipe(self.size)

    def _model(self, num_classes: int) -> Any:
        from importlib import import_module

        from torch import nn

        from rtdetr_lab.config import replace_at

        if self.model:
            from rtdetr_lab.checkpoints.load import load_pretrained

            return load_pretrained(self.model, num_classes=num_classes)
        if self.preset not in PRESETS:
            what = f"{self.preset!r} is no preset"
            raise ConfigError("--preset", what, f"use one of {', '.join(PRESETS)}")
        module, _, name = PRESETS[self.preset].partition(":")
        cfg = getattr(import_module(f"rtdetr_lab.{module}"), name)(num_classes=num_classes)
        # Frozen statistics are those of a pretrained backbone; new weights need their own.
        return cfg if self.backbone_weights else replace_at(cfg, "backbone.norm", nn.BatchNorm2d)


def report(run: "Run") -> None:
    """Where it stands and where things lie."""
    scores = [r for r in run.history if "AP" in r]
    if scores:
        say(
            f"AP {scores[-1]['AP']:.3f}, AP50 {scores[-1]['AP50']:.3f} at step {scores[-1]['step']}"
        )
    state = "finished" if run.finished else "paused: the same command continues"
    say(f"step {run.step}, {state}; model in {run.folder}/model, curves in {run.folder}/curves.png")
