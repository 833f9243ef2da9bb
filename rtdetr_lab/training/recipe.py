r"""# Recipe: the settings of a run, as a value

The defaults are the paper's for a pretrained backbone (RT-DETR §5.1), except for the budget. From
scratch, the whole model learns at one higher rate, and gradients may be longer.

| function       | begins with           | lr   | backbone                      | schedule |
|----------------|-----------------------|------|-------------------------------|----------|
| `from_scratch` | nothing               | 1e-3 | the same                      | cosine   |
| `fine_tune`    | a whole model         | 1e-4 | × 1, ½, ⅒, 1⁄100 by its depth | cosine   |
| … of nano      | a whole model         | 1e-3 | the same                      | cosine   |
| `paper`        | a pretrained backbone | 1e-4 | 1e-5                          | constant |
| `v2`, `deim`   | a pretrained backbone | 1e-4 | × 1, ½, ⅒, 1⁄100 by its depth | constant |
"""

from dataclasses import dataclass, field, replace
from typing import Any

from rtdetr_lab.backbone import Bottleneck, ResNetDConfig
from rtdetr_lab.config import require
from rtdetr_lab.data.augment import (
    AspectAugmentation,
    Augmentation,
    paper_augmentation,
    v2_augmentation,
)
from rtdetr_lab.data.dense import deim_augmentation
from rtdetr_lab.detr.resnet import ResNetConfig
from rtdetr_lab.training.optim import Constant, Cosine, Schedule


@dataclass(frozen=True)
class ShareOfRun:
    """A number of steps as a share of the budget: at least one step, at most `most`.

    A recipe stores the share, so that the budget of a run may change.
    """

    share: float
    most: int = 10**9

    def __post_init__(self) -> None:
        require(0 < self.share <= 1, "share", f"is {self.share}", "give more than 0, at most 1")

    def of(self, num_steps: int) -> int:
        """Return the steps for a run of `num_steps` steps."""
        return max(1, min(int(num_steps * self.share), self.most))


