"""Every notebook runs, proves and prints the same on another processor: AVX2 only, one thread."""

import platform

import notebook_run
import pytest

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"),
    reason="simulates an older x86 processor; runs on one",
)


@pytest.mark.parametrize("path", notebook_run.NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_and_prints_the_same_on_an_older_processor(path, record_property):
    assert notebook_run.changes(path, notebook_run.AVX2) == {}
    record_property("seconds", notebook_run.executed(notebook_run.AVX2)[0][path.stem])
