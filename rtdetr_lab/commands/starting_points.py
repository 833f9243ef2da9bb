"""# Starting points: a preset, a preset with a pretrained backbone, or a whole model"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rtdetr_lab.checkpoints.presets import PRESETS, preset_of
from rtdetr_lab.commands.base import model_of, resized_for, say
from rtdetr_lab.commands.train_options import TrainOptions
from rtdetr_lab.config import require

if TYPE_CHECKING:
    from rtdetr_lab.model import DetectionModel


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
