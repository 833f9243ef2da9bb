"""Plant every bug in a copy of the package and ask the tests.

    python tests/programs/campaign/bugs.py [--list LIST] [--only N …] [--jobs 2] [--out FILE]

The package and its tests are copied; one bug is written into the copy; a fork that has the
libraries loaded already runs the chapter's tests there, then the wider ones, the quickest test
first. A bug that passes all of them survived. FILE is written after every bug, and a second start
goes on from it.

LIST is a Python file that defines `MUTANTS`, as `mutants.py` does. A bug may name test files after
its words: then it is given to these alone.
"""

import argparse
import importlib
import itertools
import json
import os
import runpy
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # wherever this is started from

LIST = Path(__file__).with_name("mutants.py")
ROOT = Path(__file__).resolve().parents[3]
WIDER = ("test_rtdetr", "test_variants", "test_criterion", "training/test_training")
PARITY = ("parity/test_rtdetr.py", "parity/test_losses.py", "parity/test_training_mode.py")
PARITY += ("parity/test_denoising.py", "parity/test_detr.py")
HANGS = 600
"""Seconds."""

LIBRARIES = ("torch._dynamo", "torch.export", "torch.utils.flop_counter", "transformers", "pytest")
LIBRARIES += ("hypothesis", "jaxtyping", "beartype.claw", "nbmake.pytest_items", "yaml", "tyro")
LIBRARIES += ("scipy.optimize", "scipy.stats", "faster_coco_eval", "matplotlib.pyplot", "onnx")
"""Loaded once, before any fork: most seconds of a short test file go into these."""

Bug = tuple[str, ...]
"""(module, what it says, what it would say, the bug in words; then test files, if it names any)"""


def listed(path: Path) -> tuple[Bug, ...]:
    """Read a list of bugs."""
    found = runpy.run_path(str(path)).get("MUTANTS", ()) if path.exists() else ()
    if not found or any(len(bug) < 4 or not all(isinstance(s, str) for s in bug) for bug in found):
        raise SystemExit(f"{path} defines no MUTANTS: (module, old, new, words, tests …)")
    return tuple(found)


STAMPS = itertools.count(1)
"""Times of files with a bug, all different: Python never takes what it compiled of another."""


def planted(folder: Path, module: str, old: str, new: str) -> None:
    """Write the bug into the copy; the text must be there exactly once."""
    path = folder / "rtdetr_lab" / f"{module}.py"
    text = (ROOT / "rtdetr_lab" / f"{module}.py").read_text(encoding="utf8")
    if text.count(old) != 1:
        raise SystemExit(f"{module}: {old!r} occurs {text.count(old)} times; mend the list")
    path.write_text(text.replace(old, new), encoding="utf8")
    os.utime(path, (next(STAMPS),) * 2)


def healed(folder: Path, module: str) -> None:
    shutil.copy2(ROOT / "rtdetr_lab" / f"{module}.py", folder / "rtdetr_lab" / f"{module}.py")


class QuickestFirst:
    """A plugin of pytest: tests run in the order of the seconds that they took before. It notes
    which one failed."""

    def __init__(self, folder: Path) -> None:
        self.path, self.failed = folder / "seconds.json", folder / "failed.txt"
        self.took = json.loads(self.path.read_text("utf8")) if self.path.exists() else {}
        self.now: Counter[str] = Counter()

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items.sort(key=lambda item: self.took.get(item.nodeid, 0.0))

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.now[report.nodeid] += report.duration
        if report.failed:
            self.failed.write_text(report.nodeid, encoding="utf8")

    def pytest_sessionfinish(self) -> None:
        self.path.write_text(json.dumps(self.took | self.now), encoding="utf8")


def fails(folder: Path, tests: list[str]) -> list[str]:
    """Return the test that notices, in a fork of this process; `tests` if it does not say which."""
    failed = folder / "failed.txt"
    failed.unlink(missing_ok=True)
    if child := os.fork():
        noticed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0
        return ([failed.read_text("utf8")] if failed.exists() else tests) if noticed else []
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    # A bug that never ends is noticed, too; on a busy machine a slow test is not one.
    signal.setitimer(signal.ITIMER_PROF, HANGS)
    signal.alarm(10 * HANGS)
    for number in (signal.SIGINT, signal.SIGHUP):  # a start in the background ignores them
        signal.signal(number, signal.SIG_DFL)
    import pytest

    # These tests run without the hook that checks shapes, as in the Makefile.
    words = ["-o", "addopts=-ra"] if "tests/unhooked/" in tests[0] else []
    words += [f"-pno:{name}" for name in ("cacheprovider", "anyio", "nbmake")]
    os._exit(pytest.main(["-x", "-q", *words, *tests], [QuickestFirst(folder)]))


