r"""# Source: where a name leads

`load_pretrained` takes one word for many things. In this order it is

| word                | what it means                                                           |
|---------------------|-------------------------------------------------------------------------|
| `nano`              | the checkpoint inside this package                                      |
| `r18`, `v2_r50` …   | a short name of a published checkpoint, `hub.ALIASES`                   |
| an existing path    | a folder (ours or transformers'), a `.safetensors` or a `.pth` file      |
| `owner/name`        | a repository on the hub                                                 |

A word that is none of these is refused, with the nearest names that are.
"""

import hashlib
import os
import re
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from rtdetr_lab.checkpoints.files import read_json
from rtdetr_lab.checkpoints.hub import ALIASES, PINS, WEIGHTS, fetch, licence_in
from rtdetr_lab.errors import CheckpointError, UnknownModelError

ASSETS = Path(__file__).resolve().parents[1] / "assets"
FILES = (".safetensors", ".pth", ".pt", ".bin", ".index.json")


@dataclass(frozen=True)
class Source:
    """A weights file, the config beside it if there is one, and where both came from; `sha256` is
    what its tensors must be, where somebody has pinned it."""

    weights: Path
    config: Path | None
    name: str
    revision: str | None = None
    licence: str | None = None
    sha256: str | None = None


def locate(id_or_path: str | os.PathLike[str], revision: str | None = None) -> Source:
    """Follow a name to a file, through the hub if need be.

    Raises `UnknownModelError`, `HubError`, or `CheckpointError` for a path without weights.
    """
    name, path = os.fspath(id_or_path), Path(id_or_path).expanduser()
    on_disk = name == "nano" or (name not in ALIASES and path.exists())
    if on_disk and revision is not None:
        raise CheckpointError(name, "is not on the hub, and has no revisions", "leave revision out")
    if name == "nano":
        return _embedded(name)
    if name in ALIASES:
        return _published(name, revision)
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        beside = path.parent / "config.json"
        named_by_us = path.name in WEIGHTS and beside.is_file()
        return Source(path, beside if named_by_us else None, name, licence=licence_in(path.parent))
    if name.endswith(FILES) or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise CheckpointError(name, "does not exist", "check the path, and the folder you are in")
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name):
        return _on_the_hub(name, revision)
    known = [*ALIASES, "nano"]
    near = get_close_matches(name, known, n=3, cutoff=0.4) or known
    remedy = f"nearest: {', '.join(near)}; or give a hub id (owner/name), a folder or a file"
    raise UnknownModelError(name, "is no model we know and no path that exists", remedy)


def _published(alias: str, revision: str | None) -> Source:
    """A short name: what was pinned for it, unless another revision is asked for."""
    pin = PINS.get(alias)
    if pin is None or revision not in (None, pin.revision):
        return _on_the_hub(ALIASES[alias], revision)
    return replace(_on_the_hub(ALIASES[alias], pin.revision), sha256=pin.sha256)


def _on_the_hub(repo: str, revision: str | None) -> Source:
    found = fetch(repo, revision)
    return Source(
        _weights_in(found.folder), found.folder / "config.json", repo, found.revision, found.licence
    )


def _folder(folder: Path) -> Source:
    config = folder / "config.json"
    if not config.is_file():
        what, remedy = "has no config.json", "give the weights file itself, with config="
        raise CheckpointError(str(folder), what, remedy)
    return Source(_weights_in(folder), config, str(folder), licence=licence_in(folder))


def _weights_in(folder: Path) -> Path:
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    what = f"has none of {', '.join(WEIGHTS)}"
    raise CheckpointError(str(folder), what, "save the model there again")


def _embedded(name: str) -> Source:
    weights, record = ASSETS / f"{name}.safetensors", ASSETS / f"{name}.json"
    if not weights.is_file() or not record.is_file():
        what = "is not part of this installation"
        raise UnknownModelError(name, what, f"use one of {', '.join(ALIASES)} instead")
    recorded = read_json(record)
    if hashlib.sha256(weights.read_bytes()).hexdigest() != recorded.get("sha256"):
        what = f"is not the file that {record.name} describes"
        raise CheckpointError(str(weights), what, "install the package again")
    licence = recorded.get("licence")
    return Source(weights, None, name, licence=licence if isinstance(licence, str) else None)
