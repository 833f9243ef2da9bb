"""A light cut of the campaign: damaged and hostile files are refused by name, or read rightly.

`make campaign` runs all of it and writes docs/results/reliability.md.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parent / "campaign" / "run.py"

CUT = {"pictures": 500, "coco": 300, "voc": 100, "yolo": 100, "safetensors": 300, "pth": 300}
CUT |= {"config": 300, "bits": 200, "hostile": 100, "foreign": 100}
FULL = {"pictures": 10_000, "coco": 6_000, "voc": 2_000, "yolo": 2_000, "safetensors": 10_000}
FULL |= {"pth": 3_000, "config": 2_000, "bits": 2_000, "hostile": 350, "foreign": 1_000}


def campaign(name, count, out, seed=0):
    command = [sys.executable, str(RUN), name, str(count), "--seed", str(seed), "--out", str(out)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert out.exists(), run.stderr[-2000:]
    return json.loads(out.read_text(encoding="utf8"))


@pytest.mark.parametrize("name", CUT)
def test_damage_is_named_or_harmless(name, tmp_path):
    tally = campaign(name, CUT[name], tmp_path / "tally.json")
    assert tally["count"] == CUT[name]
    assert tally["wrong"] == []
    if name != "bits":  # every turned bit is refused; the others have whole files among them
        assert tally["outcomes"].get("refused", 0) != tally["count"], "nothing whole was ever read"


@pytest.mark.full
@pytest.mark.parametrize("name", FULL)
def test_the_whole_campaign(name, tmp_path):
    assert campaign(name, FULL[name], tmp_path / "tally.json")["wrong"] == []


def test_a_silent_wrong_answer_would_be_counted():
    """The judge itself: one good case, one bad, one that raises something of its own."""
    sys.path.insert(0, str(RUN.parent))
    from tally import Wrong, run

    answers = iter(["warm-up", "read", Wrong("other pixels"), ZeroDivisionError("oh"), "read"])

    def case(rng):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    tally = run("judge", case, 4, seed=0)
    assert tally.outcomes == {"read": 2, "WRONG": 2}
    assert "other pixels" in tally.wrong[0]
    assert "ZeroDivisionError" in tally.wrong[1]
