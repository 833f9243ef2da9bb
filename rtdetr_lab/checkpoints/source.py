r"""# Source: from a name to files

`names.py` finds out what a name refers to. This file turns it into a weights file, the config
beside it, and their source.

| the name refers to      | weights                                                          |
|-------------------------|------------------------------------------------------------------|
| a file                  | the file itself                                                  |
| a folder with a config  | the first of `hub.WEIGHTS` in it                                 |
| a save that was stopped | `model.safetensors`, without a config                            |
| the folder of a run     | those in its `model/`; without it, its best state, else its last |
| a repository            | a snapshot in the hub's cache: a folder with a config            |
| an embedded model       | a file of this package, compared with the digest in its record   |
"""

import hashlib
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path

from rtdetr_lab.checkpoints.files import read_json
from rtdetr_lab.checkpoints.hub import ALIASES, WEIGHTS, fetch, licence_in
from rtdetr_lab.checkpoints.names import Model, model_of
from rtdetr_lab.checkpoints.run_state import STATES
from rtdetr_lab.config import require
from rtdetr_lab.errors import CheckpointError, UnknownModelError

log = logging.getLogger("rtdetr_lab")

ASSETS = Path(__file__).resolve().parents[1] / "assets"


@dataclass(frozen=True)
class Source:
    """Weights file, the config beside it if there is one, and their source.

    `sha256` is the required digest of the tensors, if it is pinned. `cut_short` is True for the
    folder of a save that was stopped: only the weights say what they are.
    """

    weights: Path
    config: Path | None
    name: str
    revision: str | None = None
    licence: str | None = None
    sha256: str | None = None
    cut_short: bool = False


def locate(id_or_path: str | os.PathLike[str], revision: str | None = None) -> Source:
    """Follow a name to a file, on the hub if necessary.

    Raises `UnknownModelError`, `HubError`, or `CheckpointError` for a path without weights.
    """
    named, name = model_of(id_or_path), os.fspath(id_or_path)
    if named.repo:
        return _on_the_hub(named, revision)
    what = "is not on the hub, and has no revisions"
    require(revision is None, name, what, "leave revision out", CheckpointError)
    if named.path is None:
        return _embedded(named.embedded)
    return _folder(named.path) if named.path.is_dir() else _file(named.path)


def _on_the_hub(named: Model, asked: str | None) -> Source:
    """Locate a repository at its pinned commit, unless another revision is requested."""
    found = fetch(named.repo, named.revision(asked))
    source = _folder(found.folder)
    pinned = named.pin is not None and named.pin.revision == named.revision(asked)
    return replace(
        source,
        name=named.repo,
        revision=found.revision,
        sha256=named.pin.sha256 if named.pin and pinned else None,
    )


def _file(path: Path) -> Source:
    beside = path.parent / "config.json"
    named_by_us = path.name in WEIGHTS and beside.is_file()
    licence = licence_in(path.parent)
    return Source(path, beside if named_by_us else None, str(path), licence=licence)


def _folder(folder: Path) -> Source:
    config = folder / "config.json"
    if config.is_file():
        return Source(_weights_in(folder), config, str(folder), licence=licence_in(folder))
    if (folder / WEIGHTS[0]).is_file():
        return Source(folder / WEIGHTS[0], None, str(folder), cut_short=True)
    if (folder / "model" / "config.json").is_file():
        log.info("%s: is a run; using its model/", folder)
        return _folder(folder / "model")
    if states := [folder / name for name in STATES if (folder / name).is_file()]:
        log.info("%s: is a run; using its %s", folder, states[0].name)
        return Source(states[0], None, str(states[0]))
    raise CheckpointError(str(folder), "holds no model: it has no config.json", _inside(folder))


def _inside(folder: Path) -> str:
    """Return a remedy that names the folders inside this one that hold a model."""
    files = ("config.json", "model/config.json", *STATES)
    below = sorted(p for p in folder.iterdir() if any((p / file).is_file() for file in files))
    if below:
        return f"did you mean {' or '.join(map(str, below[:3]))}?"
    return "give a folder of save_pretrained or of a run, or the weights file with config="


def _weights_in(folder: Path) -> Path:
    there = [folder / name for name in WEIGHTS if (folder / name).is_file()]
    what = f"has none of {', '.join(WEIGHTS)}"
    require(there, folder, what, "save the model there again", CheckpointError)
    return there[0]


def _embedded(name: str) -> Source:
    weights, record = ASSETS / f"{name}.safetensors", ASSETS / f"{name}.json"
    what, remedy = "is not part of this installation", f"use one of {', '.join(ALIASES)} instead"
    require(weights.is_file() and record.is_file(), name, what, remedy, UnknownModelError)
    recorded = read_json(record)
    same = hashlib.sha256(weights.read_bytes()).hexdigest() == recorded.get("sha256")
    what = f"is not the file that {record.name} describes"
    require(same, weights, what, "install the package again", CheckpointError)
    licence = recorded.get("licence")
    return Source(weights, None, name, licence=licence if isinstance(licence, str) else None)
