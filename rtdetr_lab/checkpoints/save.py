r"""# Saving: a folder that describes itself

| layout           | files                                                                       |
|------------------|-----------------------------------------------------------------------------|
| `"lab"`          | `config.json` (model and metadata), `model.safetensors`                     |
| `"transformers"` | the same two as transformers writes them, `preprocessor_config.json`, card  |

`model.safetensors` contains our description in its header as well, so the file alone is enough.
Every file is written completely or not at all. A save removes the old `config.json`, replaces the
weights, and writes the new `config.json` last. So a save that is stopped leaves no `config.json`,
and never one of another model: transformers refuses the folder, and we read the header.

The card, `README.md`, states the licence in transformers' layout. We never change a card that
contains more than the licence: a person wrote it.
"""

import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rtdetr_lab.checkpoints.files import FORMAT, HEADER, digest, text_digest, write_weights
from rtdetr_lab.checkpoints.hub import licence_in
from rtdetr_lab.checkpoints.metadata import Metadata, metadata_for
from rtdetr_lab.checkpoints.preprocessor import (
    Pixels,
    detr_preprocessor_config,
    preprocessor_config,
)
from rtdetr_lab.checkpoints.rename import export_tensors
from rtdetr_lab.checkpoints.tables import TRANSFORMERS, Table
from rtdetr_lab.checkpoints.tables_detr import DETR, DETR_MASKS, DETR_MASKS_TIMM, DETR_TIMM
from rtdetr_lab.checkpoints.tables_dfine import DFINE
from rtdetr_lab.checkpoints.tables_foreign import FOREIGN_TABLES
from rtdetr_lab.checkpoints.transformers_backbone import ForeignBackbone
from rtdetr_lab.checkpoints.transformers_config import draws, to_transformers
from rtdetr_lab.checkpoints.transformers_resnet import speaks_timm
from rtdetr_lab.config_json import to_dict
from rtdetr_lab.detr.model import DETRConfig
from rtdetr_lab.errors import CheckpointError, ConfigError, converting
from rtdetr_lab.model import declared
from rtdetr_lab.writing import printable, write_text

log = logging.getLogger("rtdetr_lab")


def save_pretrained(
    model: nn.Module,
    folder: str | os.PathLike[str],
    layout: str = "lab",
    *,
    metadata: Metadata | None = None,
) -> Path:
    """Write config and weights of `model` into `folder` and return it; `layout` is a name above.

    Without `metadata`, the model keeps its own; 80 unnamed classes are taken for COCO's. Raises
    `ConfigError` for what the layout cannot express, and `CheckpointError` for a model without a
    config or a path that is not a folder.
    """
    if layout not in LAYOUTS:
        raise ConfigError("layout", f"{layout!r} is unknown", f"use one of {', '.join(LAYOUTS)}")
    cfg, path = getattr(model, "cfg", None), Path(folder).expanduser()
    if cfg is None:
        what = "has no .cfg, so no model could be built from the file"
        raise CheckpointError(type(model).__name__, what, "save a model that cfg.build() made")
    with converting(OSError, CheckpointError, path, "cannot be made: {}", "give another path"):
        path.mkdir(parents=True, exist_ok=True)
    known = metadata or declared(model).metadata
    if not known.names:
        guessed = metadata_for(cfg.num_classes)
        known = replace(known, names=guessed.names, category_ids=guessed.category_ids)
    LAYOUTS[layout](cfg, model.state_dict(), known, path)
    return path


def _save_ours(cfg: Any, tensors: Mapping[str, Tensor], known: Metadata, folder: Path) -> None:
    text = _write_described(folder, cfg, tensors, known)
    write_text(folder / "config.json", text + "\n", CheckpointError)


def _write_described(folder: Path, cfg: Any, tensors: Mapping[str, Tensor], known: Metadata) -> str:
    """Replace the weights, remove the config of the old ones; return our description."""
    known = replace(known, sha256=digest(tensors))
    tree = {"format": FORMAT, "version": 1, "model": to_dict(cfg), "metadata": known.to_dict()}
    tree["sha256"] = text_digest(tree)
    text = json.dumps(tree, indent=2, allow_nan=False, ensure_ascii=False)
    text = text.encode("utf8", "backslashreplace").decode()  # half of a surrogate pair
    write_weights(folder / "model.safetensors", tensors, {HEADER: text}, folder / "config.json")
    return text


