"""Notebooks run, prove and print the same on another processor: AVX2 only, one thread.

Every fourth one; all of them in `make test-full`. All together take minutes.
"""

import platform

import notebook_run
import pytest

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"),
    reason="simulates an older x86 processor; runs on one",
)


EVERY = 4
FEW = notebook_run.NOTEBOOKS[::EVERY]
PATHS = [
    pytest.param(path, id=path.stem, marks=[] if path in FEW else pytest.mark.full)
    for path in notebook_run.NOTEBOOKS
]


@pytest.mark.parametrize("path", PATHS)
def test_it_runs_and_prints_the_same_on_an_older_processor(path, pytestconfig, record_property):
    there = notebook_run.AVX2, 1 if pytestconfig.getoption("--full") else EVERY
    assert notebook_run.changes(path, *there) == {}
    record_property("seconds", notebook_run.executed(*there)[0][path.stem])
