"""Executes every notebook on a copy, once per test session, and compares what is printed."""

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import nbformat

from rtdetr_lab.notebook_tools.build import CELL_SECONDS, ENVIRONMENT
from rtdetr_lab.notebook_tools.outputs import normalised

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
COPY = ROOT / "build" / "notebooks"
NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")


@cache
def executed() -> tuple[dict[str, float], str]:
    """Seconds of every notebook that ran to its end, by stem, and what pytest said."""
    shutil.rmtree(COPY, ignore_errors=True)
    COPY.mkdir(parents=True)
    for path in NOTEBOOKS:
        shutil.copy(path, COPY)
    report = COPY / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(COPY)]
    command += ["-p", "no:cacheprovider", "-p", "no:hypothesispytest", f"--junitxml={report}"]
    command += ["--nbmake", "--overwrite", "--nbmake-kernel=python3"]
    command += [f"--nbmake-timeout={CELL_SECONDS}", str(COPY)]
    paths = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(paths)}
    environment |= {"OMP_NUM_THREADS": "1", "JUPYTER_PLATFORM_DIRS": "1"}
    said = subprocess.run(command, cwd=COPY, env=environment, capture_output=True, text=True)
    seconds = {}
    for case in ElementTree.parse(report).iter("testcase"):
        stem = re.search(r"(\d\d_\w+)", case.get("classname", "") + case.get("name", "")).group(1)
        if case.find("failure") is None and case.find("error") is None:
            seconds[stem] = float(case.get("time"))
    return seconds, said.stdout[-6000:] + said.stderr[-2000:]


def printed(path: Path) -> dict[str, str]:
    """What the cells of a notebook print, by cell id; not what is tagged `varies`."""
    notebook = normalised(nbformat.read(path, as_version=4), path.stem)
    return {
        cell.id: "\n".join(text_of(output) for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code" and "varies" not in cell.metadata.get("tags", [])
    }


def text_of(output) -> str:
    if output.output_type == "stream":
        return output.text
    # Source code that is shown changes with the library, and is no result.
    return "" if "text/markdown" in output.data else output.data.get("text/plain", "")


def difference(expected: str, found: str) -> str:
    """Empty if both say the same; counts must be equal, fractions nearly so."""
    if " ".join(NUMBER.sub("#", expected).split()) != " ".join(NUMBER.sub("#", found).split()):
        return f"printed {found!r} instead of {expected!r}"
    for a, b in zip(NUMBER.findall(expected), NUMBER.findall(found), strict=True):
        if not near(a, b):
            return f"printed {b} instead of {a} in {expected!r}"
    return ""


def near(a: str, b: str) -> bool:
    fractional = any(mark in a + b for mark in ".e")
    x, y = (float(text.replace(",", "")) for text in (a, b))
    if not fractional:
        return x == y
    digits = max((len(t.split("e")[0].partition(".")[2]) for t in (a, b)), default=0)
    return abs(x - y) <= 2e-3 * max(abs(x), abs(y)) + 1.01 * 10.0**-digits
