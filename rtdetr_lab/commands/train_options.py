"""# Train's options, by what they are about: how it learns, how it is judged, how it runs

None means "as the recipe says" (`training/recipe.py`), so that `--model` and `--data` are enough.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from rtdetr_lab.errors import ConfigError

Recipe = Literal["scratch", "fine-tune", "paper", "v2"]
Augment = Literal["flip", "paper", "v2"]


def _by(hint: str) -> object:
    """What stands in the help where tyro would say "default: None"."""
    return tyro.conf.arg(help_behavior_hint=f"(default: {hint})")


@dataclass(frozen=True, kw_only=True)
class Learning:
    """How it learns. What is not given follows from the recipe."""

    recipe: Annotated[Recipe | None, _by("fine-tune with --model, else scratch")] = None
    """scratch, fine-tune, or as published: paper (RT-DETR) or v2 (RT-DETRv2), for a preset with
    --backbone-weights."""
    pictures: Annotated[int | None, _by("200,000 from scratch, else so many rounds")] = None
    """Budget: pictures seen, however often each."""
    batch_size: int = 16
    """Pictures per step."""
    accumulate: int = 1
    """Parts in which they go through the model: more parts need less memory."""
    lr: Annotated[float | None, _by("by the recipe")] = None
    """Learning rate after the warm-up."""
    backbone_lr: Annotated[float | None, _by("a part of --lr, by the backbone's depth")] = None
    """That of the backbone."""
    clip_norm: Annotated[float | None, _by("by the recipe")] = None
    """Longest gradient."""
    warmup_steps: Annotated[int | None, _by("by the recipe")] = None
    """Steps over which the rate rises."""
    augment: Annotated[Augment | None, _by("paper and v2: their own, else flip")] = None
    """For folders: mirror only, or the recipe of RT-DETR or RT-DETRv2: colours, zoom-out, crops,
    several sizes; paper with a DETR is its own. Long runs on photos need it."""
    seed: int = 0
    """Of weights, order and augmentation."""

    def rates(self) -> dict[str, float | int]:
        """What was given of the recipe's values, apart from the rate itself."""
        names = ("backbone_lr", "clip_norm", "warmup_steps")
        return {n: v for n in names if (v := getattr(self, n)) is not None}


@dataclass(frozen=True, kw_only=True)
class Judging:
    """How it is judged while it learns."""

    eval_every: Annotated[int | None, _by("a tenth of a fine-tuning, else 0")] = None
    """Steps between validations; 0: only at the end. The best goes to model/."""
    val_limit: Annotated[int | None, _by("all")] = None
    """At most so many pictures in a validation."""
    patience: int = 0
    """End after so many validations in a row without a better AP; 0: use the whole budget."""
    min_delta: float = 0.0
    """By how much AP must be better to count as better for --patience."""
    overfit: int = 0
    """Learn so many batches by heart and be judged by them: AP must reach 0.99, or it is said what
    is wrong (exit code 1)."""


@dataclass(frozen=True, kw_only=True)
class Running:
    """How it runs. Nothing here changes what is learnt, but for the rounding of --amp."""

    amp: bool = False
    """Compute in bfloat16 on a CPU too; a GPU that has it does so anyway."""
    fp32: bool = False
    """Compute in single precision even where bfloat16 is faster."""
    device: Annotated[str | None, _by("the GPU where there is one")] = None
    """cpu, cuda, cuda:1 …"""
    workers: int = 0
    """Processes that load pictures; 0: between the steps."""
    threads: Annotated[int | None, _by("all cores")] = None
    """Threads for the arithmetic; 1 is fastest where other programs compete for the cores."""
    stop_after: Annotated[str | None, _by("the whole budget")] = None
    """Pause after a time: 90s, 50m, 1.5h."""
    save_every: int = 250
    """Steps between saves."""
    tensorboard: bool = False
    """Write the record for TensorBoard too, into tensorboard/ (needs: pip install tensorboard)."""

    @property
    def precision(self) -> bool | None:
        """What was said about bfloat16; None if nothing was."""
        if self.amp and self.fp32:
            raise ConfigError("--fp32", "contradicts --amp", "leave one of them out")
        return True if self.amp else False if self.fp32 else None
