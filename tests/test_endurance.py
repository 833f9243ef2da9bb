"""A detector is the same for many threads as for one, and does not grow with use."""

import sys

import pytest
from endurance_runs import GROWTH, a_detector, explorers, inferences, threads
from long_runs import Run, watch

full = pytest.mark.full
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc; runs on Linux")


@pytest.fixture(scope="module")
def detector():
    return a_detector()


@pytest.mark.parametrize("count", [128, pytest.param(2_560, marks=full)])
def test_sixty_four_threads_on_mixed_sizes_answer_as_one(detector, count):
    assert threads(detector, count) == 0


@linux
@pytest.mark.parametrize("count", [150, pytest.param(2_000, marks=full)])
def test_memory_does_not_grow_with_inferences(detector, count):
    assert inferences(detector, count) <= GROWTH


@linux
@pytest.mark.parametrize("count", [20, pytest.param(200, marks=full)])
def test_memory_does_not_grow_with_explorers(detector, count):
    assert explorers(detector, count) <= GROWTH


STEPS = "import threading, time\nkept = []\nfor i in range(40):\n    time.sleep(0.05)\n    {}"


@linux
@pytest.mark.parametrize(
    ("step", "grows"),
    [
        ("bytearray(2**20)", None),
        ("kept.append(bytearray(2**22))", "growth_mb"),
        ("kept.append(open('/dev/null'))", "more_handles"),
        ("threading.Thread(target=time.sleep, args=(99,), daemon=True).start()", "more_threads"),
    ],
)
def test_a_long_run_that_grows_is_seen_from_outside(step, grows, tmp_path):
    run = Run("steps", [sys.executable, "-c", STEPS.format(step)], endless=False)
    watch([run], seconds=60.0, every=0.1, folder=tmp_path)
    assert run.code == 0, run.last_line
    assert run.flat() == (grows is None), run.verdict()
    assert grows is None or run.verdict()[grows] > 0
