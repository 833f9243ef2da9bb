"""A light cut of the campaign: damaged and hostile files are refused by name, or read rightly.

`make campaign` runs all of it and writes docs/results/reliability.md.
"""

import ast
import json
import os
import subprocess
import sys
from importlib import import_module

import pytest
from paths import PROGRAMS, ROOT

RUN = PROGRAMS / "campaign" / "run.py"

CUT = {"pictures": 500, "coco": 300, "voc": 100, "yolo": 100, "safetensors": 300, "pth": 300}
CUT |= {"config": 300, "bits": 200, "hostile": 100, "foreign": 100}
FULL = {"pictures": 10_000, "coco": 6_000, "voc": 2_000, "yolo": 2_000, "safetensors": 10_000}
FULL |= {"pth": 3_000, "config": 2_000, "bits": 2_000, "hostile": 350, "foreign": 1_000}


@pytest.fixture
def part(monkeypatch):
    """A module of the campaign, by name; its folder is no package."""
    monkeypatch.syspath_prepend(str(RUN.parent))
    return import_module


def program(script, out, *words):
    """What a program of the campaign wrote."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    env |= {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(PROGRAMS / script), *map(str, words), "--out", str(out)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=3600, env=env)
    assert out.exists(), run.stdout[-2000:] + run.stderr[-2000:]
    return json.loads(out.read_text(encoding="utf8"))


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


def test_a_silent_wrong_answer_would_be_counted(part):
    """The judge itself: one good case, one bad, one that raises something of its own."""
    tally = part("tally")
    Wrong, run = tally.Wrong, tally.run
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


# --- kills and surroundings (of training: training/test_kill.py; of studies: ablations/) ---


@pytest.mark.parametrize("count", [3, pytest.param(200, marks=pytest.mark.full)])
def test_a_save_that_is_killed_leaves_the_old_model_or_the_new_one(tmp_path, count):
    seen = program("kill_saves.py", tmp_path / "s.json", "--count", count, "--first", 1)
    assert seen["same"] == count
    assert seen["inside"] >= min(5, count // 3)


CHEAP = ["disk full, `rtdetr-lab train`", "disk full, `rtdetr-lab detect`", "disk full, save"]
CHEAP += ["no /dev/shm, two workers", "Ctrl-C, `rtdetr-lab detect`"]


def test_where_disks_and_people_interfere_it_is_said_in_one_line(tmp_path):
    rows = program("campaign/surroundings.py", tmp_path / "s.json", "--only", *CHEAP)
    assert [row["what"] for row in rows] == CHEAP
    assert [row["wrong"] for row in rows] == [""] * len(CHEAP)


@pytest.mark.full
def test_all_surroundings(tmp_path):
    rows = program("campaign/surroundings.py", tmp_path / "s.json")
    assert [row["wrong"] for row in rows] == [""] * len(rows)


# --- planted bugs -------------------------------------------------------------------------------


def lists(part):
    """The chapters' bugs, and those of the equipment."""
    return part("mutants").MUTANTS, part("mutants_equipment").MUTANTS


def test_every_bug_can_still_be_planted(part):
    bugs, (chapters, equipment) = part("bugs"), lists(part)
    assert len(chapters) >= 60
    assert len(equipment) >= 150
    assert len({bug[:3] for bug in chapters + equipment}) == len(chapters + equipment)
    for module, old, new, words, *tests in chapters + equipment:
        text = (bugs.ROOT / "rtdetr_lab" / f"{module}.py").read_text(encoding="utf8")
        assert text.count(old) == 1, f"{module}: {words}"
        ast.parse(text.replace(old, new))  # a plausible bug compiles
        assert new != old, words
        assert all((ROOT / "tests" / test).exists() for test in tests), words
    assert all(new for _, _, new, *_ in chapters)
    assert all(tests for _, _, _, _, *tests in equipment)


def test_a_list_from_elsewhere_is_planted_and_given_to_the_tests_it_names(tmp_path):
    caught = ("boxes", "centre - 0.5 * size", "centre - size", "twice", "test_boxes.py")
    same = ("boxes", "centre - 0.5 * size", "centre - size * 0.5", "nothing", "test_boxes.py")
    write = (tmp_path / "list.py").write_text
    write(f"MUTANTS = ({same}, {caught})", encoding="utf8")
    words = ("--list", tmp_path / "list.py")
    rows = program("campaign/bugs.py", tmp_path / "b.json", *words)
    assert [row["caught_by"] for row in rows] == [None, "module"]
    write(f"MUTANTS = ({caught},)", encoding="utf8")  # results of another list are not taken over
    rows = program("campaign/bugs.py", tmp_path / "b.json", *words)
    assert [(row["number"], row["bug"]) for row in rows] == [(0, "twice")]


