"""# Environment: the machine and the versions of a run, so that it can be repeated"""

import datetime
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

PACKAGE = Path(__file__).resolve().parents[1]


def environment() -> dict[str, Any]:
    """Versions, machine, threads, commit and command line, as plain values."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "rtdetr_lab": sys.modules["rtdetr_lab"].__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
    }


def num_cores() -> int:
    """Number of cores this process may use; all cores where the system gives no limit."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def commit(package: Path = PACKAGE) -> str | None:
    """The commit of the checkout the package runs from, `+` where files differ from it; None for
    an installed package, which has its version."""
    if not (package.parent / ".git").exists():
        return None
    git = ["git", "-C", str(package.parent)]
    try:
        head = _output([*git, "rev-parse", "HEAD"])
        return head + ("+" if _output([*git, "status", "--porcelain", "--", str(package)]) else "")
    except (OSError, subprocess.SubprocessError):
        return None  # no git here, or not allowed to look


def _output(command: list[str]) -> str:
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return found.stdout.strip()
