r"""# DETR's files: whose names, which pixels, with or without masks

The tensors of the backbone are written under the names that the configuration's backbone stands
for, timm's or transformers' own: a folder that came with timm's names goes with them.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from rtdetr_lab.checkpoints.metadata import Metadata
from rtdetr_lab.checkpoints.preprocessor import Pixels, detr_preprocessor_config
from rtdetr_lab.checkpoints.save import detr_tensors, write_theirs

ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def as_normalised(lab: Any) -> nn.Module:
    """The model, for pixels that somebody else has normalised; `.pixels` says how."""
    if getattr(lab, "pixels", None) is None:
        cfg, known = lab.cfg, getattr(lab, "metadata", None)
        pixels = Pixels(mean=cfg.mean, std=cfg.std)
        if known is not None:
            pixels = replace(pixels, edges=known.edges, image_size=known.image_size)
        lab.pixels, lab.cfg = pixels, replace(cfg, mean=ZERO, std=ONE)
    found: nn.Module = lab
    return found


def write_detr(lab: Any, folder: Path, timm: bool, known: Metadata) -> None:
    """Weights, `preprocessor_config.json` and licence, in transformers' layout."""
    tensors = detr_tensors(lab.cfg, lab.state_dict(), folder, timm)
    write_theirs(folder, tensors, detr_preprocessor_config(lab.pixels), known.licence)
