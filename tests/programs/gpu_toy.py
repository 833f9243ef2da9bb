"""A day on a GPU whose rows cost nothing.

`gpu_toy.py OUT` supervises; with --until or --budget it measures, as the process that may break.
"""

import argparse
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

from rtdetr_lab.deployment.bench.gpu import clock
from rtdetr_lab.deployment.bench.gpu.record import Task, here


def told(out: Path, what: str, found: str) -> dict[str, str]:
    """Say in a file that a row has run."""
    with open(out / "told.txt", "a", encoding="ascii") as file:
        file.write(f"{what} {os.getpid()}\n")
    return {"value": found}


def raises(task: Task) -> dict[str, str]:
    raise ValueError("a row that cannot be measured")


def breaks(task: Task) -> dict[str, str]:
    os.kill(os.getpid(), signal.SIGSEGV)
    return {}


def hangs(task: Task) -> dict[str, str]:
    time.sleep(600)
    return {}


def waits(task: Task) -> dict[str, str]:
    told(task.out, "waits", "")
    while not (task.out / "go.txt").exists():
        time.sleep(0.05)
    return {"value": "waited"}


PLANS = {
    "faults": {"raises": raises, "breaks": breaks, "hangs": hangs},
    "waits": {"first": lambda task: told(task.out, "first", "1st"), "waits": waits},
}


def sections(plan: str, longest: float) -> tuple[clock.Section, ...]:
    def rows(task: Task):
        return {name: (lambda run=run: run(task)) for name, run in PLANS[plan].items()}

    def last(task: Task):
        return {"last": lambda: told(task.out, "last", "7")}

    return clock.Section("kernels", rows, longest), clock.Section("steps", last)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--plan", required=True)
    parser.add_argument("--longest", type=float, default=600)
    parser.add_argument("--until", type=float)
    parser.add_argument("--budget", type=float)
    parser.add_argument("--run", type=int, default=1)
    asked = parser.parse_args()
    task = Task(asked.out, 20, asked.run, asked.until or time.time() + 1200)
    if asked.budget:  # begins after the imports, which take longer on a busy machine
        clock.LEAST = 0.0
        here()
        budgeted = replace(task, until=time.time() + asked.budget)
        return clock.measure(budgeted, sections(asked.plan, asked.longest))
    if asked.until:
        return clock.measure(task, sections(asked.plan, asked.longest))
    mine = [__file__, str(asked.out), "--plan", asked.plan, "--longest", str(asked.longest)]
    return clock.supervise(task, mine)


if __name__ == "__main__":
    raise SystemExit(main())
