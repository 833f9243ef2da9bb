r"""# Refit: the weights of a file in a model of another configuration

`from_pretrained(name, dropout=0.3)` asks for the file's weights in a model the file does not
describe. They must fit to the last tensor; only a mask head may be missing, or be too many.
"""

import logging
from dataclasses import replace
from typing import Any

from torch import nn

from rtdetr_lab.detr.model import DETRConfig
from rtdetr_lab.errors import CheckpointError

log = logging.getLogger("rtdetr_lab")


def refitted(lab: Any, cfg: Any) -> nn.Module:
    """The same weights in a model of `cfg`: a mask head is left out, or starts anew and is named.

    Raises `CheckpointError` if anything else does not fit.
    """
    if isinstance(cfg, DETRConfig):
        cfg = replace(cfg, mean=lab.cfg.mean, std=lab.cfg.std)
    if cfg == lab.cfg:
        return lab  # type: ignore[no-any-return]
    model: nn.Module = cfg.build()
    mine, given = model.state_dict(), lab.state_dict()
    new = [name for name in mine if name not in given]
    odd = [n for n in (*new, *(n for n in given if n not in mine)) if not n.startswith("mask_")]
    odd += [n for n in given if n in mine and mine[n].shape != given[n].shape]
    if odd:
        what = f"the configuration asks for other tensors than were saved: {', '.join(odd[:3])}"
        raise CheckpointError(type(lab).__name__, what, "change nothing that shapes the model")
    model.load_state_dict({n: t for n, t in given.items() if n in mine}, strict=False)
    model.eval()
    if new:
        log.warning("no mask head in the file; these start anew: %s", ", ".join(new))
    model.metadata = lab.metadata
    if (pixels := getattr(lab, "pixels", None)) is not None:
        model.pixels = pixels
    return model
