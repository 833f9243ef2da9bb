"""# Starting points of a run: a preset, a preset with a backbone, or a whole model"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from rtdetr_lab.commands.base import say
from rtdetr_lab.errors import ConfigError

SIZES = ("r18", "r34", "r50_m", "r50", "r101")
DETR_SIZES = ("nano", "r50", "r101", "r50_dc5", "r101_dc5")
PRESETS = {
    "nano": "rtdetr:rtdetr_nano",
    **{size: f"rtdetr:rtdetr_{size}" for size in SIZES},
    **{f"v2_{size}": f"rtdetrv2:rtdetrv2_{size}" for size in SIZES},
    **{f"detr_{size}": f"detr.model:detr_{size}" for size in DETR_SIZES},
}
"""What `--preset` may name."""


@dataclass(frozen=True)
class StartingPoint:
    """What `train` is given, its configuration, and the size of pictures it is made for."""

    model: Any
    cfg: Any
    size: int


@dataclass(frozen=True)
class Changes:
    """What is done to a model before it learns; what is new in it follows from `seed`."""

    freeze: tuple[str, ...] = ()
    queries: int | None = None
    seed: int = 0


def from_model(name: str, classes: Sequence[str], changes: Changes) -> StartingPoint:
    """A pretrained model with heads for these classes; says what was done to it."""
    from rtdetr_lab.checkpoints.load import load_pretrained
    from rtdetr_lab.training.finetune import prepare

    model: Any = load_pretrained(name)
    size = min(model.metadata.image_size)
    ready = prepare(model, classes, changes.freeze, changes.seed, changes.queries)
    for line in ready.lines():
        say(line if line.startswith(" ") else f"{name}: {line}")
    return StartingPoint(ready.model, getattr(ready.model, "cfg"), size)  # noqa: B009 (a Module's)


def from_preset(
    name: str, num_classes: int, backbone: str | None, changes: Changes
) -> StartingPoint:
    """A new model, or one whose backbone is pretrained; only then can parts of it be frozen."""
    from torch import nn

    from rtdetr_lab.config import build, replace_at
    from rtdetr_lab.training.finetune import freeze_module, with_queries
    from rtdetr_lab.training.state import seed_everything

    cfg = preset(name, num_classes)
    cfg = cfg if changes.queries is None else with_queries(cfg, changes.queries)
    full = 800 if name.startswith("detr_") else 640
    size = 256 if name.endswith("nano") else full
    if not backbone:
        if changes.freeze:
            what, remedy = "would freeze weights that were never trained", "give --model"
            raise ConfigError("--freeze", what, f"{remedy}, or --backbone-weights")
        # Frozen statistics are those of a pretrained backbone; new weights need their own.
        cfg = replace_at(cfg, "backbone.norm", nn.BatchNorm2d)
        if name.startswith("detr_"):
            cfg = replace_at(cfg, "backbone.frozen_stages", 0)
    if not changes.freeze:
        return StartingPoint(cfg, cfg, size)
    seed_everything(changes.seed)
    model = build(cfg)
    for part in changes.freeze:
        freeze_module(model, part)
    return StartingPoint(model, cfg, size)


def preset(name: str, num_classes: int) -> Any:
    """The configuration `--preset` names."""
    from importlib import import_module

    if name not in PRESETS:
        near = get_close_matches(name, PRESETS, n=2, cutoff=0.6)
        nearest = f"did you mean {' or '.join(near)}? " if near else ""
        what = f"{name!r} is no preset"
        raise ConfigError("--preset", what, f"{nearest}use one of {', '.join(PRESETS)}")
    module, _, function = PRESETS[name].partition(":")
    return getattr(import_module(f"rtdetr_lab.{module}"), function)(num_classes=num_classes)
