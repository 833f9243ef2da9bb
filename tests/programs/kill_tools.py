"""Kills: processes that die by SIGKILL, at a moment or at a point inside a save.

A child is a fork of a process that has torch loaded, so that a kill costs milliseconds. The hooks
that stop a child inside a save live here; the package knows nothing of them.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from tempfile import TemporaryDirectory

import torch


def child(work):
    """The id of a forked process that does `work` and ends with 0, or says why not."""
    sys.stdout.flush()
    if process := os.fork():
        return process
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended_well(process):
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0


def killed_after(work, moment):
    """Kill a child after so many seconds; False if it was faster."""
    process = child(work)
    time.sleep(moment)
    return _killed(process)


def killed_at_random(work, folder, draw, seconds):
    """Kill a child at a moment drawn uniformly, and say when. One that had ended by then is begun
    again in an empty folder, with another moment."""
    while not killed_after(work, moment := draw.uniform(0, seconds)):
        shutil.rmtree(folder)
    return moment


def _killed(process):
    os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL


class Points:
    """Counts the moments inside saves; at number `at` tells the parent, and waits for the end."""

    def __init__(self, at=None, pipe=None):
        self.at, self.pipe, self.seen = at, pipe, 0

    def __call__(self):
        if self.seen == self.at:
            os.write(self.pipe, b"x")
            time.sleep(3600)
        self.seen += 1

    def around(self, function):
        def watched(*args, **how):
            self()
            result = function(*args, **how)
            self()
            return result

        return watched

    def open(self, path, mode="r", *more, **how):
        file = open(path, mode, *more, **how)  # noqa: SIM115 (handed on)
        return HalfWritten(file, self) if mode == "wb" else file

    def os(self):
        """The module `os`, with a point before and after each flush to disk and each rename."""
        watched = {name: getattr(os, name) for name in dir(os) if name.isidentifier()}
        watched |= {name: self.around(getattr(os, name)) for name in ("fsync", "replace")}
        kept = {k: staticmethod(v) if callable(v) else v for k, v in watched.items()}
        return type("os", (), {k: v for k, v in kept.items() if not k.startswith("__")})


class HalfWritten:
    """A file whose every write can be met half-way."""

    def __init__(self, file, points):
        self.file, self.points = file, points

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, content):
        half = len(content) // 2
        self.file.write(content[:half])
        self.file.flush()
        self.points()
        self.file.write(content[half:])


def killed_at_point(install, work, point):
    """Kill a child at this point of its saves; False if it has fewer. `install(points)` hooks."""
    told, tell = os.pipe()

    def watched():
        install(Points(point, tell))
        work()

    process = child(watched)
    os.close(tell)
    reached = os.read(told, 1) == b"x"  # or nothing, when the other end is closed
    os.close(told)
    _killed(process)
    return reached


def points_of(install, work):
    """How many moments inside saves a whole piece of work has."""
    read, write = os.pipe()

    def counted():
        points = Points()
        install(points)
        work()
        os.write(write, str(points.seen).encode())

    process = child(counted)
    os.close(write)
    count = int(os.read(read, 100))
    os.close(read)
    assert ended_well(process)
    return count


def without_curves():
    """curves.png is drawn anew by every start and compared with nothing; it takes a third of the
    time of runs as small as these."""
    from rtdetr_lab.training import callbacks

    callbacks.draw_curves = lambda *_: None


def campaign(words, count, work, install, result, judge):
    """The program of `kill_runs.py` and `kill_studies.py`: its exit code.

    `work(folder)` goes on from wherever it stands to the end, `install(points)` hooks into what it
    writes with, `result(folder)` is what the end is compared by, and `judge(folder, expected)`
    lets a killed one go on and answers whether all is as it should be, and in words.
    """
    given, begun = asked(words, count), time.monotonic()
    torch.set_num_threads(1)  # a fork has only the thread that forked
    without_curves()
    draw, outcomes = random.Random(given.seed), []
    with TemporaryDirectory() as place:
        whole = Path(place) / "whole"
        work(Path(place) / "warm")  # what is imported late is then there, in every fork
        began = time.monotonic()
        points = points_of(install, lambda: work(whole))
        seconds, expected = time.monotonic() - began, result(whole)
        print(f"one takes {seconds:.2f} s and has {points} points inside saves", flush=True)
        for number in range(given.first, given.first + given.count):
            folder = Path(place) / f"killed{number}"
            inside = number % 4 == 3
            if inside:
                point = draw.randrange(points)
                struck = killed_at_point(install, lambda folder=folder: work(folder), point)
                where = f"inside a save, point {point}"
            else:
                moment = killed_at_random(lambda folder=folder: work(folder), folder, draw, seconds)
                struck, where = True, f"after {moment:.3f} s"
            fine, said = judge(folder, expected)
            print(f"{number + 1:4} killed {where}; {said}", flush=True)
            shutil.rmtree(folder)
            outcomes.append((fine, struck, inside))
    return told(given, begun, outcomes)


def asked(words, count):
    """The command line all these programs share."""
    parser = argparse.ArgumentParser(description=words.splitlines()[0])
    parser.add_argument("--count", type=int, default=count)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first kill")
    parser.add_argument("--out", type=Path, help="where the summary goes as JSON")
    return parser.parse_args()


def told(given, began, outcomes):
    """Print and write what was seen: (as it should be, struck, inside a save) of every kill."""
    good, struck, inside = (sum(map(bool, column)) for column in zip(*outcomes, strict=True))
    summary = {"seed": given.seed, "kills": given.count, "struck": struck, "inside": inside}
    summary |= {"same": good, "seconds": round(time.monotonic() - began, 1)}
    print(json.dumps(summary))
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(summary), encoding="utf8")
    return 0 if good == given.count else 1
