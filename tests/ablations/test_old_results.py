"""A study answers with what its code, its pictures and its measures give today."""

import importlib
import subprocess
import sys
from dataclasses import dataclass, replace

import pytest
from ablation_toy import no_aifi, study
from paths import child_environment

from rtdetr_lab.ablations import LocalProcesses, Submitit
from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.data.batch import First
from rtdetr_lab.errors import ConfigError

OWN = """
from dataclasses import dataclass
from rtdetr_lab.config import replace_at
from rtdetr_lab.query_selection import QuerySelection, TopScore
from rtdetr_lab.rtdetr import RTDETRConfig

@dataclass(frozen=True)
class Mine(TopScore):
    def build(self, dim):
        return Chosen(self)

class Chosen(QuerySelection):
    def content_of(self, tokens):
        return tokens * FACTOR

def mine(cfg: RTDETRConfig) -> RTDETRConfig:
    'A variant of a reader.'
    return replace_at(cfg, "selection", Mine(10))
"""

SCRIPT = """
if __name__ == "__main__":
    import sys
    sys.path.insert(0, sys.argv[1])
    from ablation_toy import study
    from rtdetr_lab.ablations import LocalProcesses
    for entry in study(sys.argv[2], [mine], seeds=(0,)).run(LocalProcesses(2)).entries:
        print(entry.name, len(entry.rows), [f["traceback"] for f in entry.failures])
"""


def written(folder, factor, monkeypatch):
    """The variant of a module that was just written."""
    (folder / "own_part.py").write_text(OWN.replace("FACTOR", factor))
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    sys.modules.pop("own_part", None)
    importlib.invalidate_caches()
    return importlib.import_module("own_part").mine


def runs(report):
    return {entry.name: [row["run"] for row in entry.rows] for entry in report.entries}


def test_an_edited_class_is_trained_again_and_its_rows_are_in_the_report(tmp_path, monkeypatch):
    first = study(tmp_path, [written(tmp_path, "1.0", monkeypatch)], seeds=(4,)).run()
    edited = study(tmp_path, [written(tmp_path, "0.5", monkeypatch)], seeds=(4,))
    report = edited.run()
    assert runs(report)["base"] == runs(first)["base"]
    assert len(runs(report)["mine"]) == len(runs(first)["mine"]) == 1
    assert runs(report)["mine"] != runs(first)["mine"]
    assert len(edited.journal.of_kind("plan")) == 2
    back = study(tmp_path, [written(tmp_path, "1.0", monkeypatch)], seeds=(4,))
    assert runs(back.run()) == runs(first)
    assert len(edited.journal.of_kind("row")) == 3, "nothing was trained a second time"


@dataclass(frozen=True)
class Batches:
    """A measure that says how many batches it saw."""

    def __call__(self, model, batches):
        return {"batches": float(len(batches))}


def test_other_pictures_or_a_new_measure_are_evaluated_without_training(tmp_path):
    made = study(tmp_path, [], seeds=(0, 5))
    first = made.run()
    train, val = made.data
    other = replace(made, data=(train, replace(val, seed=7)), measures=(Batches(),))
    report = other.run()
    assert runs(report) == runs(first), "nothing is trained"
    (then,), (now,) = first.entries, report.entries
    assert now.measured("batches") == [1.0, 1.0]
    assert report.measures == ["batches"]
    for before, after in zip(then.rows, now.rows, strict=True):
        assert before["judged"] != after["judged"]
        assert before["curve"]
        assert not after["curve"], "its points were measured on the old pictures"
    fewer = replace(made, data=(train, First(val, 3))).run()
    assert fewer.plan["val_pictures"] == 3
    assert len(fewer.entries[0].rows) == 2
    assert [e.measured("batches") for e in made.run().entries] == [[]]


# --- elsewhere ----------------------------------------------------------------------------------


def test_a_class_of_a_module_runs_in_processes_and_its_model_is_loaded(tmp_path, monkeypatch):
    mine = written(tmp_path, "1.0", monkeypatch)
    report = study(tmp_path / "x", [mine], seeds=(0,)).run(LocalProcesses(2))
    entry = report.entries[1]
    assert not entry.failures, entry.failures[0]["traceback"]
    folder = tmp_path / "x" / "runs" / entry.rows[0]["run"]
    with pytest.raises(
        ConfigError, match=r"own_part:Mine.*pass your own class as classes=\[Mine\]"
    ):
        load_pretrained(folder)
    own = sys.modules["own_part"]
    model = load_pretrained(folder, classes=[own.Mine])
    assert type(model.selection if hasattr(model, "selection") else model.select) is own.Chosen


def test_a_class_of_the_script_itself_runs_in_processes_and_is_loaded(tmp_path, monkeypatch):
    script = tmp_path / "whole.py"
    script.write_text(OWN.replace("FACTOR", "1.0") + SCRIPT)
    tests = next(p for p in sys.path if p.endswith("tests"))
    command = [sys.executable, "-B", str(script), tests, str(tmp_path / "x")]
    done = subprocess.run(command, capture_output=True, text=True, env=child_environment())
    assert done.stdout == "base 1 []\nmine 1 []\n", done.stdout + done.stderr
    written(tmp_path, "1.0", monkeypatch)
    own = sys.modules["own_part"]
    in_process = study(tmp_path / "x", [own.mine], seeds=(0,))
    assert len(in_process.run().entries[1].rows) == 1
    assert len(in_process.journal.of_kind("row")) == 2, "the same code in a module is the same run"
    (row,) = (row for row in in_process.journal.of_kind("row") if row["variant"] == "mine")
    folder = tmp_path / "x" / "runs" / row["run"]
    with pytest.raises(ConfigError, match=r"main__:Mine.*classes=\[Mine\]"):
        load_pretrained(folder)
    assert load_pretrained(folder, classes=[own.Mine]).cfg.selection == own.Mine(10)


def test_code_that_was_edited_after_the_plan_is_not_run(tmp_path, monkeypatch):
    made = study(tmp_path / "x", [written(tmp_path, "1.0", monkeypatch)], seeds=(0,))
    job = made.jobs(16)[1]
    (tmp_path / "own_part.py").write_text(OWN.replace("FACTOR", "2.0"))
    (outcome,) = LocalProcesses(1)([job], tmp_path, tmp_path / "runs", lambda job: None)
    assert "its code was edited since the study made its plan" in outcome.error


@pytest.mark.full
def test_a_class_of_a_module_runs_through_submitit(tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="runs with the extra [cluster]")
    mine = written(tmp_path, "1.0", monkeypatch)
    report = study(tmp_path / "x", [mine], seeds=(0,)).run(Submitit("local", {"timeout_min": 5}))
    assert [len(e.rows) for e in report.entries] == [1, 1]


def test_a_failure_of_an_old_plan_is_not_shown_as_todays(tmp_path, monkeypatch):
    broken = written(tmp_path, "missing_name", monkeypatch)
    report = study(tmp_path, [broken], seeds=(0,)).run()
    assert "missing_name" in report.entries[1].failures[0]["traceback"]
    assert report.entries[1].verdict == "no result"
    report = study(tmp_path, [written(tmp_path, "1.0", monkeypatch)], seeds=(0,)).run()
    assert not report.entries[1].failures
    assert no_aifi.__doc__ not in report.markdown
