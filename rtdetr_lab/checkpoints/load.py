r"""# Loading: from a name to a model with its configuration and metadata

    model = load_pretrained("PekingU/rtdetr_r50vd", revision="…")
    model(images).boxes, model.cfg.num_classes, model.metadata.names, model.metadata.licence

A name leads to a file (`source.py`), and a file contains tensors (`files.py`). Their names become
ours (`rename.py`), and the files beside them give a configuration (`description.py`). Then every
tensor must fit (`strict.py`). The model is returned in eval mode.

## Stop if a file describes a larger model than it can fill

A `config.json` with one digit too many describes a backbone of a thousand million blocks. Building
it would use up the memory of the machine. So we count the parameters while a model is built from a
file, before they get their values, and stop at a multiple of what the file contains. The margin
above that is for new heads and for parts that a file may leave out.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from rtdetr_lab.checkpoints.description import described
from rtdetr_lab.checkpoints.files import WeightsFile, read_weights
from rtdetr_lab.checkpoints.metadata import Metadata, check_names, metadata_for
from rtdetr_lab.checkpoints.rename import under_our_names
from rtdetr_lab.checkpoints.save import their_table
from rtdetr_lab.checkpoints.source import Source, locate
from rtdetr_lab.checkpoints.strict import fit, is_class_head, num_classes_of
from rtdetr_lab.checkpoints.transformers_backbone import ForeignBackbone
from rtdetr_lab.checkpoints.transformers_table import placed
from rtdetr_lab.config import replace_at, require
from rtdetr_lab.errors import CheckpointError, ConfigError
from rtdetr_lab.writing import printable

log = logging.getLogger("rtdetr_lab")

SOURCE = ("source", "revision", "licence", "sha256")
"""Facts about the file itself."""


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
    found = opened(id_or_path, revision, config=config, classes=classes)
    cfg, metadata, tensors, where = found.cfg, found.metadata, found.tensors, found.where

    trained_for = num_classes_of(tensors)
    reheaded = num_classes is not None and num_classes != trained_for
    if num_classes is not None and (reheaded or num_classes != cfg.num_classes):
        cfg = replace_at(cfg, "num_classes", num_classes)
        kept = ("image_size", "edges", "canvas_boxes", *SOURCE)
        known = {name: getattr(metadata, name) for name in kept}
        metadata = replace(metadata_for(cfg.num_classes), **known)
    model = built(cfg.build, tensors, where)
    new = [name for name in model.state_dict() if is_class_head(name)] if reheaded else []
    fit(model, tensors, where, new=new)
    if new:
        what = "trained for %s classes; these heads are new and must be trained: %s"
        log.warning(what, trained_for, ", ".join(new))
    check_names(metadata, cfg.num_classes, where)
    model.metadata = metadata
    # Python's default logging shows warnings: a licence from the hub must be seen.
    level = logging.WARNING if found.source and found.source.revision else logging.INFO
    licence = printable(metadata.licence or "(not stated)")  # a stranger's text
    log.log(level, "%s: weights under licence %s", metadata.source, licence)
    return model.eval()


@dataclass(frozen=True, eq=False)
class Opened:
    """Content of a checkpoint: configuration, facts, and tensors under our names."""

    cfg: Any
    metadata: Metadata
    tensors: Mapping[str, Tensor]
    source: Source | None
    where: str


def opened(
    id_or_path: str | os.PathLike[str],
    revision: str | None = None,
    *,
    config: Any = None,
    classes: Sequence[Any] = (),
) -> Opened:
    """Read a checkpoint without building its model; for the arguments see `load_pretrained`."""
    source = locate(id_or_path, revision)
    weights = _read(source)
    tensors = under_our_names(weights.tensors, weights.where)
    cfg, metadata = described(source, weights, tensors, config, classes)
    if isinstance(getattr(cfg, "backbone", None), ForeignBackbone):
        tensors = under_our_names(weights.tensors, weights.where, their_table(cfg, {}))
    return Opened(cfg, _completed(metadata, source, weights), tensors, source, weights.where)


def built(build: Callable[[], Any], tensors: Mapping[str, Tensor], where: str) -> Any:
    """Build a model for these tensors, and refuse one that is much larger.

    The tensors replace its initial values, so the caller's random numbers stay the same.
    """
    # torch raises many types for impossible sizes
    ours = placed(where, "no model can be built from its configuration ({})", "correct its sizes")
    with torch.random.fork_rng(devices=[]), no_larger_than(tensors, where), ours:
        return build()


def _read(source: Source) -> WeightsFile:
    """Read the weights, and compare them with the verified digest if there is one."""
    weights = read_weights(source.weights)
    where = f"{source.name}@{source.revision}/{source.weights.name}"
    what = f"its tensors have sha256 {weights.sha256}, the verified ones have {source.sha256}"
    remedy = "remove it from the cache and load it again; if the digest stays, do not use it"
    same = source.sha256 in (None, weights.sha256)
    require(same, where, what, remedy, CheckpointError)
    return weights


def _completed(metadata: Metadata, source: Source, weights: WeightsFile) -> Metadata:
    return replace(
        metadata,
        source=metadata.source or source.name,
        revision=source.revision or metadata.revision,
        licence=source.licence or metadata.licence,
        sha256=weights.sha256,
    )


TIMES = 4
MORE_VALUES = 60_000_000
MORE_TENSORS = 2_000


@contextmanager
def no_larger_than(tensors: Mapping[str, Tensor], where: str) -> Iterator[None]:
    """Limit what this thread builds inside the block.

    The limit is `TIMES` the contents of `tensors`, and a margin. Raises `ConfigError` above it.
    """
    most = TIMES * len(tensors) + MORE_TENSORS
    room = TIMES * sum(t.numel() for t in tensors.values()) + MORE_VALUES
    me, count, values = threading.get_ident(), 0, 0

    def note(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal count, values
        if parameter is None or threading.get_ident() != me:
            return
        count, values = count + 1, values + parameter.numel()
        if count > most or values > room:
            what = f"describes a model with more than {count - 1:,} tensors and {room:,} values, "
            what += f"and the weights beside it have {len(tensors):,} tensors"
            raise ConfigError(where, what, "correct its depths and widths")

    handle = register_module_parameter_registration_hook(note)
    try:
        yield
    finally:
        handle.remove()
