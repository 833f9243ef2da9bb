r"""# Loading: from a name to a model with its configuration and metadata

    model = load_pretrained("PekingU/rtdetr_r50vd", revision="…")
    model(images).boxes, model.cfg.num_classes, model.metadata.names, model.metadata.licence

A name leads to a file (`source.py`), and a file contains tensors (`files.py`). Their names become
ours (`rename.py`), and the files beside them give a configuration (`description.py`). Then every
tensor must fit (`strict.py`). The model is returned in eval mode.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from rtdetr_lab.checkpoints.building import no_larger_than
from rtdetr_lab.checkpoints.description import described
from rtdetr_lab.checkpoints.files import WeightsFile, read_weights
from rtdetr_lab.checkpoints.metadata import Metadata, check_names, metadata_for
from rtdetr_lab.checkpoints.rename import under_our_names
from rtdetr_lab.checkpoints.source import Source, locate
from rtdetr_lab.checkpoints.strict import fit, is_class_head, num_classes_of
from rtdetr_lab.config import replace_at, require
from rtdetr_lab.errors import CheckpointError, ConfigError, LabError
from rtdetr_lab.writing import printable

log = logging.getLogger("rtdetr_lab")


def load_pretrained(
    id_or_path: str | os.PathLike[str],
    revision: str | None = None,
    *,
    num_classes: int | None = None,
    config: Any = None,
    classes: Sequence[Any] = (),
) -> nn.Module:
    """Return the model of a short name, hub id, folder, `.safetensors` or `.pth`, in eval mode.

    If `num_classes` differs from the file's, the class heads are new and the rest is kept. `config`
    replaces the configuration of the file; `classes` are your own classes that a config may name.
    The model has `.cfg` and `.metadata`. Raises `UnknownModelError`, `HubError`, `ConfigError` or
    `CheckpointError`; no tensor is left out or keeps its initial value without a message.
    """
    source = locate(id_or_path, revision)
    weights = _read(source)
    tensors = under_our_names(weights.tensors, weights.where)
    cfg, metadata = described(source, weights, tensors, config, classes)

    trained_for = num_classes_of(tensors)
    reheaded = num_classes is not None and num_classes != trained_for
    if num_classes is not None and (reheaded or num_classes != cfg.num_classes):
        cfg = replace_at(cfg, "num_classes", num_classes)
        kept = {n: getattr(metadata, n) for n in ("image_size", "edges", "canvas_boxes")}
        metadata = replace(metadata_for(cfg.num_classes), **kept)
    # Initial values are overwritten; the caller's random numbers stay the same.
    with torch.random.fork_rng(devices=[]), no_larger_than(tensors, weights.where):
        model = _built(cfg, weights.where)
    fit(model, tensors, weights.where, reheaded=reheaded)
    if reheaded:
        _tell_new_heads(model, trained_for)
    check_names(metadata, cfg.num_classes, weights.where)
    model.metadata = _completed(metadata, source, weights)
    # Python's default logging shows warnings: a licence from the hub must be seen.
    level = logging.WARNING if source.revision else logging.INFO
    licence = printable(model.metadata.licence or "(not stated)")  # a stranger's text
    log.log(level, "%s: weights under licence %s", source.name, licence)
    return model.eval()


def _read(source: Source) -> WeightsFile:
    """Read the weights, and compare them with the verified digest if there is one."""
    weights = read_weights(source.weights)
    where = f"{source.name}@{source.revision}/{source.weights.name}"
    what = f"its tensors have sha256 {weights.sha256}, the verified ones have {source.sha256}"
    remedy = "remove it from the cache and load it again; if the digest stays, do not use it"
    same = source.sha256 in (None, weights.sha256)
    require(same, where, what, remedy, CheckpointError)
    return weights


def _built(cfg: Any, where: str) -> Any:
    try:
        return cfg.build()
    except LabError:
        raise
    except Exception as error:  # torch raises many types for impossible sizes
        what = f"no model can be built from its configuration ({type(error).__name__}: {error})"
        raise ConfigError(where, what.splitlines()[0], "correct its sizes") from error


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
        "trained for %s classes; these heads are new and must be trained: %s",
        trained_for,
        ", ".join(new),
    )
