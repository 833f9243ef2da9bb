"""Where the checkout lies, and what a process started from a test needs to find in it."""

import os
import signal
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
PROGRAMS = TESTS / "programs"


def child_environment(**more: str) -> dict[str, str]:
    """The environment of a child process: this checkout's package, one thread, no window."""
    fixed = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    return {**os.environ, **fixed, **more}


def hear_signals() -> None:
    """For `preexec_fn`: a child of nohup or of a background job would ignore signals."""
    from rtdetr_lab.writing import ENDING

    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)
