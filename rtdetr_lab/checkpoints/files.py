r"""# Files: tensors read without trust, written without leaving halves

A weights file comes from somebody else. `.safetensors` holds tensors and text and can do no harm;
a `.pth` is a pickle, and is opened only by torch's restricted reader, which builds tensors and
plain containers and refuses everything else. Whatever goes wrong becomes a `CheckpointError`.

Neither format notices a flipped bit, so what we write carries a digest of its tensors, and what we
read is held against it. A file appears under its name only when it is complete and on the disk.
"""

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rtdetr_lab.errors import CheckpointError

DIGEST = "rtdetr_lab.sha256"
"""Key of the digest in a file's header."""

HEADER_DIGEST = "rtdetr_lab.header_sha256"
"""Key of the digest of all else in the header."""

DIGESTS = "rtdetr_lab.sha256s"
"""Key of the beginnings of every tensor's own digest: which one is damaged?"""

NESTED = (("ema", "module"), ("ema",), ("model_ema",), ("model",), ("state_dict",), ("module",))
"""Where training scripts put the weights inside a `.pth`, the averaged ones first."""


@dataclass(frozen=True, eq=False)
class WeightsFile:
    """Tensors by name, the text beside them, and where they came from."""

    tensors: dict[str, Tensor]
    where: str
    header: dict[str, str] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Digest of the tensors, as written in the header or computed."""
        return self.header.get(DIGEST) or digest(self.tensors)


def digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes, in the order of the names."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _digests(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    return {name: digest({name: tensor})[:16] for name, tensor in tensors.items()}


def _which_differ(tensors: Mapping[str, Tensor], written: str | None) -> str:
    """Which of them, as far as the header says what each was; files of old do not."""
    try:
        wanted, found = dict(json.loads(written or "{}")), _digests(tensors)
    except (ValueError, TypeError):
        return ""
    odd = [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]
    if not wanted or not odd:
        return ""
    more = f" and {len(odd) - 3} more" if len(odd) > 3 else ""
    return f" in {', '.join(odd[:3])}{more} of {len(wanted)}"


def read_weights(path: Path) -> WeightsFile:
    """Any weights file: `.safetensors`, its `.index.json`, or a torch pickle of plain tensors."""
    if not path.is_file():
        raise CheckpointError(str(path), "does not exist", "check the path")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.name.endswith(".index.json"):
        return _read_shards(path)
    return _read_pickle(path)


def write_weights(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> str:
    """Write a `.safetensors` file with its digest in the header; returns the digest."""
    own = {name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}
    sha256 = digest(own)
    full = {"format": "pt", **header, DIGEST: sha256, DIGESTS: json.dumps(_digests(own))}
    full.pop(HEADER_DIGEST, None)  # that of the file this header was read from
    full[HEADER_DIGEST] = text_digest(full)
    write_atomically(path, lambda temporary: save_file(own, temporary, full))
    return sha256


def write_text(path: Path, text: str) -> None:
    """Write a text file, all or nothing."""
    write_atomically(path, lambda temporary: Path(temporary).write_text(text, encoding="utf8"))


def write_atomically(path: Path, write: Callable[[str], Any]) -> None:
    """Let `write` fill a temporary file beside `path`, bring it to the disk, then rename it."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp keeps it private, a checkpoint is shared
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or `CheckpointError`."""
    try:
        tree = json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(str(path), f"cannot be read: {error}", "download it again") from error
    if not isinstance(tree, dict):
        raise CheckpointError(str(path), "holds no JSON object", "download it again")
    return tree


def _read_safetensors(path: Path) -> WeightsFile:
    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            header = dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        what = f"is truncated or no safetensors file ({error})"
        raise CheckpointError(str(path), what, "download it again") from error
    _check_header(header, path)
    if DIGEST in header and header[DIGEST] != digest(tensors):
        what = "does not hold the tensors it was written with: their digest differs"
        what += _which_differ(tensors, header.get(DIGESTS))
        raise CheckpointError(str(path), what, "download it again")
    return WeightsFile(tensors, str(path), header)


def _check_header(header: Mapping[str, str], path: Path) -> None:
    """The text beside the tensors: the configuration, class names, the licence."""
    rest = {key: value for key, value in header.items() if key != HEADER_DIGEST}
    if header.get(HEADER_DIGEST, text_digest(rest)) != text_digest(rest):
        what = "its header does not say what was written: the digest differs"
        raise CheckpointError(str(path), what, "download it again")
    if DIGESTS in header and HEADER_DIGEST not in header:
        raise CheckpointError(str(path), "its header lost its digest", "download it again")


def text_digest(tree: Mapping[str, Any]) -> str:
    """sha256 of values that JSON can hold, whatever order they are in."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def _read_shards(index: Path) -> WeightsFile:
    shards = set(read_json(index).get("weight_map", {}).values())
    tensors: dict[str, Tensor] = {}
    for name in sorted(map(str, shards)):
        if Path(name).name != name:
            raise CheckpointError(str(index), f"{name!r} is no file beside it", "distrust it")
        tensors.update(read_weights(index.parent / name).tensors)
    return WeightsFile(tensors, str(index))


def _read_pickle(path: Path) -> WeightsFile:
    _check_sums(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader raises what it met: a dozen unrelated types
        # Not torch's words: they advise to switch the protection off.
        what = f"is damaged, or holds more than tensors ({type(error).__name__})"
        remedy = "download it again, or save its state_dict() alone with torch.save"
        raise CheckpointError(str(path), what, remedy) from error
    for keys in NESTED:
        inner = content
        for key in keys:
            inner = inner.get(key) if isinstance(inner, Mapping) else None
        if isinstance(inner, Mapping) and any(isinstance(v, Tensor) for v in inner.values()):
            content = inner
            break
    return WeightsFile(_only_tensors(content, path), str(path))


def _check_sums(path: Path) -> None:
    """A `.pth` is a zip, and holds a CRC of every tensor, which torch's reader does not look at."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            # An entry that claims to be a folder is read as whatever lay in memory.
            odd = [entry.filename for entry in archive.infolist() if entry.external_attr & 0x10]
            damaged = archive.testzip() or next(iter(odd), None)
    except Exception as error:  # zipfile, too, raises whatever it stumbled over
        what = f"is a damaged zip ({error or type(error).__name__})"
        raise CheckpointError(str(path), what, "download it again") from error
    if damaged is not None:
        what = "does not hold what was written: its checksum differs"
        raise CheckpointError(f"{path}[{damaged}]", what, "download it again")


def _only_tensors(content: Any, path: Path) -> dict[str, Tensor]:
    if not isinstance(content, Mapping) or not content:
        what = f"holds {type(content).__name__}, not tensors by name"
        raise CheckpointError(str(path), what, "save a state_dict()")
    for name, value in content.items():
        if not isinstance(value, Tensor):
            what = f"is {type(value).__name__}, not a tensor"
            raise CheckpointError(f"{path}[{name}]", what, "save a state_dict() alone")
    if all(name.startswith("module.") for name in content):
        return {name.removeprefix("module."): value for name, value in content.items()}
    return dict(content)
