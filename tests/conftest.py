"""What every test may count on: a seed, a thread count, the full matrix, and shared data or a skip.

Import `rtdetr_lab` inside fixtures and tests only: this file is read first, and a test of how light
the import is should find it not yet done.
"""

import os
import sys
from pathlib import Path

import hypothesis
import pytest
import torch

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="run the full matrix, not only the cut")


NOTEBOOKS = ("test_notebooks.py", "test_site.py", "test_site_in_browser.py")
NOTEBOOKS += ("test_accessibility_in_browser.py",)
"""These share one execution of the notebooks, which takes minutes: together, and first."""

ELSEWHERE = "test_notebooks_elsewhere.py"
"""Executes the notebooks once more: next, so that the second worker begins with it."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With `pytest -n` a worker takes whole files, and one of them all that needs the notebooks."""
    from xdist.scheduler import LoadFileScheduling

    class WholeFiles(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return "notebooks" if Path(file).name in NOTEBOOKS else file

    return WholeFiles(config, log)


def pytest_collection_modifyitems(config, items):
    names = (*NOTEBOOKS, ELSEWHERE)
    first = {name: place for place, name in enumerate(names)}
    items.sort(key=lambda item: first.get(item.path.name, len(names)))
    if config.getoption("--full"):
        return
    skip = pytest.mark.skip(reason="full matrix; runs in `make test-full` (pytest --full)")
    for item in items:
        if item.get_closest_marker("full"):
            item.add_marker(skip)


def pytest_terminal_summary(terminalreporter):
    """What took how long: told, and judged by no test."""
    for report in terminalreporter.stats.get("passed", []):
        if seconds := dict(report.user_properties).get("seconds"):
            terminalreporter.write_line(f"{seconds:6.0f} s  {report.nodeid}")


def pytest_configure(config):
    hypothesis.settings.register_profile("unhurried", deadline=None)  # no test judges the clock
    hypothesis.settings.load_profile("unhurried")
    # Two cores is what the budgets are written for; OMP_NUM_THREADS asks for another number.
    if "PYTEST_XDIST_WORKER" in os.environ:  # the others have the other cores
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(2, os.cpu_count() or 1))


@pytest.fixture(autouse=True)
def _seeded():
    """The same global random numbers in every test, in whatever order the tests run."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _without_curves(request, monkeypatch):
    """No curves.png: to draw one takes ten times as long as a run of a few steps."""
    callbacks = sys.modules.get("rtdetr_lab.training.callbacks")
    if callbacks and not request.node.get_closest_marker("curves"):
        monkeypatch.setattr(callbacks, "draw_curves", lambda *_: None)


@pytest.fixture
def rng():
    """A random generator of one's own, the same one every time."""
    return torch.Generator().manual_seed(20240617)


@pytest.fixture
def shared():
    """`shared("data/coco_ccby")` is that path beside the checkout, or the test is skipped."""

    def find(relative: str) -> Path:
        path = SHARED / relative
        if not path.exists():
            pytest.skip(f"no shared/{relative} beside the checkout; runs where that folder exists")
        return path

    return find
