"""A detector is the same for many threads as for one, and does not grow with use."""

import gc
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from small import shaken, small

from rtdetr_lab.detector import Detector
from rtdetr_lab.explored import explore

SIZES = [(40, 64), (64, 40), (33, 97), (128, 128), (200, 50), (64, 64), (10, 300), (96, 95)]


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(3)
    return Detector(shaken(small().build()).eval(), size=(64, 64), threshold=0.0)


@pytest.fixture(scope="module")
def photos():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


def same(a, b):
    return torch.equal(a.boxes_xyxy, b.boxes_xyxy) and torch.equal(a.scores, b.scores)


@pytest.mark.parametrize("rounds", [2, pytest.param(40, marks=pytest.mark.full)])
def test_sixty_four_threads_on_mixed_sizes_answer_as_one(detector, photos, rounds):
    alone = [detector(photo) for photo in photos]
    assert sum(map(len, alone)) > 0
    with ThreadPoolExecutor(64) as pool:
        found = list(pool.map(detector, photos * 8 * rounds))
    for i, one in enumerate(found):
        assert same(one, alone[i % len(photos)])
        assert one.size == SIZES[i % len(photos)]


linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc; runs on Linux")


def resident_mb():
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="utf8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@linux
@pytest.mark.parametrize("count", [150, pytest.param(2000, marks=pytest.mark.full)])
def test_memory_does_not_grow_with_inferences(detector, photos, count):
    for i in range(80):
        detector(photos[i % len(photos)])
    before = resident_mb()
    for i in range(count):
        detector(photos[i % len(photos)])
    assert resident_mb() - before <= 1.0


@linux
@pytest.mark.parametrize("count", [20, pytest.param(200, marks=pytest.mark.full)])
def test_memory_does_not_grow_with_explorers(detector, photos, count):
    def page():
        return len(explore(detector, photos[0], most=5).exploration.payload[1])

    size = page()
    for _ in range(5):
        page()
    before = resident_mb()
    assert all(page() == size for _ in range(count))
    assert resident_mb() - before <= 2.0
