"""`python -m rtdetr_lab.deployment.bench.gpu OUT`: see `__init__.py`."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rtdetr_lab.deployment.bench.gpu import clock, page
from rtdetr_lab.deployment.bench.gpu.record import Task, runs_so_far
from rtdetr_lab.errors import LabError


def main(argv: Sequence[str] | None = None) -> int:
    """Measure until the time is up, or write the pages; return the exit code."""
    parser = argparse.ArgumentParser(description="Measure everything that needs a GPU, row by row.")
    parser.add_argument("out", type=Path, help="folder of the records; the same one goes on")
    parser.add_argument("--minutes", type=float, default=8.5, help="end after this time (8.5)")
    parser.add_argument("--tiny", action="store_true", help="small models, one round: a test")
    parser.add_argument("--write", action="store_true", help="write the pages, measure nothing")
    parser.add_argument("--docs", type=Path, default=page.DOCS, help="folder of the pages")
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--run", type=int, default=0, help=argparse.SUPPRESS)
    asked = parser.parse_args(argv)
    out = asked.out.resolve()
    try:
        if asked.write:
            for path in page.write(out, asked.docs):
                print(path)
            return 0
        out.mkdir(parents=True, exist_ok=True)
        until = asked.until or time.time() + 60 * asked.minutes
        run = asked.run or runs_so_far(out) + 1
        task = Task(out, asked.minutes, run, until, asked.tiny)
        if asked.until:
            return clock.measure(task)
        words = ["--minutes", str(asked.minutes), *(["--tiny"] if asked.tiny else [])]
        return clock.supervise(task, ["-m", page.MODULE, str(out), *words])
    except LabError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