def _save_theirs(cfg: Any, tensors: Mapping[str, Tensor], known: Metadata, folder: Path) -> None:
    tree = to_transformers(cfg, known.names)  # first: refuses what their config cannot express
    if isinstance(cfg, DETRConfig):
        pixels = Pixels(known.edges, known.fixed_size, cfg.mean, cfg.std)
        described = detr_preprocessor_config(pixels)
    else:
        described = preprocessor_config(known.fixed_size)
    named = their_tensors(cfg, tensors, str(folder), tree)
    write_theirs(folder, cfg, named, tree, described, known)


def write_theirs(
    folder: Path,
    cfg: Any,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    preprocessor: Mapping[str, Any] | None,
    known: Metadata,
) -> None:
    """Write the files of transformers' layout; `tensors` have transformers' names.

    A preprocessor that is None stays as it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_described(folder, cfg, tensors, known)
    write_card(folder, known.licence)
    trees = {"preprocessor_config.json": preprocessor, "config.json": config}
    for name, tree in trees.items():  # the config last: it makes the folder complete
        if tree is not None:
            write_text(folder / name, json.dumps(tree, indent=2) + "\n", CheckpointError)


def their_table(cfg: Any, tree: Mapping[str, Any]) -> Table:
    """Return the table of transformers' names for a `config.json` like `tree`."""
    if isinstance(getattr(cfg, "backbone", None), ForeignBackbone):
        return FOREIGN_TABLES[isinstance(cfg, DETRConfig) + draws(cfg)]
    if tree["model_type"] != "detr":
        return DFINE if tree["model_type"] == "d_fine" else TRANSFORMERS
    own, timm = (DETR_MASKS, DETR_MASKS_TIMM) if draws(cfg) else (DETR, DETR_TIMM)
    return timm if speaks_timm(tree) else own


def their_tensors(
    cfg: Any, tensors: Mapping[str, Tensor], where: str, tree: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Return the tensors under transformers' names, for a `config.json` like `tree`."""
    kind = tree["model_type"]
    if kind == "detr":  # their batch norms are always frozen, and have no counter
        tensors = {n: t for n, t in tensors.items() if not n.endswith(".num_batches_tracked")}
    theirs = export_tensors(their_table(cfg, tree), tensors, where)
    if kind == "d_fine":
        constants = {"up": cfg.decoder.reach, "reg_scale": cfg.decoder.scale}
        theirs |= {f"model.decoder.{n}": torch.tensor([v]) for n, v in constants.items()}
        return theirs | _scales(cfg, "num_points_scale")
    return theirs | _scales(cfg, "n_points_scale") if kind == "rt_detr_v2" else theirs


def write_card(folder: Path, licence: str | None) -> None:
    """Write a model card with the licence, unless there is a card already."""
    card = folder / "README.md"
    told = card.read_text(encoding="utf8", errors="replace") if card.is_file() else ""
    if told and not re.fullmatch(r"---\nlicense: [^\n]+\n---\n", told):
        if licence and licence_in(folder) != licence:
            what = "%s stays as it is; the licence of the weights is %s"
            log.warning(what, card, printable(licence))
    elif licence:
        write_text(card, f"---\n{licence_line(licence)}\n---\n", CheckpointError)
    else:
        card.unlink(missing_ok=True)  # its licence belonged to other weights


def licence_line(licence: str) -> str:
    """Format a licence for the front matter of a card (YAML)."""
    plain = re.fullmatch(r"[\w.+-]+", licence)
    return f"license: {licence if plain else json.dumps(licence)}"


def _scales(cfg: Any, name: str) -> dict[str, Tensor]:
    """Compute 1/K of every point, which transformers' v2 and D-FINE store as a tensor."""
    scale = torch.tensor([1 / k for k in cfg.decoder.points for _ in range(k)], dtype=torch.float32)
    layers = range(cfg.decoder.num_layers)
    # One tensor each: clients save a tensor with two names once.
    return {f"model.decoder.layers.{i}.encoder_attn.{name}": scale.clone() for i in layers}


Save = Callable[[Any, Mapping[str, Tensor], Metadata, Path], None]
LAYOUTS: dict[str, Save] = {"lab": _save_ours, "transformers": _save_theirs}
