"""# Notebooks: copy and open them"""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rtdetr_lab.commands.base import DONE, Command, say
from rtdetr_lab.errors import ConfigError

PACKAGE = Path(__file__).resolve().parents[1]
HOMES = (PACKAGE / "_notebooks", PACKAGE.parent / "notebooks")
"""Folders of the notebooks: in an installed package, and in a checkout."""


@dataclass(frozen=True, kw_only=True)
class Notebooks(Command):
    """Copy the notebooks to a folder of yours, and open them in JupyterLab."""

    folder: Annotated[Path, tyro.conf.Positional] = Path("rtdetr_notebooks")
    """Folder for the copies. Existing files are kept, so your answers are not overwritten."""
    fresh: bool = False
    """Overwrite existing files."""
    copy_only: bool = False
    """Copy only; do not open JupyterLab."""

    def run(self) -> int:
        copied, kept = copy_notebooks(home_of_notebooks(), self.folder, self.fresh)
        kept_too = f", {kept} kept as they were" if kept else ""
        say(f"{copied} notebooks copied to {self.folder}{kept_too}")
        if self.copy_only:
            return DONE
        command = [sys.executable, "-m", "jupyterlab", str(self.folder / "00_tour.ipynb")]
        return subprocess.run(command).returncode


def home_of_notebooks() -> Path:
    """Return the folder that notebooks are copied from. Raises `ConfigError` if there is none."""
    for home in HOMES:
        if any(home.glob("*.ipynb")):
            return home
    remedy = "install a wheel, or use a clone"
    raise ConfigError("notebooks", "this installation has none", remedy)


def copy_notebooks(home: Path, folder: Path, fresh: bool = False) -> tuple[int, int]:
    """Copy the notebooks and mark them as trusted; return how many were copied, and how many were
    kept."""
    import nbformat
    from nbformat.sign import NotebookNotary

    folder.mkdir(parents=True, exist_ok=True)
    notary, copied, kept = NotebookNotary(), 0, 0
    for path in sorted(home.glob("*.ipynb")):
        target = folder / path.name
        if target.exists() and not fresh:
            kept += 1
            continue
        shutil.copyfile(path, target)
        # Without our signature JupyterLab hides their HTML until they are run.
        notary.sign(nbformat.read(target, as_version=4))
        copied += 1
    return copied, kept