def stages(folder: Path, module: str, named: Sequence[str] = ()) -> list[list[str]]:
    """The tests to ask, the nearest first; only those that the bug has `named`, if any."""
    if named:
        return [[f"tests/{name}" for name in named]]
    files = {path.name: path for path in sorted((folder / "tests").glob("*/test_*.py"))}
    files |= {path.name: path for path in (folder / "tests").glob("test_*.py")}
    names = (f"test_{name}.py" for name in reversed(module.split("/")))
    near = [str(files[name].relative_to(folder)) for name in names if name in files]
    wide = [f"tests/{name}.py" for name in WIDER]
    oracle = [f"tests/{name}" for name in PARITY]
    stages = [[t for t in tests if (folder / t).exists()] for tests in (near, wide, oracle)]
    return [tests for tests in stages if tests]


def copied(folder: Path) -> Path:
    for name in ("rtdetr_lab", "tests", "docs"):  # some tests compare with a page
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def judged(folder: Path, number: int, bug: Bug, sound: set[str]) -> dict[str, object]:
    """Plant one, ask the tests, take it out again. A test that fails is held against the package
    without a bug, once: it must be `sound`."""
    module, old, new, words, *named = bug
    planted(folder, module, old, new)
    begun, asked_in = time.monotonic(), stages(folder, module, named)
    noticed = next(
        ((i, who) for i, tests in enumerate(asked_in) if (who := fails(folder, tests))), None
    )
    healed(folder, module)
    caught, who = noticed or (None, [])
    if not sound.issuperset(who):
        if fails(folder, who):
            raise SystemExit(f"{who} fail without any bug")
        sound.update(who)
    places = ("module",) if named else ("chapter", "package", "oracle")
    by = None if caught is None else places[caught]
    took = round(time.monotonic() - begun, 1)
    found = {"number": number, "module": module, "bug": words, "caught_by": by, "seconds": took}
    print(f"{number:3} {module:22} {by or 'SURVIVED':9} {took:5.1f} s  {words}", flush=True)
    return found


def share(numbers: list[int], bugs: Sequence[Bug], pipe: int) -> None:
    """One process's part of the bugs, in a copy of its own; a line of JSON for each."""
    with tempfile.TemporaryDirectory() as place:
        folder, sound = copied(Path(place)), set()
        for number in numbers:
            os.write(pipe, json.dumps(judged(folder, number, bugs[number], sound)).encode() + b"\n")


def gathered(
    numbers: list[int], bugs: Sequence[Bug], jobs: int, keep: Callable[[dict], None]
) -> None:
    """These bugs, by so many processes; `keep` gets every result as it comes."""
    read, write = os.pipe()
    children = []
    for part in range(jobs):
        if (child := os.fork()) == 0:
            os.close(read)
            share(numbers[part::jobs], bugs, write)
            os._exit(0)
        children.append(child)
    os.close(write)
    with open(read, encoding="utf8") as lines:
        for line in lines:
            keep(json.loads(line))
    if any(os.waitpid(child, 0)[1] for child in children):
        raise SystemExit("a process that plants bugs has died; start again, the rest is kept")


def is_of(bugs: Sequence[Bug], row: dict[str, object]) -> bool:
    """Whether a result is of this list as it is now."""
    number = row["number"]
    return number < len(bugs) and bugs[number][::3][:2] == (row["module"], row["bug"])


def main() -> int:
    """Run them; 1 if more than one in twenty survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", type=Path, default=LIST, help="another list of bugs")
    parser.add_argument("--only", type=int, nargs="*")
    parser.add_argument("--jobs", type=int, default=1, help="processes, each with its own copy")
    parser.add_argument("--out", type=Path, help="JSON; what it holds already is not run again")
    asked = parser.parse_args()
    for name in LIBRARIES:
        importlib.import_module(name)
    sys.modules["torch"].set_num_threads(1)
    results = json.loads(asked.out.read_text("utf8")) if asked.out and asked.out.exists() else []
    bugs = listed(asked.list)
    results = [row for row in results if is_of(bugs, row)]
    done = {row["number"] for row in results}
    wanted = list(range(len(bugs))) if asked.only is None else asked.only

    def keep(row: dict[str, object]) -> None:
        results.append(row)
        results.sort(key=lambda r: r["number"])
        if asked.out:
            asked.out.parent.mkdir(parents=True, exist_ok=True)
            half = asked.out.with_suffix(".tmp")
            half.write_text(json.dumps(results, indent=2), encoding="utf8")
            half.replace(asked.out)

    gathered([n for n in wanted if n not in done], bugs, asked.jobs, keep)
    survived = [r for r in results if r["caught_by"] is None]
    print(f"{len(results) - len(survived)} of {len(results)} caught")
    return len(survived) > len(results) // 20


if __name__ == "__main__":
    sys.exit(main())
