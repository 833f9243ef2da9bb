r"""# Recipe: how a run learns, as a value

The defaults are the paper's for a pretrained backbone (RT-DETR §5.1), except for the budget. From
scratch everything learns at one, higher rate, and gradients are larger: `from_scratch()`.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from rtdetr_lab.config import require
from rtdetr_lab.data.augment import Augmentation
from rtdetr_lab.training.optim import Constant, Cosine, Schedule


@dataclass(frozen=True)
class TrainConfig:
    """The budget is `num_pictures` seen, however often each. `amp` computes the model, not the
    matching and the losses, in bfloat16. `augment` changes every picture as its place in the run
    says, and its size; without it the data must come in one size. Zero for `…_every` means "only
    at the end"."""

    num_pictures: int = 100_000
    batch_size: int = 16
    lr: float = 1e-4
    backbone_lr: float = 1e-5
    weight_decay: float = 1e-4
    clip_norm: float = 0.1
    warmup_steps: int = 2000
    schedule: Schedule = field(default_factory=Constant)
    ema_decay: float = 0.9999
    ema_warmup: int = 2000
    seed: int = 0
    augment: Augmentation | None = None
    amp: bool = False
    num_workers: int = 0
    log_every: int = 50
    save_every: int = 500
    eval_every: int = 0

    def __post_init__(self) -> None:
        for name in ("num_pictures", "batch_size", "lr", "clip_norm"):
            value = getattr(self, name)
            require(value > 0, name, f"is {value}", "give more than zero")
        for name, value in asdict(self).items():
            if name not in ("schedule", "augment", "seed"):
                require(value >= 0, name, f"is {value}", "give zero or more")

    @property
    def num_steps(self) -> int:
        """Steps of the whole run; the last batch is as large as the others."""
        return -(-self.num_pictures // self.batch_size)


MAY_CHANGE = {"num_pictures", "num_workers", "log_every", "save_every", "eval_every"}
"""What a resumed run may have changed: nothing here alters what a step does, but for the budget,
along which the schedule is stretched."""


def from_scratch(num_pictures: int = 200_000, **changes: Any) -> TrainConfig:
    """A small model with live batch norm and no pretrained backbone."""
    recipe: dict[str, Any] = {
        "lr": 1e-3,
        "backbone_lr": 1e-3,
        "clip_norm": 1.0,
        "warmup_steps": 500,
    }
    recipe |= {"schedule": Cosine(0.05), "ema_decay": 0.999, "ema_warmup": 500}
    return TrainConfig(num_pictures=num_pictures, **(recipe | changes))
