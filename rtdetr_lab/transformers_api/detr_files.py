r"""# DETR's files: whose names, which pixels, with or without masks

The tensors of the backbone are written under the names that the configuration's backbone stands
for, timm's or transformers' own: a folder that came with timm's names goes with them.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from rtdetr_lab.checkpoints.files import write_weights
from rtdetr_lab.checkpoints.metadata import Metadata
from rtdetr_lab.checkpoints.preprocessor import Pixels, detr_preprocessor_config
from rtdetr_lab.checkpoints.rename import export_tensors
from rtdetr_lab.checkpoints.save import write_card
from rtdetr_lab.checkpoints.tables_detr import DETR, DETR_MASKS, DETR_MASKS_TIMM, DETR_TIMM
from rtdetr_lab.checkpoints.transformers_detr import draws
from rtdetr_lab.writing import write_text

ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def as_normalised(lab: Any) -> nn.Module:
    """The model, for pixels that somebody else has normalised; `.pixels` says how."""
    if getattr(lab, "pixels", None) is None:
        cfg, known = lab.cfg, lab.metadata
        pixels = Pixels(mean=cfg.mean, std=cfg.std)
        if known.image_size is not None:
            pixels = replace(pixels, edges=known.edges, image_size=known.image_size)
        lab.pixels, lab.cfg = pixels, replace(cfg, mean=ZERO, std=ONE)
    found: nn.Module = lab
    return found


def write_detr(lab: Any, folder: Path, timm: bool, known: Metadata) -> None:
    """Weights, `preprocessor_config.json` and licence, in transformers' layout."""
    own, others = (DETR_MASKS, DETR_MASKS_TIMM) if draws(lab.cfg) else (DETR, DETR_TIMM)
    # Their batch norms are always frozen, and do not count.
    counted = {n: t for n, t in lab.state_dict().items() if not n.endswith("num_batches_tracked")}
    folder.mkdir(parents=True, exist_ok=True)
    tensors = export_tensors(others if timm else own, counted, str(folder))
    write_weights(folder / "model.safetensors", tensors, {})
    text = json.dumps(detr_preprocessor_config(lab.pixels), indent=2) + "\n"
    write_text(folder / "preprocessor_config.json", text)
    write_card(folder, known.licence)
