r"""# Run state: the file from which a training run resumes

    rtdetr_lab run 1 <sha256 of all that follows>\n<torch.save …>

The file has one line of text, and a `torch.save` of plain tensors, numbers and containers: the
model, its average, the optimizer, random numbers (`training/state.py`). We check the digest first,
then read with `weights_only=True`, so nothing in the file can run code. The file also contains the
configuration and the class names. So `load_pretrained` opens it like any other checkpoint.
"""

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from rtdetr_lab.errors import CheckpointError, converting

MAGIC = b"rtdetr_lab run 1 "
HEAD = len(MAGIC) + 64 + 1

STATES = ("best.pt", "last.pt", "previous.pt")
"""File names of the states in the folder of a run, the preferred one first."""


def packed(state: dict[str, Any]) -> tuple[bytes, memoryview]:
    """Return the two parts of the file."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getbuffer()  # a view: a second copy of a large model would cost memory
    return MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n", payload


def is_state(path: Path) -> bool:
    """Return whether a file begins like a run state."""
    with open(path, "rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read_state(path: Path) -> dict[str, Any]:
    """Read a state onto the CPU; raise `CheckpointError` unless it is exactly what was saved."""
    remedy = "continue from another save, or start a new run in another folder"
    with converting(OSError, CheckpointError, path, "cannot be read: {}", remedy):
        content = path.read_bytes()
    if not content.startswith(MAGIC) or len(content) < HEAD:
        raise CheckpointError(str(path), "is not a checkpoint of a training run", remedy)
    payload = content[HEAD:]
    if hashlib.sha256(payload).hexdigest().encode() != content[len(MAGIC) : HEAD - 1]:
        raise CheckpointError(str(path), "is damaged: its sha256 does not fit its content", remedy)
    what = "holds more than tensors and numbers"  # the unpickler raises many types
    with converting(Exception, CheckpointError, path, what, remedy):
        return torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
