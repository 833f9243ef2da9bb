"""Executes every notebook on a copy, once per machine and test session."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

from notebook_prints import difference, printed
from paths import ROOT

from rtdetr_lab.notebook_tools.build import CELL_SECONDS, ENVIRONMENT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@dataclass(frozen=True)
class Machine:
    """A folder for the copies, and what tells torch to see another processor."""

    folder: Path
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def report(self) -> Path:
        return self.folder / "report.xml"


HERE = Machine(ROOT / "build" / "notebooks")
CAPABILITY = (("ONEDNN_MAX_CPU_ISA", "AVX2"), ("ATEN_CPU_CAPABILITY", "avx2"))
AVX2 = Machine(ROOT / "build" / "notebooks_avx2", (*CAPABILITY, ("OMP_NUM_THREADS", "1")))


@cache
def executed(machine: Machine = HERE, every: int = 1) -> tuple[dict[str, float], str]:
    """Seconds of each notebook that ran to its end, by stem, and what pytest said. With `every`,
    only the first of as many notebooks, the first of the next, …"""
    folder = machine.folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in NOTEBOOKS[::every]:
        shutil.copy(path, folder)
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(folder)]
    command += ["-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    command += [f"--junitxml={machine.report}", "--nbmake", "--overwrite"]
    command += ["--nbmake-kernel=python3", f"--nbmake-timeout={CELL_SECONDS}", str(folder)]
    paths = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    environment = {"OMP_NUM_THREADS": "1", **os.environ, **ENVIRONMENT, **dict(machine.environment)}
    environment |= {"PYTHONPATH": os.pathsep.join(paths), "JUPYTER_PLATFORM_DIRS": "1"}
    said = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return seconds_in(machine.report), said.stdout[-6000:] + said.stderr[-2000:]


def seconds_in(report: Path) -> dict[str, float]:
    """Seconds of every notebook that ran to its end, by stem."""
    seconds = {}
    for case in ElementTree.parse(report).iter("testcase"):
        stem = re.search(r"(\d\d_\w+)", case.get("classname", "") + case.get("name", "")).group(1)
        if case.find("failure") is None and case.find("error") is None:
            seconds[stem] = float(case.get("time"))
    return seconds


def changes(path: Path, machine: Machine = HERE, every: int = 1) -> dict[str, str]:
    """What a notebook prints that differs from what is committed, by cell id."""
    seconds, said = executed(machine, every)
    assert path.stem in seconds, said
    before = printed(path.with_suffix(".ipynb"))
    now = printed(machine.folder / f"{path.stem}.ipynb")
    assert before.keys() == now.keys()
    found = {name: difference(before[name], now[name].text) for name in before}
    return {name: what for name, what in found.items() if what}
