"""One command for a GPU: rows that fail, end, are killed and go on; its archive and its pages.

Without a GPU the rows that need one are skipped, with the reason. What they would measure is tested
in tests/unhooked/test_kernels.py (the kernel, in the interpreter) and here, on the CPU.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from paths import PROGRAMS, child_environment

from rtdetr_lab.ablations.studies import TABLES
from rtdetr_lab.deployment.bench.gpu import clock, learning, page, speed
from rtdetr_lab.deployment.bench.gpu.__main__ import main
from rtdetr_lab.deployment.bench.gpu.record import (
    SECTIONS,
    Cut,
    Record,
    Skipped,
    Task,
    all_rows,
    runs_so_far,
)
from rtdetr_lab.deployment.bench.subjects import Case

ON_CPU = not torch.cuda.is_available()


def toy(out, *words):
    """Start the toy day."""
    line = [sys.executable, str(PROGRAMS / "gpu_toy.py"), str(out), *map(str, words)]
    return subprocess.Popen(line, env=child_environment(), stderr=subprocess.PIPE, text=True)


def task_in(out, seconds=600.0, **more):
    return Task(out, 8.5, until=time.time() + seconds, **more)


def until(condition):
    """Wait for something that happens in another process."""
    for _ in range(2400):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen")


# --- rows that fail ------------------------------------------------------------------------------


def test_a_row_that_raises_breaks_or_hangs_is_recorded_and_the_next_one_runs(tmp_path):
    assert toy(tmp_path, "--plan", "faults", "--longest", 2).wait() == 0
    rows = Record(tmp_path, "kernels").rows
    assert {row["state"] for row in rows.values()} == {"failed"}
    assert "ValueError: a row that cannot be measured" in rows["raises"]["why"]
    assert "ended with -11" in rows["breaks"]["why"]
    assert "in hangs" in rows["hangs"]["why"], "the function that it was executing"
    assert Record(tmp_path, "steps").rows["last"]["found"] == {"value": "7"}


def test_a_command_that_cannot_start_ends_and_says_why(tmp_path, capsys):
    assert clock.supervise(task_in(tmp_path), ["-c", "raise SystemExit('no such thing')"]) == 1
    assert "no such thing" in capsys.readouterr().err


def test_what_failed_is_tried_again_by_the_next_command_and_what_is_done_is_not(tmp_path):
    record = Record(tmp_path, "steps")
    record.put("right", state="done", run=3, found={})
    record.put("wrong", state="failed", run=3, why="")
    record.put("killed", state="running", run=3)
    assert runs_so_far(tmp_path) == 3
    assert [record.is_over(name, 3) for name in ("right", "wrong", "killed", "new")] == [
        *(True, True),
        *(False, False),
    ]
    assert [record.is_over(name, 4) for name in ("right", "wrong", "killed")] == [
        True,
        False,
        False,
    ]


# --- the budget ----------------------------------------------------------------------------------


def test_a_row_ends_with_the_budget_and_counts_as_cut(tmp_path):
    ended = toy(tmp_path, "--plan", "waits", "--budget", 4)
    assert ended.wait() == 1, "not by itself: it waits for a file"
    clock.settle(replace(task_in(tmp_path), until=time.time()), 1, "")
    assert Record(tmp_path, "kernels").rows["first"]["state"] == "done"
    assert Record(tmp_path, "kernels").rows["waits"]["state"] == "cut"
    assert Record(tmp_path, "steps").rows == {}, "nothing begins afterwards"


def test_no_row_begins_when_the_time_is_up(tmp_path):
    section = clock.Section("steps", lambda task: {"late": dict})
    assert clock.measure(task_in(tmp_path, clock.LEAST - 1), (section,)) == 0
    assert Record(tmp_path, "steps").rows == {}
    assert clock.measure(task_in(tmp_path, clock.LEAST + 60), (section,)) == 0
    assert Record(tmp_path, "steps").rows["late"]["state"] == "done"


def test_after_a_kill_the_same_command_goes_on_where_it_was(tmp_path):
    first = toy(tmp_path, "--plan", "waits")
    until(lambda: "waits" in lines_of(tmp_path))
    first.send_signal(signal.SIGKILL)
    first.wait()
    child = int(lines_of(tmp_path).split()[-1])
    until(lambda: not alive(child))
    assert Record(tmp_path, "kernels").rows["waits"]["state"] == "running"
    (tmp_path / "go.txt").touch()
    assert toy(tmp_path, "--plan", "waits", "--run", 2).wait() == 0
    rows = Record(tmp_path, "kernels").rows
    assert [row["state"] for row in rows.values()] == ["done", "done"]
    assert [row["run"] for row in rows.values()] == [1, 2]
    assert lines_of(tmp_path).count("first") == 1, "what was done is not done again"


def lines_of(out):
    path = out / "told.txt"
    return path.read_text() if path.exists() else ""


def alive(pid):
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().split()[2] != "Z"


# --- learning ------------------------------------------------------------------------------------


def test_the_archive_comes_back_from_its_pieces_and_a_torn_one_counts_as_none(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(learning, "PIECE", 4000)
    with learning.unpacked(tmp_path) as home:
        for name in ("nano/last.pt", "nano/previous.pt", "ablations/losses/journal.jsonl"):
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).write_bytes(name.encode())
    pieces = sorted(tmp_path.glob("learning.tar.*"))
    assert len(pieces) > 1
    with learning.unpacked(tmp_path) as home:
        found = sorted(str(p.relative_to(home)) for p in home.rglob("*") if p.is_file())
        assert found == ["ablations/losses/journal.jsonl", "nano/last.pt"]
        assert (home / "nano/last.pt").read_bytes() == b"nano/last.pt"
    pieces[1].write_bytes(b"of another archive")
    with learning.unpacked(tmp_path) as home:
        assert list(home.iterdir()) == []


def test_nano_is_planned_for_the_pictures_that_all_runs_have_time_for(tmp_path, monkeypatch):
    asked = []

    def call(task, *words):
        asked.append(dict(zip(words[1::2], words[2::2], strict=False)))
        run = Path(asked[-1]["--out"])
        run.mkdir(exist_ok=True)
        line = {"pictures": 9000, "pictures_per_s": 200.0, "loss": 1.0, "seconds": 45}
        last = [{"pictures": 9100, "AP": 0.5}] if len(asked) == 2 else []
        (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, [line, *last])))

    monkeypatch.setattr(learning, "call", call)
    monkeypatch.setattr(learning, "train_size", lambda task: [])
    task = Task(tmp_path, minutes=10.0, run=2, until=time.time() + 300)
    assert learning.nano(task) == {"pictures": 9100, "AP": 0.5, "pictures_per_s": 200.0}
    first, second = (int(words["--pictures"]) for words in asked)
    assert first == learning.PICTURES
    whole = 300 + 60 * 10  # this run, and the third
    assert second == pytest.approx(9000 + 200 * learning.SHARE * whole, rel=0.05)


def test_nano_without_time_is_cut_with_what_it_has_seen(tmp_path):
    with pytest.raises(Cut) as cut:
        learning.nano(task_in(tmp_path, learning.RESERVE - 1))
    assert cut.value.found == {"pictures": 0, "pictures_per_s": 0.0}


def test_a_command_that_fails_says_its_last_lines(tmp_path):
    with pytest.raises(RuntimeError, match=r"(?s)train --preset moon.*moon"):
        learning.call(task_in(tmp_path), "train", "--preset", "moon")


def test_a_library_that_is_missing_skips_a_row_by_name():
    learning.need("torch")
    with pytest.raises(Skipped, match="no_such_library"):
        learning.need("torch", "no_such_library")


def test_the_studies_and_the_sections_are_those_that_exist():
    assert set(learning.STUDIES) <= set(TABLES)
    assert tuple(section.name for section in clock.SECTIONS) == SECTIONS


NOTEBOOK = """\
# %% [markdown]
# # 99 · Two cells

