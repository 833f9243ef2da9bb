r"""# Pickles: tensors out of a `.pth` that somebody else wrote

A `.pth` is a pickle, and a pickle is a program. It is opened only by torch's restricted reader,
which builds tensors and plain containers and refuses everything else. It is also a zip with a
checksum of every tensor, which torch's reader does not look at: we do.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtdetr_lab.checkpoints.foreign import AGAIN
from rtdetr_lab.config import require
from rtdetr_lab.errors import CheckpointError

NESTED = (("ema", "module"), ("ema",), ("model_ema",), ("model",), ("state_dict",), ("module",))
"""Where training scripts put the weights inside a `.pth`, the averaged ones first."""


def read_pickle(path: Path) -> dict[str, Tensor]:
    """Tensors by name, or `CheckpointError`."""
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
    return _only_tensors(content, path)


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
        raise CheckpointError(str(path), what, AGAIN) from error
    what = "does not hold what was written: its checksum differs"
    require(damaged is None, f"{path}[{damaged}]", what, AGAIN, CheckpointError)


def _only_tensors(content: Any, path: Path) -> dict[str, Tensor]:
    named = isinstance(content, Mapping) and content
    what = f"holds {type(content).__name__}, not tensors by name"
    require(named, path, what, "save a state_dict()", CheckpointError)
    for name, value in content.items():
        what, remedy = f"is {type(value).__name__}, not a tensor", "save a state_dict() alone"
        require(isinstance(value, Tensor), f"{path}[{name}]", what, remedy, CheckpointError)
    if all(name.startswith("module.") for name in content):
        return {name.removeprefix("module."): value for name, value in content.items()}
    return dict(content)
