"""# Starting points: a preset, a preset with a backbone, or a whole model"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rtdetr_lab.checkpoints.presets import PRESETS, preset_of
from rtdetr_lab.commands.base import model_of, resized_for, say
from rtdetr_lab.errors import ConfigError

if TYPE_CHECKING:
    from rtdetr_lab.model import DetectionModel


@dataclass(frozen=True)
class StartingPoint:
    """What `train` is given, and a model of that kind, which says what it is."""

    start: Any
    model: "DetectionModel"


@dataclass(frozen=True)
class Changes:
    """What is done to a model before it learns; what is new in it follows from `seed`."""

    freeze: tuple[str, ...] = ()
    queries: int | None = None
    size: str | None = None
    seed: int = 0


def from_model(
    name: str, classes: Sequence[str], changes: Changes, names: str | None = None
) -> StartingPoint:
    """A pretrained model with heads for these classes; says what was done to it."""
    from rtdetr_lab.model import declared
    from rtdetr_lab.training.finetune import prepare

    ready = prepare(
        model_of(name, changes.size, names),
        classes,
        changes.freeze,
        changes.seed,
        changes.queries,
    )
    for line in ready.lines():
        say(line if line.startswith(" ") else f"{name}: {line}")
    return StartingPoint(ready.model, declared(ready.model))


def from_preset(
    name: str, num_classes: int, backbone: str | None, changes: Changes
) -> StartingPoint:
    """A new model, or one whose backbone is pretrained; only then can parts of it be frozen."""
    import torch
    from torch import nn

    from rtdetr_lab.config import build, replace_at
    from rtdetr_lab.model import declared
    from rtdetr_lab.training.finetune import freeze_module, with_queries
    from rtdetr_lab.training.state import seed_everything

    cfg = preset_of(name, num_classes)
    if changes.queries is not None:
        cfg = with_queries(cfg, changes.queries)
    if not backbone:
        if changes.freeze:
            what, remedy = "would freeze weights that were never trained", "give --model"
            raise ConfigError("--freeze", what, f"{remedy}, or --backbone-weights")
        # Frozen statistics are those of a pretrained backbone; new weights need their own.
        cfg = replace_at(cfg, "backbone.norm", nn.BatchNorm2d)
        if "frozen_stages" in vars(cfg.backbone):
            cfg = replace_at(cfg, "backbone.frozen_stages", 0)
    with torch.device("meta"):  # no memory, no random numbers: only asked what it is
        model = declared(build(cfg))
    model.metadata = resized_for(
        model.metadata, changes.size or PRESETS[name][1], model.takes_padding
    )
    if not changes.freeze:
        return StartingPoint(cfg, model)
    seed_everything(changes.seed)
    start = build(cfg)
    for part in changes.freeze:
        freeze_module(start, part)
    return StartingPoint(start, model)
