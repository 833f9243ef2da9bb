r"""# Worker: one run of a study in a separate process

    python -m rtdetr_lab.ablations.worker JOB.json JOB.row.json RUNS [=FOLDER …] [MODULE=FILE …]

The command line, never the file, says which modules may have a reader's own classes. If their code
was edited since the study made its plan, there is no run.

It reads a job and writes a row or a traceback. Under torchrun every rank trains, and rank 0 writes.
It ends when the process that started it has ended, so that the run's folder is free for the next
start.
"""

import importlib.util
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FunctionType
from typing import Any

from rtdetr_lab.ablations.executors import attempt
from rtdetr_lab.ablations.job import Row
from rtdetr_lab.ablations.task import codes
from rtdetr_lab.config import require
from rtdetr_lab.config_json import from_json
from rtdetr_lab.errors import TrainingError
from rtdetr_lab.writing import write_text


def main(job: str, answer: str, runs: str, *modules: str) -> int:
    """Execute the job; return 0 if there is a row, 1 after an error, 130 if paused."""
    parent = os.environ.get("RTDETR_LAB_PARENT")
    if parent and os.name != "nt":  # on Windows, os.kill(pid, 0) would interrupt it
        threading.Thread(target=_end_with, args=(int(parent),), daemon=True).start()
    try:
        row, error = _outcome(Path(job), Path(runs), modules)
    except KeyboardInterrupt:
        return 130  # paused: the next start resumes it
    if os.environ.get("RANK", "0") == "0":
        write_text(Path(answer), json.dumps({"row": row, "error": error}), TrainingError)
    return 1 if error else 0


def _outcome(path: Path, runs: Path, modules: Sequence[str]) -> tuple[Row | None, str | None]:
    """Return a row, or the traceback that prevented it."""
    try:
        classes = [own for module in modules for own in _classes(*module.split("=", 1))]
        job = from_json(path.read_text(encoding="utf8"), classes)
        what = "its code was edited since the study made its plan"
        same = job.code == codes(job.setup)
        require(same, job.key, what, "start the study again", TrainingError)
    except Exception:  # also what a reader's own module raises
        return None, traceback.format_exc()
    outcome = attempt(job, runs)
    return outcome.row, outcome.error


def _classes(name: str, file: str) -> list[Any]:
    """Import a module from its file; return its classes and functions. Without a name, search a
    folder for what the other modules import."""
    if not name:
        sys.path.append(file)
        return []
    path, inner = Path(file), name.count(".") + (Path(file).name == "__init__.py")
    sys.path.insert(0, str(path.parents[inner]))
    if name == "__main__":  # a script must not start its study again
        spec: Any = importlib.util.spec_from_file_location("__mp_main__", path)
        module = sys.modules["__mp_main__"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(name)
    return [own for own in vars(module).values() if isinstance(own, type | FunctionType)]


def _end_with(parent: int) -> None:
    while True:
        time.sleep(0.5)
        try:
            os.kill(parent, 0)
        except OSError:
            os._exit(1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
