"""# Beginnings: what a run starts from: a preset, a preset with a backbone, or a whole model"""

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
class Beginning:
    """What `train` is given, its configuration, and the size of pictures it is made for."""

    start: Any
    cfg: Any
    size: int


def from_model(name: str, classes: Sequence[str], freeze: Sequence[str], seed: int) -> Beginning:
    """A pretrained model with heads for these classes; says what was done to it."""
    from rtdetr_lab.checkpoints.load import load_pretrained
    from rtdetr_lab.training.finetune import prepare

    model: Any = load_pretrained(name)
    size = min(model.metadata.image_size)
    ready = prepare(model, classes, freeze, seed)
    for line in ready.lines():
        say(line if line.startswith(" ") else f"{name}: {line}")
    return Beginning(ready.model, getattr(ready.model, "cfg"), size)  # noqa: B009 (a Module's)


def from_preset(
    name: str, num_classes: int, backbone: str | None, freeze: Sequence[str], seed: int
) -> Beginning:
    """A new model, or one whose backbone is pretrained; only then can parts of it be frozen."""
    from torch import nn

    from rtdetr_lab.config import build, replace_at
    from rtdetr_lab.training.finetune import freeze_module
    from rtdetr_lab.training.state import seed_everything

    cfg, full = preset(name, num_classes), 800 if name.startswith("detr_") else 640
    size = 256 if name.endswith("nano") else full
    if not backbone:
        if freeze:
            what, remedy = "would freeze weights that never learnt anything", "give --model"
            raise ConfigError("--freeze", what, f"{remedy}, or --backbone-weights")
        # Frozen statistics are those of a pretrained backbone; new weights need their own.
        cfg = replace_at(cfg, "backbone.norm", nn.BatchNorm2d)
        if name.startswith("detr_"):
            cfg = replace_at(cfg, "backbone.frozen_stages", 0)
    if not freeze:
        return Beginning(cfg, cfg, size)
    seed_everything(seed)
    model = build(cfg)
    for part in freeze:
        freeze_module(model, part)
    return Beginning(model, cfg, size)


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