# %%
import os
print(6 * 7, os.environ.get("CUDA_VISIBLE_DEVICES", "sees every card"))

# %%
raise ValueError("the second cell fails")
"""


def test_a_notebook_is_executed_with_the_card_in_sight_and_kept_even_if_it_fails(
    tmp_path, monkeypatch
):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    source = tmp_path / "99_two_cells.py"
    source.write_text(NOTEBOOK)
    with pytest.raises(Exception, match="the second cell fails"):
        learning.executed(source, tmp_path)
    assert "42 sees every card" in (tmp_path / "99_two_cells.ipynb").read_text()


# --- the whole command, tiny, and its pages -------------------------------------------------------


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    """A folder that the command filled."""
    pytest.importorskip("transformers", reason="the peer; runs with the extra [dev]")
    out = tmp_path_factory.mktemp("gpu")
    line = [sys.executable, "-m", "rtdetr_lab.deployment.bench.gpu", str(out), "--tiny"]
    subprocess.run(line, env=child_environment(), check=True)
    return out


@pytest.mark.skipif(not ON_CPU, reason="says what a machine without CUDA skips")
def test_every_row_of_a_machine_without_a_card_is_done_or_says_why_not(day):
    states = {
        f"{section}: {name}": row["state"] if row["state"] == "done" else row["why"]
        for section, rows in all_rows(day).items()
        for name, row in rows.items()
    }
    done = [name for name, state in states.items() if state == "done"]
    assert done == [
        "speed: nano, batch 2",
        "speed: nano, batch 2: parts",
        "steps: training step, nano, batch 2",
        "learning: nano",
        "learning: study losses",
    ]
    others = [state for state in states.values() if state != "done"]
    assert len(others) == 8
    assert all("CUDA" in why for why in others)


def test_a_folder_is_small_enough_to_travel(day):
    sizes = [path.stat().st_size for path in day.iterdir()]
    assert len(sizes) <= 8 - 1, "a GPU adds a notebook"
    assert max(sizes) <= 16 * 10**6
    assert all(path.is_file() for path in day.iterdir())


def test_the_pages_name_the_machine_of_every_figure(day, tmp_path, capsys):
    assert main([str(day), "--write", "--docs", str(tmp_path)]) == 0
    assert str(tmp_path / "gpu.md") in capsys.readouterr().out
    said = (tmp_path / "gpu.md").read_text()
    machine = page.card(all_rows(day)["speed"]["nano, batch 2"])
    titles = [line for line in said.splitlines() if line.startswith("## ")]
    assert sum(machine in title for title in titles) == 5
    assert "training.ship" in said
    assert "kernels: odd maps, fp32: skipped" in said
    assert "Nothing was measured" not in said


def test_without_figures_the_page_says_so_and_the_site_has_that_page(tmp_path):
    assert page.write(tmp_path / "none", tmp_path) == [tmp_path / "gpu.md"]
    said, kept = ((folder / "gpu.md").read_text() for folder in (tmp_path, page.DOCS))
    assert "Nothing was measured on a GPU yet" in said
    assert kept == said or "Nothing was measured" not in kept


def done(**found):
    return {"state": "done", "run": 1, "machine": {"gpu": "a card", "cpu": ""}, "found": found}


def taking(batch=1, **milliseconds):
    times = {name.replace("_", " "): {"rounds": [t / 1e3]} for name, t in milliseconds.items()}
    times = {name.replace("grid sample", "grid_sample"): t for name, t in times.items()}
    return done(times=times, case={"batch": batch})


def test_goals_are_computed_from_the_rows_as_the_issue_words_them():
    part = {"seconds": 1.0, "flops": 3 * 10**9, "bytes": 1}
    records = {
        "kernels": {"time, bf16": taking(**{
            "fused,_forward": 2, "grid_sample,_forward": 12, "fused,_with_backward": 4,
            "grid_sample,_with_backward": 10,
        })},
        "speed": {
            "r18, batch 1": taking(
                transformers_eager=50, transformers_eager_bf16=20, ours_bf16=9, ours_fp16=2
            ),
            "r50, batch 1: compiled, bf16": taking(transformers_compiled_bf16=4, ours_bf16=1),
            "r50, batch 32": taking(transformers_eager_bf16=30, ours_bf16=10, ours_fp16=1),
            "r50, batch 32: parts": done(
                parts={"backbone": part, "decoder": part}, top={"flops": 2e12, "bytes": 1.0}
            ),
        },
        "steps": {"r18, batch 8": taking(
            transformers_eager=9, transformers_eager_bf16=6, ours=5, ours_bf16=4
        )},
    }  # fmt: skip
    measured = {what: value for what, _, value, _ in page.goal_rows(records)}
    assert list(measured.values()) == ["0.10", "0.25", "30%", "6.0×", "2.5×", "1.50×"]


def test_a_subject_that_cannot_run_is_named_and_the_others_are_timed(tmp_path):
    def cannot(case):
        raise RuntimeError("no graph of this")

    builds = {"ours": lambda case: lambda: case.batch, "ours, graph": cannot}
    found = speed.compare(Case("nano"), builds, task_in(tmp_path, tiny=True))
    assert set(found["times"]) == {"ours"}
    assert "no graph of this" in found["broken"]["ours, graph"]
    row = {**done(**found), "state": "done"}
    assert "no graph of this" in "".join(page.unfinished({"speed": {"nano": row}}))


def test_a_record_that_was_damaged_is_named(tmp_path, capsys):
    (tmp_path / "steps.json").write_text('{"a": {"state": "done"}}')
    assert main([str(tmp_path), "--tiny"]) == 1
    assert "steps.json" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["steps.json"]
