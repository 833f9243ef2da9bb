"""Memory stays with a process that has an engine."""

import os
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from rtdetr_lab.kernels.pages import keep_pages
torch.set_num_threads(1)
known = keep_pages() if sys.argv[1] == "keep" else True
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for i in range(12):
    if i == 4:
        before = faults()
    maps = [torch.ones(5_000_000) for _ in range(3)]
    del maps
print(known, faults() - before)
"""


def test_memory_stays_with_the_process_between_two_pictures():
    """Against an allocator that is told to give every map back, as it does when it is unlucky."""

    def run(word):
        env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"}
        command = [sys.executable, "-c", FAULTS, word]
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
        return done.stdout.split()

    (known, kept), (_, plain) = run("keep"), run("plain")
    if known == "False":
        pytest.skip("another allocator than glibc's")
    assert int(kept) < 1000 < int(plain), "pages that the kernel cleared in eight rounds"
