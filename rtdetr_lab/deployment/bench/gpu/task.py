"""# Task: what one call of the command measures, and on what"""

import ctypes
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rtdetr_lab.notation import Size

RUNS = 3
"""Runs that the whole measurement is planned for."""

Row = Callable[[], dict[str, Any]]
"""Function that measures a row. It may raise `Skipped` or `Cut`."""


@dataclass(frozen=True)
class Task:
    """One run into a folder. `tiny` tests the command: small models, one round."""

    out: Path
    minutes: float
    run: int = 1
    until: float = field(default=0.0)
    tiny: bool = False

    @property
    def left(self) -> float:
        """Seconds that are left of this run."""
        return self.until - time.time()

    @property
    def left_in_all(self) -> float:
        """Seconds that are left of this run and of those after it."""
        return self.left + 60 * self.minutes * max(0, RUNS - self.run)

    @property
    def device(self) -> str:
        """CUDA where there is a card."""
        return "cuda" if torch.cuda.is_available() else "cpu"

    @property
    def size(self) -> Size:
        """Height and width of the pictures."""
        return (96, 96) if self.tiny else (640, 640)

    @property
    def rounds(self) -> int:
        """Interleaved rounds of every comparison."""
        return 1 if self.tiny else 20


def end_with_parent() -> None:
    """Ask the system to kill this process when its parent ends (Linux; called between fork and
    exec)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
