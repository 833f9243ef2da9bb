"""Kill an ablation study at random moments, let it go on, and compare with one nobody touched.

    python tests/programs/kill_studies.py --count 100 --seed 1

The study is that of `ablation_toy.py`: a detector of 30,000 numbers, two seeds. Of every four
moments three are drawn uniformly over the time a study takes, and one over the points inside its
writes: journal, checkpoints, published models (`kill_tools.py`). What the journal held before must
stand in it afterwards, byte for byte, the rest must be done, and the table be the same.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # wherever this is started from

from ablation_toy import study
from kill_tools import campaign, child, ended_well

from rtdetr_lab import writing
from rtdetr_lab.ablations import journal


def run(folder):
    """The study from wherever it stands to the end."""
    study(folder, []).run()


def install(points):
    """Into the two modules that write what a study goes on from."""
    writing.os, writing.open = points.os(), points.open
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


def table(folder):
    """What must be the same, whenever it was killed."""
    return study(folder, []).report().csv


def judge(folder, expected):
    """Whether it goes on to the same table, and keeps every row that stood in the journal."""
    before = whole_lines(folder)
    rows = before.count(b'"kind": "row"')
    went_on = ended_well(child(lambda: run(folder)))
    kept = whole_lines(folder).startswith(before)
    same = went_on and table(folder) == expected
    verdict = "same table" if same else "OTHER TABLE" if went_on else "DID NOT GO ON"
    verdict += "" if kept else "; ROWS CHANGED"
    return same and kept, f"{rows} rows stood; {verdict}"


if __name__ == "__main__":
    sys.exit(campaign(__doc__, 8, run, install, table, judge))
