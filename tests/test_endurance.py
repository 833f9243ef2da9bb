"""A detector is the same for many threads as for one, and does not grow with use."""

import sys

import pytest
from endurance_runs import GROWTH, a_detector, explorers, inferences, threads

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
