"""Long runs: memory, file handles and threads of real commands, sampled from outside.

    python tests/programs/long_runs.py --hours 1 --pictures 10000 --out FILE

Three runs at once: a stream of pictures into one detector; `rtdetr-lab train` with a validation
every hundred steps; `rtdetr-lab eval` over a folder of many pictures. A run is *flat* if the last
quarter of its samples needs little more than the second one: the first quarter warms up. With
`--only` the other runs in FILE stay.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

NAMES = ("stream", "train", "eval")

GROWTH_MB = 20.0
"""Megabytes by which the median of the last quarter may lie above that of the second."""

STREAM = """
import itertools, sys
from pathlib import Path
from rtdetr_lab.detector import Detector

pictures = sorted(Path(sys.argv[1]).rglob("*.png"))
detector = Detector.from_pretrained("nano")
for count, found in enumerate(detector.each(itertools.cycle(pictures)), 1):
    if count % 100 == 0:
        print(count, len(found), flush=True)
"""
"""A program without an end: it yields results for as long as pictures come."""


@dataclass
class Run:
    """A process and what it needed at every sample."""

    name: str
    command: list[str]
    endless: bool
    seconds: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)
    handles: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    code: int | None = None
    last_line: str = ""

    def sample(self, process: int, passed: float) -> None:
        """Take a sample; none if the process, or a child of it, ends meanwhile."""
        try:
            megabytes, handles, threads = needs(process)
        except (FileNotFoundError, ProcessLookupError, StopIteration):
            return
        self.seconds.append(round(passed, 1))
        self.megabytes.append(round(megabytes, 1))
        self.handles.append(handles)
        self.threads.append(threads)

    def verdict(self) -> dict[str, float]:
        """By how much the last quarter of the samples lies above the second one."""
        return {
            "growth_mb": round(grown(self.megabytes), 2),
            "more_handles": grown(self.handles),
            "more_threads": grown(self.threads),
        }

    def flat(self) -> bool:
        found = self.verdict()
        ended = self.code == (-signal.SIGTERM if self.name == "stream" else 0)
        return (
            ended
            and found["growth_mb"] <= GROWTH_MB
            and max(found["more_handles"], found["more_threads"]) <= 0
        )


def grown(samples: list[float] | list[int]) -> float:
    """The median of the last quarter less that of the second quarter."""
    quarter = max(len(samples) // 4, 1)
    return statistics.median(samples[-quarter:]) - statistics.median(samples[quarter : 2 * quarter])


def family(process: int) -> list[int]:
    """A process and everything that it started."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="utf8").split()
    return [process, *(one for child in children for one in family(int(child)))]


def needs(process: int) -> tuple[float, int, int]:
    """Megabytes (shared ones divided), open files and threads of a process and its children."""
    megabytes, handles, threads = 0.0, 0, 0
    for one in family(process):
        rows = Path(f"/proc/{one}/smaps_rollup").read_text(encoding="utf8").splitlines()
        megabytes += next(int(row.split()[1]) for row in rows if row.startswith("Pss:")) / 1024
        handles += len(os.listdir(f"/proc/{one}/fd"))
        threads += len(os.listdir(f"/proc/{one}/task"))
    return megabytes, handles, threads


def watch(runs: list[Run], seconds: float, every: float, folder: Path) -> None:
    """Start the runs, sample them until they end; endless ones end after `seconds`."""
    quiet = {**os.environ, "OMP_NUM_THREADS": "1"}
    living = []
    for run in runs:
        with (folder / f"{run.name}.log").open("w", encoding="utf8") as log:
            living.append((run, subprocess.Popen(run.command, stdout=log, stderr=log, env=quiet)))
    began = time.monotonic()
    while living:
        time.sleep(every)
        passed = time.monotonic() - began
        for run, process in list(living):
            if run.endless and passed > seconds:
                process.terminate()
                process.wait(timeout=300)
            if process.poll() is None:
                run.sample(process.pid, passed)
                continue
            run.code = process.returncode
            text = (folder / f"{run.name}.log").read_text(encoding="utf8")
            lines = text.replace("\r", "\n").splitlines()
            run.last_line = next((line[:300] for line in reversed(lines) if line.strip()), "")
            living.remove((run, process))


def planned(folder: Path, hours: float) -> list[Run]:
    """Name the three runs over the pictures of a folder."""
    lab = [sys.executable, "-m", "rtdetr_lab"]
    train = [
        *lab,
        "train",
        "--out",
        str(folder / "run"),
        "--pictures",
        "10000000",
        "--threads",
        "1",
    ]
    train += ["--size", "96", "--batch-size", "8", "--eval-every", "100", "--val-limit", "64"]
    train += ["--stop-after", f"{max(int(hours * 3600), 1)}s"]
    data = folder / "data"
    return [
        Run("stream", [sys.executable, "-c", STREAM, str(data)], endless=True),
        Run("train", train, endless=False),
        Run("eval", [*lab, "eval", "--data", str(data), "--json"], endless=False),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between samples")
    parser.add_argument("--only", nargs="*", choices=NAMES, default=NAMES, help="run these")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        made = ["data", "shapes", str(folder / "data"), "--count", "1", "--size", "128"]
        made += ["--val-count", str(asked.pictures)]
        subprocess.run([sys.executable, "-m", "rtdetr_lab", *made], check=True)
        runs = [run for run in planned(folder, asked.hours) if run.name in asked.only]
        watch(runs, asked.hours * 3600, asked.every, folder)
    kept = json.loads(asked.out.read_text(encoding="utf8")) if asked.out.exists() else []
    found = {row["name"]: row for row in kept}
    found |= {run.name: {**asdict(run), **run.verdict(), "flat": run.flat()} for run in runs}
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(list(found.values())), encoding="utf8")
    for row in found.values():
        print(row["name"], "flat" if row["flat"] else "GROWS", row["growth_mb"], row["last_line"])
    return 0 if all(row["flat"] for row in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
