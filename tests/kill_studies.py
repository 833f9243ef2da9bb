"""Kill an ablation study at random moments, let it go on, and compare with one nobody touched.

    python tests/kill_studies.py --count 100 --seed 1

The study is that of `ablation_toy.py`: a detector of 30,000 numbers, two seeds. Of every four
moments three are drawn uniformly over the time a study takes, and one over the points inside its
writes: journal, checkpoints, published models (`kill_tools.py`). What the journal held before must
stand in it afterwards, byte for byte, the rest must be done, and the table be the same.
"""

import random
import shutil
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parent))  # wherever this is started from

import torch
from ablation_toy import study
from kill_tools import (
    asked,
    child,
    ended_well,
    killed_at_point,
    killed_at_random,
    points_of,
    told,
    without_curves,
)

from rtdetr_lab.ablations import journal
from rtdetr_lab.training import state as keep


def run(folder):
    """The study from wherever it stands to the end."""
    study(folder, []).run()


def install(points):
    """Into the two modules that write what a study goes on from."""
    keep.os, keep.open = points.os(), points.open
    journal.os = points.os()

    def write(file, content):
        half = len(content) // 2
        done = posix_write(file, content[:half])
        points()
        return done + posix_write(file, content[half:])

    posix_write, journal.os.write = journal.os.write, staticmethod(write)


def whole_lines(folder):
    """The journal's bytes, without a torn tail."""
    path = study(folder, []).home / "journal.jsonl"
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1]


def one_kill(folder, number, draw, seconds, points, expected):
    """Whether what happened is as it should be, whether it struck, and whether inside a write."""
    inside = number % 4 == 3
    if inside:
        point = draw.randrange(points)
        struck = killed_at_point(install, lambda: run(folder), point)
        where = f"inside a write, point {point}"
    else:
        moment = killed_at_random(lambda: run(folder), folder, draw, seconds)
        struck, where = True, f"after {moment:.3f} s"
    before = whole_lines(folder)
    rows = before.count(b'"kind": "row"')
    went_on = ended_well(child(lambda: run(folder)))
    kept = whole_lines(folder).startswith(before)
    same = went_on and study(folder, []).report().csv == expected
    verdict = "same table" if same else "OTHER TABLE" if went_on else "DID NOT GO ON"
    verdict += "" if kept else "; ROWS CHANGED"
    print(f"{number + 1:4} killed {where}; {rows} rows stood; {verdict}", flush=True)
    shutil.rmtree(folder)
    return same and kept, struck, inside


def main():
    given, begun = asked(__doc__, count=8), time.monotonic()
    torch.set_num_threads(1)  # a fork has only the thread that forked
    without_curves()
    draw = random.Random(given.seed)
    with TemporaryDirectory() as place:
        run(Path(place) / "warm")  # what is imported late is then there, in every fork
        began = time.monotonic()
        points = points_of(install, lambda: run(Path(place) / "whole"))
        seconds = time.monotonic() - began
        expected = study(Path(place) / "whole", []).report().csv
        print(f"a study takes {seconds:.2f} s and has {points} points inside writes", flush=True)
        outcomes = []
        for number in range(given.first, given.first + given.count):
            folder = Path(place) / f"study{number}"
            outcomes.append(one_kill(folder, number, draw, seconds, points, expected))
    return told(given, begun, outcomes)


if __name__ == "__main__":
    sys.exit(main())
