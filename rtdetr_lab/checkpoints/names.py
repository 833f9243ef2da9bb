r"""# Names: what a name for a model or for data refers to

| name                                       | refers to                                        |
|--------------------------------------------|--------------------------------------------------|
| anything that exists on the disk           | that file or folder, whatever else it could mean |
| `./x`, `/x`, `~/x`, `x/`, `C:\x`, a `Path` | a path, even if it does not exist                |
| `nano`, `nano-seg`                         | a checkpoint inside this package                 |
| `r18`, `v2_r50` …                          | a published checkpoint, `hub.ALIASES`            |
| `shapes`, as data                          | the drawn world                                  |
| `owner/name`                               | a repository on the hub                          |
| `name:r18`, `name:shapes`, `name:org/repo` | the name, even if such a path exists             |

The first row that fits decides. If a file or folder takes the place of a known name, we log a
warning.
"""

import logging
import os
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from rtdetr_lab.checkpoints.hub import ALIASES, PINS, Pin
from rtdetr_lab.errors import CheckpointError, UnknownModelError

log = logging.getLogger("rtdetr_lab")

NAME = "name:"
"""Prefix of a word that must not be read as a path."""

EMBEDDED = ("nano", "nano-seg")
FILES = (".safetensors", ".pth", ".pt", ".bin", ".json", ".onnx", ".ckpt")
HUB_ID = r"[\w-][\w.-]*/[\w.-]+"


@dataclass(frozen=True)
class Model:
    """Meaning of a model's name: a path, an embedded file, or a repository of the hub and its
    pin."""

    path: Path | None = None
    repo: str = ""
    pin: Pin | None = None
    embedded: str = ""

    def revision(self, asked: str | None) -> str | None:
        """Return the requested revision, else the pinned one."""
        return asked or (self.pin.revision if self.pin else None)


def path_of(word: str | os.PathLike[str]) -> Path | None:
    """Return the path that a word refers to, or None for a name."""
    text = os.fspath(word)
    path = Path(os.path.expanduser(text))
    if not isinstance(word, str):
        return path
    if not text or text.startswith(NAME):
        return None
    looks_so = re.match(r"[./~\\]|[A-Za-z]:[/\\]", text) or text.endswith(("/", *FILES))
    looks_so = looks_so or "\\" in text or text.count("/") > 1
    return path if looks_so or os.path.exists(path) else None


def note_of(word: str, meant: str) -> str:
    """Return the warning for a path that takes the place of a name."""
    kind = "folder" if Path(word).is_dir() else "file"
    return f"{word}: this is the {kind} {Path(word).resolve()}; for {meant} type {NAME}{word}"


def model_of(word: str | os.PathLike[str]) -> Model:
    """Resolve a word for a model.

    Raises `CheckpointError` for a path that does not exist, and `UnknownModelError`.
    """
    path = path_of(word)
    if path is None:
        return _named(os.fspath(word).removeprefix(NAME))
    if not os.path.exists(path):
        raise CheckpointError(os.fspath(word), "does not exist", _remedy(os.fspath(word)))
    known = {**dict.fromkeys(EMBEDDED, "the embedded model"), **ALIASES}
    known |= {repo: "the published model" for repo in ALIASES.values()}
    if isinstance(word, str) and word in known:
        log.warning(note_of(word, known[word]))
    return Model(path)


def _named(name: str) -> Model:
    if name in EMBEDDED:
        return Model(embedded=name)
    if name in ALIASES:
        return Model(repo=ALIASES[name], pin=PINS.get(name))
    if re.fullmatch(HUB_ID, name):
        return Model(repo=name)
    known = [*ALIASES, *EMBEDDED]
    near = get_close_matches(name, known, n=3, cutoff=0.4) or known
    remedy = f"nearest: {', '.join(near)}; or give a hub id (owner/name), a folder or a file"
    raise UnknownModelError(name, "is not a known model, and no such path exists", remedy)


def _remedy(text: str) -> str:
    bare = text.removeprefix("./").rstrip("/")
    if bare in (*EMBEDDED, *ALIASES):
        return f"type {bare} for the published model, or check the current folder"
    if os.path.exists(text.replace("\\", "/")):
        return f"here folders are separated by /: give {text.replace(chr(92), '/')}"
    return "check the path, and the current folder"