Steps = int | ShareOfRun


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a run.

    - `num_pictures` is the budget: pictures seen, and each view counts.
    - `accumulate`: parts in which a step's pictures go through the model (`training/memory.py`).
    - `amp`: compute the model in bfloat16, but not the matching and the losses. With None, only on
      a GPU that has bfloat16.
    - `augment` changes every picture and its size, depending on the place in the run. Without it,
      all pictures must have one size (for a DETR, any size: `data/canvas.py`).
    - `patience`: end the run after this number of validations in a row that did not improve AP by
      more than `min_delta`.
    - Zero for an `…_every` means "only at the end".
    - A `ShareOfRun` becomes steps when it is used; for `ema_decay`, the number of steps that the
      average looks back.
    """

    num_pictures: int = 100_000
    batch_size: int = 16
    accumulate: int = 1
    lr: float = 1e-4
    backbone_lr: float = 1e-5
    weight_decay: float = 1e-4
    clip_norm: float = 0.1
    warmup_steps: Steps = 2000
    schedule: Schedule = field(default_factory=Constant)
    ema_decay: float | ShareOfRun = 0.9999
    ema_warmup: Steps = 2000
    seed: int = 0
    augment: Augmentation | AspectAugmentation | None = None
    amp: bool | None = None
    num_workers: int = 0
    log_every: Steps = 50
    save_every: int = 500
    eval_every: Steps = 0
    patience: int = 0
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        for name in ("num_pictures", "batch_size", "lr", "clip_norm"):
            value = getattr(self, name)
            require(value > 0, name, f"is {value}", "give more than zero")
        nothing = self.patience and not self.eval_every
        require(not nothing, "patience", "waits for validations that never come", "give eval_every")
        parts, most = self.accumulate, self.batch_size
        remedy = f"give a number from 1 to {most}"
        require(1 <= parts <= most, "accumulate", f"{most} pictures in {parts} parts", remedy)
        for name, value in vars(self).items():
            if isinstance(value, int | float) and name != "seed":
                require(value >= 0, name, f"is {value}", "give zero or more")

    @property
    def num_steps(self) -> int:
        """Return the steps of the whole run; the last batch is as large as the others."""
        return -(-self.num_pictures // self.batch_size)

    def steps(self, asked: Steps) -> int:
        """Return a number of steps, which may be given as a share of this run."""
        return asked if isinstance(asked, int) else asked.of(self.num_steps)

    @property
    def decay(self) -> float:
        """Return the part of itself that the average keeps in a step."""
        asked = self.ema_decay
        return 1 - 1 / self.steps(asked) if isinstance(asked, ShareOfRun) else asked


MAY_CHANGE = {"num_pictures", "num_workers", "log_every", "save_every", "eval_every", "accumulate"}
MAY_CHANGE |= {"patience", "min_delta"}
"""Settings that a resumed run may change. They do not change a step, with two exceptions. The
budget stretches the schedule. `accumulate` may change, because otherwise a run that no longer fits
into memory could not resume (`training/memory.py` lists its effects)."""


def from_scratch(num_pictures: int = 200_000, **changes: Any) -> TrainConfig:
    """Return a recipe for a small model without a pretrained backbone.

    Its batch norm is in training mode.
    """
    recipe: dict[str, Any] = {
        "lr": 1e-3,
        "backbone_lr": 1e-3,
        "clip_norm": 1.0,
        "warmup_steps": 500,
    }
    recipe |= {"schedule": Cosine(0.05), "ema_decay": 0.999, "ema_warmup": 500}
    return TrainConfig(num_pictures=num_pictures, **(recipe | changes))


def paper(num_pictures: int, size: int = 640, **changes: Any) -> TrainConfig:
    """Return the recipe of RT-DETR §5.1 and Table A for a pretrained backbone: 72 epochs, on COCO
    8.5 M pictures."""
    recipe: dict[str, Any] = {"augment": paper_augmentation(size)} | changes
    return TrainConfig(num_pictures=num_pictures, **recipe)


def v2(cfg: Any, num_pictures: int, size: int = 640, **changes: Any) -> TrainConfig:
    """Return the recipe of RT-DETRv2 §2.2: the backbone's rate depends on its depth, and the last
    pictures are plain."""
    lr = changes.get("lr", TrainConfig.lr)
    recipe: dict[str, Any] = {"augment": v2_augmentation(size)}
    recipe |= {"backbone_lr": lr * backbone_ratio(cfg)}
    return TrainConfig(num_pictures=num_pictures, **(recipe | changes))


def deim(cfg: Any, num_pictures: int, size: int = 640, **changes: Any) -> TrainConfig:
    """Return RT-DETRv2's recipe with DEIM's augmentation, for `matchability_aware(cfg)`."""
    return v2(cfg, num_pictures, size, **({"augment": deim_augmentation(size)} | changes))


def fine_tune(cfg: Any, num_pictures: int, **changes: Any) -> TrainConfig:
    """Return a recipe for a whole pretrained model of this configuration.

    Rates are RT-DETRv2's, and fall along a cosine. A small model keeps the rate of its training
    (`SMALL_LR`). Runs are short, so warm-up and average take a tenth of the run, and never more
    than in the paper.
    """
    small = depth_of(cfg) < 18
    lr = changes.get("lr", SMALL_LR if small else TrainConfig.lr)
    recipe: dict[str, Any] = {
        "lr": lr,
        "backbone_lr": lr * backbone_ratio(cfg),
        "clip_norm": 1.0 if small else TrainConfig.clip_norm,
        "warmup_steps": ShareOfRun(0.1, most=2000),
        "schedule": Cosine(0.05),
        "ema_decay": ShareOfRun(0.1, most=10_000),
        "ema_warmup": ShareOfRun(0.1, most=2000),
    }
    return TrainConfig(num_pictures=num_pictures, **(recipe | changes))


def batch_for(count: int) -> int:
    """Return the pictures per step to fine-tune on `count` pictures: 4, 8 or 16.

    On few pictures, large steps are few steps: 200 pictures in steps of 16 are 13 steps a round.
    """
    return 4 if count < 300 else 8 if count < 600 else TrainConfig.batch_size


def to_overfit(recipe: TrainConfig) -> TrainConfig:
    """Change a recipe so that the model can overfit a few pictures: no augmentation, no weight
    decay, and an average that follows closely."""
    return replace(
        recipe,
        augment=None,
        weight_decay=0.0,
        warmup_steps=ShareOfRun(1 / 20),
        schedule=Cosine(0.05),
        ema_decay=0.95,
        ema_warmup=0,
        log_every=ShareOfRun(1 / 40),
        eval_every=ShareOfRun(1 / 20),
    )


SMALL_LR = 1e-3
"""The rate of a model shallower than r18. On blood cells the embedded nano reached a higher AP in
1,600 pictures with this rate than with half of it (`docs/results/bccd.md`)."""

RATIOS = {18: 1.0, 34: 0.5, 50: 0.1, 101: 0.01}
"""Depth of a backbone → its rate, divided by the rate of the rest (RT-DETRv2 §2.2). A deeper
backbone has learned more, so it should change less."""


def backbone_ratio(cfg: Any) -> float:
    """Return the backbone's rate as a part of the rate of the rest.

    A backbone shallower than r18, as in nano, learns at the full rate. DETR's, and one that is no
    ResNet, learn at a tenth, as in their papers.
    """
    backbone = getattr(cfg, "backbone", None)
    if isinstance(backbone, ResNetConfig) or not isinstance(backbone, ResNetDConfig):
        return RATIOS[50]
    depth = depth_of(cfg)
    return next((ratio for most, ratio in RATIOS.items() if depth <= most), RATIOS[101])


def depth_of(cfg: Any) -> int:
    """Count the convolutions in a row in a model's ResNet, as its name does; 50 for any other
    backbone."""
    backbone = getattr(cfg, "backbone", None)
    if not isinstance(backbone, ResNetDConfig):
        return 50
    return 2 + sum(backbone.depths) * (3 if issubclass(backbone.block, Bottleneck) else 2)
