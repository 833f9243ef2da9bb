r"""# Files: read tensors without trust, write them completely or not at all

A weights file may come from a stranger. `.safetensors` contains tensors and text and cannot do
harm; for a `.pth` see `pickles.py`. Every failure becomes a `CheckpointError`.

Neither format detects a flipped bit. So what we write contains a digest of its tensors, and what we
read is compared with it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rtdetr_lab.checkpoints.foreign import AGAIN, check_kind, is_safetensors
from rtdetr_lab.checkpoints.pickles import read_pickle
from rtdetr_lab.checkpoints.run_state import is_state, read_state
from rtdetr_lab.config import require
from rtdetr_lab.errors import CheckpointError, converting
from rtdetr_lab.writing import MAKE_ROOM, first_few, replacing

FORMAT = "rtdetr_lab"
"""Value of `format` in our descriptions."""

HEADER = "rtdetr_lab.config"
"""Key of the description in the header of our `.safetensors` files."""

DIGEST = "rtdetr_lab.sha256"
"""Key of the digest in a file's header."""

HEADER_DIGEST = "rtdetr_lab.header_sha256"
"""Key of the digest of the rest of the header."""

DIGESTS = "rtdetr_lab.sha256s"
"""Key of the first digits of every tensor's own digest; they tell which tensor is damaged."""

MOST_KEYS = 1_000_000
"""Limit on the keys of a header, far above the thousands of any model. Without it, a header with
four million keys takes 47 s and 1.9 GB to parse."""

LARGEST_HEADER = 100_000_000
"""Bytes of a header; safetensors refuses a larger one."""


@dataclass(frozen=True, eq=False)
class WeightsFile:
    """Tensors by name, the text beside them, and their source."""

    tensors: dict[str, Tensor]
    where: str
    header: dict[str, str] = field(default_factory=dict)

    @cached_property
    def sha256(self) -> str:
        """Digest of the tensors, from the header or computed."""
        return self.header.get(DIGEST) or digest(self.tensors)


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 over names, types, shapes and bytes, in the order of the names."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _digests(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    return {name: digest({name: tensor})[:16] for name, tensor in tensors.items()}


def _which_differ(tensors: Mapping[str, Tensor], written: str | None) -> str:
    """Name the tensors that differ from the header's digests; old files have no digests."""
    try:
        wanted, found = dict(json.loads(written or "{}")), _digests(tensors)
    except (ValueError, TypeError):
        return ""
    odd = [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]
    return f" in {first_few(odd)} of {len(wanted)}" if wanted and odd else ""


def read_weights(path: Path) -> WeightsFile:
    """Read any weights file.

    This is a `.safetensors`, its `.index.json`, a state of a run, or a torch pickle of plain
    tensors. Raises `CheckpointError`; for a file without weights it names the kind of file.
    """
    require(path.is_file(), path, "does not exist", "check the path", CheckpointError)
    check_kind(path)
    if is_state(path):
        return _read_state(path)
    if path.suffix == ".safetensors" or is_safetensors(path):
        return _read_safetensors(path)
    if path.name.endswith(".index.json"):
        return _read_shards(path)
    return WeightsFile(read_pickle(path), str(path))


def write_weights(
    path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str], config: Path | None = None
) -> str:
    """Write a `.safetensors` file with its digest in the header; return the digest.

    `config` describes the file that was there, and is removed with it.
    """
    own = {name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}
    sha256 = digest(own)
    full = {"format": "pt", **header, DIGEST: sha256, DIGESTS: json.dumps(_digests(own))}
    full.pop(HEADER_DIGEST, None)  # it belongs to the file this header was read from
    full[HEADER_DIGEST] = text_digest(full)
    ours = converting(SafetensorError, CheckpointError, path, "cannot be written: {}", MAKE_ROOM)
    with replacing(path, CheckpointError, outdates=config) as temporary, ours:
        save_file(own, temporary, full)
    return sha256


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file, or raise `CheckpointError`."""
    kinds = (OSError, ValueError, RecursionError)
    with converting(kinds, CheckpointError, path, "cannot be read: {}", AGAIN):
        tree = json.loads(path.read_text(encoding="utf8"))
    require(isinstance(tree, dict), path, "is not a JSON object", AGAIN, CheckpointError)
    found: dict[str, Any] = tree
    return found


def _read_safetensors(path: Path) -> WeightsFile:
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        num_keys = file.read(min(length, LARGEST_HEADER)).count(b":")
    what = f"its header has {num_keys:,} keys, {MOST_KEYS:,} allowed"
    require(num_keys <= MOST_KEYS, path, what, "do not use this file", CheckpointError)
    kinds, what = (SafetensorError, OSError, ValueError), "is truncated or not a safetensors file"
    ours = converting(kinds, CheckpointError, path, what + " ({})", AGAIN)
    with ours, safe_open(str(path), framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = dict(file.metadata() or {})
    _check_header(header, path)
    if DIGEST in header and header[DIGEST] != digest(tensors):
        what = "does not have the tensors that were written: their digest differs"
        what += _which_differ(tensors, header.get(DIGESTS))
        raise CheckpointError(str(path), what, AGAIN)
    return WeightsFile(tensors, str(path), header)


def _check_header(header: Mapping[str, str], path: Path) -> None:
    """Check the text beside the tensors: the configuration, class names, the licence."""
    rest = {key: value for key, value in header.items() if key != HEADER_DIGEST}
    same = header.get(HEADER_DIGEST, text_digest(rest)) == text_digest(rest)
    what = "its header is not as it was written: the digest differs"
    require(same, path, what, AGAIN, CheckpointError)
    there = HEADER_DIGEST in header or DIGESTS not in header
    require(there, path, "its header has lost its digest", AGAIN, CheckpointError)


def text_digest(tree: Mapping[str, Any]) -> str:
    """Return the sha256 of values that JSON can hold, independent of their order."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def _read_state(path: Path) -> WeightsFile:
    """Read the averaged weights of a training run, with a description as if saved alone."""
    state = read_state(path)
    known = state.get("metadata") or {n: state[n] for n in ("names", "category_ids") if n in state}
    tree = {"format": FORMAT, "version": 1, "model": json.loads(state["cfg"]), "metadata": known}
    return WeightsFile(state["ema"], str(path), {HEADER: json.dumps(tree)})


def shards_of(index: Path) -> list[str]:
    """Return the names of the files that a `.index.json` lists, all beside it.

    Raises `CheckpointError`, also for a `weight_map` that does not map names to file names.
    """
    listed = read_json(index).get("weight_map")
    names = listed.values() if isinstance(listed, dict) else []
    what = "its weight_map does not give a file name for every tensor"
    good = names and all(isinstance(name, str) for name in names)
    require(good, index, what, AGAIN, CheckpointError)
    for name in (names := sorted(set(names))):
        beside = Path(name).name == name
        require(beside, index, f"{name!r} is not beside it", "do not use it", CheckpointError)
    return names


def _read_shards(index: Path) -> WeightsFile:
    tensors: dict[str, Tensor] = {}
    for name in shards_of(index):
        tensors.update(read_weights(index.parent / name).tensors)
    return WeightsFile(tensors, str(index))
