"""The site, built once a process."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import notebook_run
from paths import ROOT


@functools.cache
def site() -> Path:
    """The built site. In CI it is made from the notebooks as they ran just now."""
    folder = ROOT / "build" / "site"
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    if os.environ.get("CI") or notebook_run.executed.cache_info().currsize:
        notebook_run.executed()
        environment["RTDETR_LAB_NOTEBOOKS"] = str(notebook_run.HERE.folder)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)]
    made = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    return folder
