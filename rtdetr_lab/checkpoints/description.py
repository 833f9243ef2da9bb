r"""# Description: the configuration of a file of weights

The configuration comes from the first of these that exists:

1. `config=`, from the caller;
2. `config.json` beside the weights, ours or transformers';
3. the header of a `.safetensors` file that we wrote;
4. the shapes (`infer.py`), since the authors' `.pth` files contain nothing else.

A save that is stopped leaves weights without a `config.json` (`save.py`). Then the folder holds the
model that the header describes, and is refused if the header describes none.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from rtdetr_lab.checkpoints.files import FORMAT, HEADER, WeightsFile, read_json, text_digest
from rtdetr_lab.checkpoints.infer import infer_config, infer_detr, is_detr
from rtdetr_lab.checkpoints.metadata import Metadata, metadata_for, metadata_from_dict
from rtdetr_lab.checkpoints.preprocessor import detr_metadata, image_size_of, pixels_of
from rtdetr_lab.checkpoints.source import Source
from rtdetr_lab.checkpoints.strict import num_classes_of
from rtdetr_lab.checkpoints.transformers_config import from_transformers
from rtdetr_lab.checkpoints.transformers_table import placed
from rtdetr_lab.config import require
from rtdetr_lab.config_json import from_dict
from rtdetr_lab.detr.model import DETRConfig
from rtdetr_lab.errors import CheckpointError, converting

log = logging.getLogger("rtdetr_lab")

KNOWN = {"format", "version", "model", "metadata", "sha256"}


def described(
    source: Source,
    weights: WeightsFile,
    tensors: Mapping[str, Tensor],
    config: Any,
    classes: Sequence[Any],
) -> tuple[Any, Metadata]:
    """Return configuration and metadata; raise `CheckpointError` or `ConfigError`."""
    found: tuple[Any, Metadata] | None = None
    if source.config is not None:
        found = _from_json(source, weights, classes)
    elif HEADER in weights.header:
        found = _from_ours(_header(weights), weights.where, classes)
    if source.cut_short:
        what = "has no config.json, and the weights do not describe themselves"
        require(found, source.name, what, "save the model there again", CheckpointError)
        log.warning("%s: has no config.json: a save was cut short", source.name)
    if found is not None:
        return config or found[0], found[1]
    if is_detr(tensors):
        cfg = config or infer_detr(tensors, weights.where)
        return cfg, detr_metadata(num_classes_of(tensors) or cfg.num_classes)
    scale = next((t for n, t in weights.tensors.items() if n.endswith("points_scale")), None)
    cfg = config or infer_config(tensors, weights.where, scale)
    return cfg, metadata_for(num_classes_of(tensors) or cfg.num_classes, image_size=(640, 640))


def _from_json(
    source: Source, weights: WeightsFile, classes: Sequence[Any]
) -> tuple[Any, Metadata]:
    assert source.config is not None
    tree, where = read_json(source.config), str(source.config)
    if tree.get("format") == FORMAT:
        cfg, metadata = _from_ours(tree, where, classes)
        what = f"describes other weights than {source.weights.name}"
        same, remedy = metadata.sha256 in (None, weights.sha256), "copy both from the same save"
        require(same, where, what, remedy, CheckpointError)
        return cfg, metadata
    what = 'is neither ours ("format") nor transformers\' ("model_type")'
    remedy = "give a folder that save_pretrained wrote"
    require("model_type" in tree, where, what, remedy, CheckpointError)
    draws = any("mask_head." in name for name in weights.tensors)
    cfg, names = from_transformers(tree, where, draws)
    beside = source.config.parent / "preprocessor_config.json"
    if isinstance(cfg, DETRConfig):
        pixels = pixels_of(beside)
        known = detr_metadata(cfg.num_classes, names, pixels)
        return replace(cfg, mean=pixels.mean, std=pixels.std), known
    return cfg, metadata_for(cfg.num_classes, names, image_size=image_size_of(beside))


def _from_ours(tree: Mapping[str, Any], where: str, classes: Sequence[Any]) -> tuple[Any, Metadata]:
    what = f"has format version {tree.get('version')}, this package reads only 1"
    require(tree.get("version") == 1, where, what, "upgrade rtdetr_lab", CheckpointError)
    extra, remedy = sorted(set(tree) - KNOWN), f"keep {', '.join(sorted(KNOWN))}, remove the rest"
    require(not extra, where, f"has {', '.join(map(repr, extra))}, which nothing reads", remedy)
    rest = {key: value for key, value in tree.items() if key != "sha256"}
    same = tree.get("sha256", text_digest(rest)) == text_digest(rest)
    remedy = 'fetch it again; if you edited it yourself, remove the line "sha256"'
    what = "is not as it was saved: its sha256 differs"
    require(same, where, what, remedy, CheckpointError)
    with placed(where):
        cfg = from_dict(tree.get("model"), classes)
        return cfg, metadata_from_dict(tree.get("metadata", {}), where)


def _header(weights: WeightsFile) -> dict[str, Any]:
    where, remedy = f"{weights.where}[{HEADER}]", "save the model again"
    with converting(ValueError, CheckpointError, where, "is not JSON: {}", remedy):
        tree = json.loads(weights.header[HEADER])
    return tree if isinstance(tree, dict) else {}
