r"""# Worker: one run of a study in a separate process

    python -m rtdetr_lab.ablations.worker JOB.json JOB.row.json RUNS

It reads a job and writes a row or a traceback. Under torchrun every rank trains, and rank 0 writes.
It ends when the process that started it has ended, so that the run's folder is free for the next
start.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

from rtdetr_lab.ablations.executors import attempt
from rtdetr_lab.config_json import from_json
from rtdetr_lab.errors import TrainingError
from rtdetr_lab.writing import write_text


def main(job: str, answer: str, runs: str) -> int:
    """Execute the job; return 0 if there is a row, 1 after an error, 130 if paused."""
    parent = os.environ.get("RTDETR_LAB_PARENT")
    if parent and os.name != "nt":  # on Windows, os.kill(pid, 0) would interrupt it
        threading.Thread(target=_end_with, args=(int(parent),), daemon=True).start()
    try:
        outcome = attempt(from_json(Path(job).read_text(encoding="utf8")), Path(runs))
    except KeyboardInterrupt:
        return 130  # paused: the next start resumes it
    if os.environ.get("RANK", "0") == "0":
        said = {"row": outcome.row, "error": outcome.error}
        write_text(Path(answer), json.dumps(said), TrainingError)
    return 1 if outcome.error else 0


def _end_with(parent: int) -> None:
    while True:
        time.sleep(0.5)
        try:
            os.kill(parent, 0)
        except OSError:
            os._exit(1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
