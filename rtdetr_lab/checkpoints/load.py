r"""# Loading: from a name to a model that says what it is

    model = load_pretrained("PekingU/rtdetr_r50vd", revision="…")
    model(images).boxes, model.cfg.num_classes, model.metadata.names, model.metadata.licence

A name leads to a file (`source.py`), a file to tensors (`files.py`), their names to ours
(`rename.py`). The configuration comes from, in this order:

1. `config=`, what the caller says;
2. `config.json` beside the weights, ours or transformers';
3. the header of a `.safetensors` file that we wrote;
4. the shapes (`infer.py`): the authors' `.pth` files say nothing else.

Then every tensor must fit (`strict.py`). The model comes back in eval mode.
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from rtdetr_lab.checkpoints.files import WeightsFile, read_json, read_weights, text_digest
from rtdetr_lab.checkpoints.infer import infer_config
from rtdetr_lab.checkpoints.infer_detr import infer_detr, is_detr
from rtdetr_lab.checkpoints.metadata import Metadata, check_names, metadata_for, metadata_from_dict
from rtdetr_lab.checkpoints.preprocessor import detr_metadata, image_size_of, pixels_of
from rtdetr_lab.checkpoints.rename import import_tensors, table_of
from rtdetr_lab.checkpoints.source import Source, locate
from rtdetr_lab.checkpoints.strict import fit, is_class_head, num_classes_of
from rtdetr_lab.checkpoints.transformers_config import from_transformers
from rtdetr_lab.config import from_dict, replace_at
from rtdetr_lab.detr import DETRConfig
from rtdetr_lab.errors import CheckpointError, ConfigError, LabError

log = logging.getLogger("rtdetr_lab")

FORMAT = "rtdetr_lab"
KNOWN = {"format", "version", "model", "metadata", "sha256"}
HEADER = "rtdetr_lab.config"
"""Key of the description in the header of a `.safetensors` file of ours."""


def load_pretrained(
    id_or_path: str | os.PathLike[str],
    revision: str | None = None,
    *,
    num_classes: int | None = None,
    config: Any = None,
    classes: Sequence[Any] = (),
) -> nn.Module:
    """The model behind a short name, hub id, folder, `.safetensors` or `.pth`, in eval mode.

    `num_classes` other than the file's gives new class heads and keeps everything else; `config`
    replaces what the file says about itself; `classes` are your own classes a config may name.
    The model has `.cfg` and `.metadata`. Raises `UnknownModelError`, `HubError`, `ConfigError` or
    `CheckpointError`; nothing is ever left out or left at its initial value in silence.
    """
    source = locate(id_or_path, revision)
    weights = read_weights(source.weights)
    tensors = _under_our_names(weights)
    cfg, metadata = _description(source, weights, tensors, config, classes)

    trained_for = num_classes_of(tensors)
    reheaded = num_classes is not None and num_classes != trained_for
    if num_classes is not None and (reheaded or num_classes != cfg.num_classes):
        cfg = replace_at(cfg, "num_classes", num_classes)
        kept = {n: getattr(metadata, n) for n in ("image_size", "edges", "canvas_boxes")}
        metadata = replace(metadata_for(cfg.num_classes), **kept)
    with torch.random.fork_rng(devices=[]):  # initial values come and go: seeds of others stay
        model = _built(cfg, weights.where)
    fit(model, tensors, weights.where, reheaded=reheaded)
    if reheaded:
        _tell_new_heads(model, trained_for)
    check_names(metadata, cfg.num_classes, weights.where)
    model.metadata = _completed(metadata, source, weights)
    # What comes from somebody else is shown under Python's default logging, too.
    level = logging.WARNING if source.revision else logging.INFO
    log.log(
        level, "%s: weights under licence %s", source.name, model.metadata.licence or "(not stated)"
    )
    return model.eval()


def _built(cfg: Any, where: str) -> Any:
    try:
        return cfg.build()
    except LabError:
        raise
    except Exception as error:  # whatever torch says of sizes nobody can build
        what = f"no model can be built from its configuration ({type(error).__name__}: {error})"
        raise ConfigError(where, what.splitlines()[0], "correct its sizes") from error


def _under_our_names(weights: WeightsFile) -> dict[str, Tensor]:
    table = table_of(weights.tensors)
    return import_tensors(table, weights.tensors, weights.where) if table else weights.tensors


def _description(
    source: Source,
    weights: WeightsFile,
    tensors: Mapping[str, Tensor],
    config: Any,
    classes: Sequence[Any],
) -> tuple[Any, Metadata]:
    found: tuple[Any, Metadata] | None = None
    if source.config is not None:
        found = _from_json(source, weights, classes)
    elif HEADER in weights.header:
        found = _from_ours(_header(weights), weights.where, classes)
    if found is not None:
        return config or found[0], found[1]
    if is_detr(tensors):
        cfg = config or infer_detr(tensors, weights.where)
        return cfg, detr_metadata(num_classes_of(tensors) or cfg.num_classes)
    scale = next((t for n, t in weights.tensors.items() if n.endswith("points_scale")), None)
    cfg = config or infer_config(tensors, weights.where, scale)
    return cfg, metadata_for(num_classes_of(tensors) or cfg.num_classes)


def _from_json(
    source: Source, weights: WeightsFile, classes: Sequence[Any]
) -> tuple[Any, Metadata]:
    assert source.config is not None
    tree, where = read_json(source.config), str(source.config)
    if tree.get("format") == FORMAT:
        cfg, metadata = _from_ours(tree, where, classes)
        if metadata.sha256 not in (None, weights.sha256):
            what = f"describes other weights than {source.weights.name}"
            raise CheckpointError(where, what, "copy both files from the same save")
        return cfg, metadata
    if "model_type" not in tree:
        what = 'is neither ours ("format") nor transformers\' ("model_type")'
        raise CheckpointError(where, what, "give a folder that save_pretrained wrote")
    draws = any("mask_head." in name for name in weights.tensors)
    cfg, names = _understood(tree, where, draws)
    beside = source.config.parent / "preprocessor_config.json"
    if isinstance(cfg, DETRConfig):
        pixels = pixels_of(beside)
        known = detr_metadata(cfg.num_classes, names, pixels)
        return replace(cfg, mean=pixels.mean, std=pixels.std), known
    size = image_size_of(beside)
    return cfg, metadata_for(cfg.num_classes, names, image_size=size)


def _understood(tree: Mapping[str, Any], where: str, draws: bool) -> tuple[Any, Any]:
    try:
        return from_transformers(tree, where, draws)
    except LabError:
        raise
    except Exception as error:  # a list for a number, a word for a list: whatever it broke
        what = f"holds a value of another kind than transformers writes ({error})"
        raise ConfigError(where, what, "fetch it again") from error


def _from_ours(tree: Mapping[str, Any], where: str, classes: Sequence[Any]) -> tuple[Any, Metadata]:
    if tree.get("version") != 1:
        what = f"is of format version {tree.get('version')}, this package knows 1"
        raise CheckpointError(where, what, "upgrade rtdetr_lab")
    if extra := sorted(set(tree) - KNOWN):
        what = f"has {', '.join(map(repr, extra))}, which nothing reads"
        raise ConfigError(where, what, f"keep {', '.join(sorted(KNOWN))}, remove the rest")
    rest = {key: value for key, value in tree.items() if key != "sha256"}
    if tree.get("sha256", text_digest(rest)) != text_digest(rest):
        what = "does not say what was saved: its sha256 differs"
        remedy = 'fetch it again; if you edited it yourself, remove the line "sha256"'
        raise CheckpointError(where, what, remedy)
    try:
        return (
            from_dict(tree.get("model"), classes),
            metadata_from_dict(tree.get("metadata", {}), where),
        )
    except (ConfigError, CheckpointError) as error:  # which of all the files on this disk?
        if error.where.startswith(where):
            raise
        raise type(error)(f"{where}: {error.where}", error.what, error.remedy) from error


def _header(weights: WeightsFile) -> dict[str, Any]:
    try:
        tree = json.loads(weights.header[HEADER])
    except ValueError as error:
        where = f"{weights.where}[{HEADER}]"
        raise CheckpointError(where, f"is no JSON: {error}", "save the model again") from error
    return tree if isinstance(tree, dict) else {}


def _completed(metadata: Metadata, source: Source, weights: WeightsFile) -> Metadata:
    return replace(
        metadata,
        source=metadata.source or source.name,
        revision=source.revision or metadata.revision,
        licence=source.licence or metadata.licence,
        sha256=weights.sha256,
    )


def _tell_new_heads(model: nn.Module, trained_for: int | None) -> None:
    new = [name for name in model.state_dict() if is_class_head(name)]
    log.warning(
        "trained for %s classes; these start anew and must be trained: %s",
        trained_for,
        ", ".join(new),
    )