@pytest.mark.parametrize("text", ["", "MUTANTS = ()", "MUTANTS = (('boxes', 'a', 'b'),)"])
def test_a_list_without_bugs_is_refused(part, tmp_path, text):
    (tmp_path / "list.py").write_text(text, encoding="utf8")
    for name in ("list.py", "nowhere.py"):
        with pytest.raises(SystemExit, match=f"{name} defines no MUTANTS"):
            part("bugs").listed(tmp_path / name)


SAMPLE = {"boxes": "negative sizes", "matching": "overlap is a cost"}


def test_a_sample_of_bugs_is_caught_by_the_chapters_own_tests(part, tmp_path):
    mutants = part("mutants").MUTANTS
    numbers = [i for i, m in enumerate(mutants) if SAMPLE.get(m[0]) == m[3]]
    assert len(numbers) == len(SAMPLE)
    rows = program("campaign/bugs.py", tmp_path / "b.json", "--only", *numbers)
    assert {row["number"]: row["caught_by"] for row in rows} == dict.fromkeys(numbers, "chapter")


# --- the page -----------------------------------------------------------------------------------


def test_the_page_says_what_was_not_run(part, monkeypatch, tmp_path):
    report = part("report")
    monkeypatch.setattr(report, "BUILD", tmp_path)
    assert report.page("").count("Not measured yet") == len(report.SECTIONS)
    old = report.page("").replace("Not measured yet: hub.", "Kept.")
    assert report.page(old) == old, "a section that was not measured again stays"
    assert set(report.commands("python")) == set(report.NAMES)
    row = {"what": "a | b", "how": "tmpfs", "said": "no room", "wrong": "", "seconds": 1.0}
    kills = {"seed": 1, "kills": 7, "struck": 6, "inside": 5, "same": 7, "seconds": 9.0}
    tally = {"count": 9, "outcomes": {"refused": 8, "WRONG": 1}, "wrong": ["case 3: odd pixels"]}
    bug = {"number": 0, "module": "boxes", "bug": "odd", "caught_by": None}
    counted = {name: {**tally, "slowest_s": 0.5} for name in report.DAMAGE}
    counted |= dict.fromkeys(report.KILLS, kills) | {"surroundings": [row], "bugs": [bug]}
    counted["steps"] = {"lab over foreign": [9, 1, ["point 3: odd"]]}
    counted["hub"] = {"tests": 3, "failed": 1, "names": ["x"]}
    run = {"target": "test", "beside": "4 busy loops", "passed": 8301, "skipped": 5, "failed": 1}
    counted["suite"] = [run | {"seconds": 3600, "names": ["tests/test_x.py::test_y"]}]
    for name, tree in counted.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(tree))
    page = report.page(old)
    assert r"| a \| b | tmpfs | no room | 1.0 s |" in page
    assert "| saves over another model | 7 | 6 | 5 | 7 left the old model" in page
    assert "| lab over foreign | 9 | 7 | 1 | 1 |" in page
    assert "2 of 3 cases behave; not: x" in page
    assert "0 of 1 were caught" in page
    assert "| `make test` | 4 busy loops | 8,301 | 5 | 1 | 60 min |" in page
    assert "- `tests/test_x.py::test_y`" in page
    assert "- `boxes`: odd" in page
    assert "| 9 | 8 | 0 | 1 | 0.50 s | `python tests/programs/campaign/run.py pictures 9` |" in page
    assert "- pictures, case 3: odd pixels" in page
    assert page.count("Not measured yet") == 3, "endurance, the long runs, the other bugs"
    (tmp_path / "runs.json").unlink()
    assert "| saves over another model | 7 |" in report.page(page), "one of three is not enough"


def test_the_counts_of_both_parts_of_the_suite_are_added(monkeypatch):
    monkeypatch.syspath_prepend(str(PROGRAMS))
    suite_runs = import_module("suite_runs")
    printed = """
SKIPPED [3] tests/test_a.py:1: 2 passed, as if
FAILED tests/test_a.py::test_one - assert 0
2 failed, 8301 passed, 581 skipped in 1218.12s (0:20:18)
ERROR tests/unhooked/test_b.py::test_two
114 passed, 50 skipped, 14 warnings, 1 error in 139.30s (0:02:19)
"""
    assert suite_runs.counted(printed) == {"passed": 8415, "failed": 3, "skipped": 631}
    assert suite_runs.names_of(printed) == [
        "tests/test_a.py::test_one",
        "tests/unhooked/test_b.py::test_two",
    ]
