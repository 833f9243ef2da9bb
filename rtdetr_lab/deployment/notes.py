"""# Notes: what was measured on this machine, for the next call

A note lies in `~/.cache/rtdetr_lab/fastest`. Its name is a digest of all that the answer depends
on: the model (its configuration, and the names and shapes of its parameters), what was asked,
processor, threads and versions. So an answer is never given for something else.
"""

import hashlib
import json
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rtdetr_lab.config_json import to_json
from rtdetr_lab.deployment.bench.report import machine
from rtdetr_lab.errors import LabError, OutputError
from rtdetr_lab.writing import cache_folder, write_text


def note_of(model: nn.Module, asked: tuple[Any, ...]) -> Path:
    """Return the file in which the answer for this model on this machine is kept."""
    here, cfg = machine(), getattr(model, "cfg", None)
    try:
        settings = to_json(cfg)
    except LabError:  # a configuration from a notebook
        settings = repr(cfg)
    shapes = [(name, tuple(p.shape)) for name, p in model.named_parameters()]
    known = [here[key] for key in ("cpu", "cores", "threads", "gpu", "python", "versions")]
    known.append(torch.backends.cpu.get_cpu_capability())
    digest = hashlib.sha256(repr((settings, shapes, asked, known)).encode()).hexdigest()
    return cache_folder() / "fastest" / f"{digest[:32]}.json"


def read_note(note: Path) -> dict[str, Any] | None:
    """Return what a note says; None if there is none, or if it is damaged."""
    try:
        kept: dict[str, Any] = json.loads(note.read_text(encoding="utf8"))
        return kept if all(kept["seconds"].values()) and kept["name"] and kept["date"] else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def keep_note(note: Path, found: dict[str, Any]) -> None:
    """Write a note. In a folder that cannot be written there is none, and we measure again."""
    with suppress(OutputError, OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        write_text(note, json.dumps(found | {"date": str(date.today())}))
