"""A run that is killed, whenever, goes on from a valid checkpoint and ends with the same bits."""

import json
import subprocess
import sys

import pytest
from paths import PROGRAMS, child_environment

SCRIPT = PROGRAMS / "kill_runs.py"


def kills(count, seed, first=0):
    words = ["--count", str(count), "--seed", str(seed), "--first", str(first)]
    command = [sys.executable, str(SCRIPT), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=child_environment())
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_three_kills_one_of_them_inside_a_save_change_nothing():
    seen = kills(3, seed=0, first=1)
    assert (seen["kills"], seen["inside"], seen["same"]) == (3, 1, 3)
    assert seen["struck"] == 3


@pytest.mark.full
def test_two_hundred_kills_fifty_of_them_inside_a_save_change_nothing():
    seen = kills(200, seed=1)
    assert (seen["kills"], seen["inside"], seen["same"]) == (200, 50, 200)
    assert seen["struck"] == 200
