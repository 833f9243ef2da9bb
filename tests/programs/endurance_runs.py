"""Many threads, many pictures, many explorers: the same answers, and memory that does not grow.

    python tests/programs/endurance_runs.py --out FILE

The detector is small (`small.py`), so that thousands of answers cost seconds; what may leak or
collide is the code around it. Memory is what the kernel counts as resident, after a warm-up.
"""

import argparse
import gc
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # wherever this is started from

import numpy as np
import torch
from small import shaken, small

from rtdetr_lab.commands.explore import explore
from rtdetr_lab.detector import Detector

SIZES = [(40, 64), (64, 40), (33, 97), (128, 128), (200, 50), (64, 64), (10, 300), (96, 95)]
THREADS = 64
GROWTH = 1.0
"""Megabytes that may be resident in addition."""

FULL = {"threads": 2_560, "inferences": 2_000, "explorers": 200}


def a_detector():
    torch.manual_seed(3)
    return Detector(shaken(small().build()).eval(), size=(64, 64), threshold=0.0)


def photos():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


def resident_mb():
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="utf8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def growth(work, count, warm_up):
    """Megabytes that `count` times `work(i)` add after a warm-up."""
    for i in range(warm_up):
        work(i)
    before = resident_mb()
    for i in range(count):
        work(i)
    return resident_mb() - before


def threads(detector, count):
    """How many of `count` answers, asked for by 64 threads at once, differ from those of one."""
    pictures = photos()
    alone = [detector(photo) for photo in pictures]
    assert sum(map(len, alone)) > 0
    rounds = -(-count // len(pictures))
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(detector, pictures * rounds))[:count]
    return sum(not _same(one, alone[i % len(alone)]) for i, one in enumerate(found))


def _same(a, b):
    boxes, scores = torch.equal(a.boxes_xyxy, b.boxes_xyxy), torch.equal(a.scores, b.scores)
    return boxes and scores and torch.equal(a.labels, b.labels) and a.size == b.size


def inferences(detector, count):
    """Megabytes that so many answers add."""
    pictures = photos()
    return growth(lambda i: detector(pictures[i % len(pictures)]), count, warm_up=80)


def explorers(detector, count):
    """Megabytes that so many explorers add; every one must be as large as the first."""
    picture = photos()[0]

    def page(_):
        return len(explore(detector, picture, most=5).payload[1])

    size = page(0)

    def made(i):
        assert page(i) == size

    return growth(made, count, warm_up=20)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    for name, count in FULL.items():
        parser.add_argument(f"--{name}", type=int, default=count)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    detector, rows = a_detector(), {}
    for name, work in (("inferences", inferences), ("explorers", explorers), ("threads", threads)):
        began, count = time.monotonic(), getattr(asked, name)
        found = round(work(detector, count), 2)
        measure = "differ" if name == "threads" else "growth_mb"
        rows[name] = {"count": count, measure: found, "seconds": round(time.monotonic() - began, 1)}
        print(name, rows[name], flush=True)
    if asked.out:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps(rows, indent=2), encoding="utf8")
    grown = max(rows[name]["growth_mb"] for name in ("inferences", "explorers"))
    return bool(rows["threads"]["differ"]) or grown > GROWTH


if __name__ == "__main__":
    sys.exit(main())
