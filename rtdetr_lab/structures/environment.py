"""# Environment: the versions and the machine of a run, so that it can be repeated"""

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
    """Return versions, machine, threads, commit and command line, as plain values."""
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
    """Return the number of cores that this process may use.

    This is the number of all cores if the system sets no limit.
    """
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def commit(package: Path = PACKAGE) -> str | None:
    """Return the commit of the checkout that the package runs from.

    A `+` follows if files differ from it. An installed package gives None: it has its version.
    """
    if not (package.parent / ".git").exists():
        return None
    git = ["git", "-C", str(package.parent)]
    try:
        head = _output([*git, "rev-parse", "HEAD"])
        return head + ("+" if _output([*git, "status", "--porcelain", "--", str(package)]) else "")
    except (OSError, subprocess.SubprocessError):
        return None  # git is missing, or may not read the checkout


def _output(command: list[str]) -> str:
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return found.stdout.strip()
