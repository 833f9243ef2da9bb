"""# Learning: notebook 13 on CUDA; nano on more pictures; studies

Training and studies are the commands that a reader would type, in processes of their own. Their
folders are too large to keep, so OUT gets what a later run needs: the last state of nano and the
journals. They are one tar archive in pieces: `cat OUT/learning.tar.* | tar x -C FOLDER` unpacks it.
"""

import hashlib
import importlib.util
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rtdetr_lab.deployment.bench.gpu.record import Cut, Row, Skipped, Task, end_with_parent
from rtdetr_lab.errors import TrainingError
from rtdetr_lab.notebook_tools import build
from rtdetr_lab.notebook_tools.outputs import normalised
from rtdetr_lab.notebook_tools.percent import read
from rtdetr_lab.structures.environment import num_cores
from rtdetr_lab.writing import write_bytes, write_text

NOTEBOOK = build.HOME / "13_complete_model.py"
PICTURES = 5_200_000
"""Pictures for nano: a hundred times those of the embedded checkpoint."""
STUDIES = (
    *("losses", "queries", "look-forward-twice", "discrete"),
    *("encoder", "selection", "decoder-depth", "sampling-points", "denoising"),
)
"""Studies, the most wanted first: those without a published table yet."""

TINY_ROW = "varifocal, target IoU"

FIRST, SHARE = 45, 0.6
"""Seconds of the session that measures the speed; nano's share of the time that is left then."""
RESERVE = 40
"""Seconds to validate and to keep the result."""
PIECE = 15_000_000
KEPT = ("nano/last.pt", "nano/metrics.jsonl", "nano/run.json", "ablations/*/journal.jsonl")


def notebook_rows(task: Task) -> dict[str, Row]:
    """Return the row of the notebook."""
    return {NOTEBOOK.stem: partial(notebook, NOTEBOOK, task)}


def rows(task: Task) -> dict[str, Row]:
    """Return the rows of training."""
    studies = STUDIES[:1] if task.tiny else STUDIES
    return {"nano": partial(nano, task)} | {f"study {s}": partial(study, s, task) for s in studies}


def notebook(source: Path, task: Task) -> dict[str, Any]:
    """Execute a notebook on CUDA and keep it, with its outputs, even if a cell fails."""
    if task.device != "cuda":
        raise Skipped("the notebook is executed on CUDA; without it, `make notebooks` does it")
    return executed(source, task.out)


def executed(source: Path, out: Path) -> dict[str, Any]:
    """Execute a notebook in a kernel that sees the card."""
    need("jupytext", "nbformat", "nbclient", "ipykernel")
    import nbformat

    made = read(source)
    seeing = {k: v for k, v in build.ENVIRONMENT.items() if k != "CUDA_VISIBLE_DEVICES"}
    target = out / f"{source.stem}.ipynb"
    try:
        build.execute(made, source.parent, seeing)
        normalised(made, source.stem)
    finally:
        write_text(target, nbformat.writes(made, version=4) + "\n")
    return {"file": target.name}


def nano(task: Task) -> dict[str, Any]:
    """Train nano for as many pictures as the time of all runs allows; the same row resumes.

    A short session measures the speed. From then on, the budget is what fits, and the schedule of
    the rate stretches over it.
    """
    need("tyro")
    with unpacked(task.out) as home:
        while True:
            lines = metrics(home / "nano")
            seen, speed = lines[-1]["pictures"] if lines else 0, speed_of(lines)
            pictures, seconds = PICTURES, float(FIRST)
            if speed:
                pictures = min(PICTURES, int(seen + speed * SHARE * task.left_in_all))
                seconds = task.left - RESERVE
            if seconds < 1 or task.left < RESERVE:
                raise Cut({"pictures": seen, "pictures_per_s": speed})
            pictures = 8 if task.tiny else pictures
            where = ["--out", str(home / "nano"), "--stop-after", f"{seconds:.0f}s"]
            budget = ["--preset", "nano", "--pictures", str(pictures)]
            call(task, "train", *budget, *where, *train_size(task))
            if scores := [line for line in metrics(home / "nano") if "AP" in line]:
                return {**scores[-1], "pictures_per_s": speed_of(metrics(home / "nano"))}
            keep(home, task.out)


def train_size(task: Task) -> list[str]:
    """Return the options of `train` for a GPU: large steps, and processes that draw."""
    if task.tiny:
        return ["--amp", "--batch-size", "4", "--size", "96", "--val-limit", "2"]
    return ["--amp", "--batch-size", "128", "--workers", str(max(1, num_cores() - 2))]


def study(name: str, task: Task) -> dict[str, Any]:
    """Run a study, or go on with it: finished runs are in its journal."""
    need("tyro")
    size = ["--workers", "4"]
    if task.tiny:
        size = ["--seeds", "1", "--pictures", "8", "--size", "64", "--only", TINY_ROW]
    with unpacked(task.out) as home:
        call(task, "ablate", name, "--out", str(home / "ablations"), "--amp", *size)
        report = home / "ablations" / name / "report" / f"{name}.json"
        table = json.loads(report.read_text(encoding="utf8"))["rows"]
        return {"AP": {row["name"]: row["mean_sd"]["AP"] for row in table}}


def call(task: Task, *words: str) -> None:
    """Run one of our commands. Raises `TrainingError` with its last lines if it fails, `Cut`
    if the time is up."""
    line = [sys.executable, "-m", "rtdetr_lab", *words, "--device", task.device]
    run = partial(subprocess.run, capture_output=True, text=True, preexec_fn=end_with_parent)
    try:
        done = run(line, timeout=max(1.0, task.left - 10))
    except subprocess.TimeoutExpired:
        raise Cut({}) from None
    if done.returncode:
        what = f"ended with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        raise TrainingError(" ".join(line), what, "run this line by itself")


def metrics(run: Path) -> list[dict[str, Any]]:
    """Read the lines of a training run; none if it has not begun."""
    path = run / "metrics.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]


def speed_of(lines: list[dict[str, Any]]) -> float:
    """Return the pictures per second of the last steps; 0 if there is no line of steps."""
    return next((line["pictures_per_s"] for line in reversed(lines) if "loss" in line), 0.0)


@contextmanager
def unpacked(out: Path) -> Iterator[Path]:
    """Unpack what earlier runs kept into a temporary folder; keep what is there at the end.

    An archive that is not whole (killed while it was written) counts as none.
    """
    with TemporaryDirectory() as folder:
        whole = b"".join(p.read_bytes() for p in sorted(out.glob("learning.tar.*")))
        data, digest = whole[:-32], whole[-32:]
        if data and hashlib.sha256(data).digest() == digest:
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                archive.extractall(folder, filter="data")
        try:
            yield Path(folder)
        finally:
            keep(Path(folder), out)


def keep(home: Path, out: Path) -> None:
    """Pack states and journals into pieces; the digest at the end says that all are there."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for path in sorted(path for pattern in KEPT for path in home.glob(pattern)):
            archive.add(path, path.relative_to(home))
    data = file.getvalue()
    data += hashlib.sha256(data).digest()
    for number, start in enumerate(range(0, len(data), PIECE)):
        write_bytes(out / f"learning.tar.{number}", data[start : start + PIECE])


def need(*libraries: str) -> None:
    """Raise `Skipped` if a library is not installed."""
    missing = [name for name in libraries if importlib.util.find_spec(name) is None]
    if missing:
        raise Skipped(f"{', '.join(missing)} not installed: docs/deploy.md has the line")
