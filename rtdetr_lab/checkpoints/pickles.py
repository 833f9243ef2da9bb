r"""# Pickles: tensors from a `.pth` that we do not trust

A `.pth` is a pickle, and a pickle is a program. We open it only with torch's restricted reader,
which builds tensors and plain containers and refuses everything else. A `.pth` is also a zip with a
checksum of every tensor. torch's reader does not check it, so we do.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtdetr_lab.checkpoints.foreign import AGAIN
from rtdetr_lab.config import require
from rtdetr_lab.errors import CheckpointError, converting

NESTED = (("ema", "module"), ("ema",), ("model_ema",), ("model",), ("state_dict",), ("module",))
"""Keys of the weights inside the `.pth` of training scripts, averaged weights first."""


def read_pickle(path: Path) -> dict[str, Tensor]:
    """Read tensors by name, or raise `CheckpointError`."""
    _check_sums(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader raises a dozen unrelated types
        # Do not quote torch's message: it advises to turn the protection off.
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
    """Check the CRC of every tensor in the zip, which torch's reader does not check."""
    if not zipfile.is_zipfile(path):
        return
    # zipfile also raises many types
    ours = converting(Exception, CheckpointError, path, "is a damaged zip ({})", AGAIN)
    with ours, zipfile.ZipFile(path) as archive:
        # An entry that claims to be a folder is read as arbitrary memory.
        odd = [entry.filename for entry in archive.infolist() if entry.external_attr & 0x10]
        damaged = archive.testzip() or next(iter(odd), None)
    what = "is not as it was written: its checksum differs"
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
