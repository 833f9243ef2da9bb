"""What a study says while it runs."""

from dataclasses import replace

from ablation_toy import study

from rtdetr_lab.ablations import measure, plan
from rtdetr_lab.ablations.executors import Outcome
from rtdetr_lab.ablations.journal import Journal
from rtdetr_lab.ablations.progress import estimate, show_progress
from rtdetr_lab.ablations.task import Task


def test_bars_and_lines_are_what_the_records_say(tmp_path, capsys):
    made = study(tmp_path, [], seeds=(0,))
    made.run(watch=show_progress)
    begins, ends = capsys.readouterr().err.splitlines()
    (job,) = made.jobs(16)
    assert begins == f"base #0 begins ({job.fingerprint})"
    assert ends.startswith("base #0: AP 0.")

    bars = show_progress(made.journal.plan, made.journal)
    bars.started(job)
    bars.get_renderable()
    assert [(t.description, t.completed) for t in bars.tasks] == [("study", 16), ("base #0", 16)]
    bars.ended(Outcome(job, error="Traceback …\nValueError: why\n"))
    bars.get_renderable()
    assert [(t.description, t.completed) for t in bars.tasks] == [("study (1 failed)", 16)]
    assert capsys.readouterr().err.splitlines()[-1] == "base #0 failed: ValueError: why"


def test_an_error_is_shown_as_it_is_and_sends_no_codes(tmp_path, capsys):
    made = study(tmp_path, [], seeds=(0,))
    (job,) = made.jobs(16)
    bars = show_progress({"runs": {"base": ["one"]}, "pictures": 16}, made.journal)
    odd = replace(job, variant="[/b] \x1b[31m")
    bars.started(odd)
    bars.ended(Outcome(odd, error="ValueError: [/red] is no shape \x1b[2J"))
    begins, ends = capsys.readouterr().err.splitlines()
    assert begins.startswith("[/b] \\x1b[31m #0 begins (")
    assert ends == "[/b] \\x1b[31m #0 failed: ValueError: [/red] is no shape \\x1b[2J"


def test_an_estimate_is_that_of_all_seeds_on_all_workers():
    cost = {"s_per_picture": {"one": 1.5, "two": 0.5}, "pictures": 1800, "seeds": [0, 1, 2]}
    assert estimate(cost) == "03 h 00 min"
    assert estimate(cost, workers=2) == "01 h 30 min"


def test_a_budget_of_time_is_divided_among_all_runs(monkeypatch):
    monkeypatch.setattr(plan.time, "monotonic", lambda: 7.0)
    free = plan.RESERVE * 3600
    found = plan.pictures_for("1h", {"one": 1.5, "two": 0.5}, 3, 8, began=7.0)
    assert free / 6 - 8 < found <= free / 6
    assert found % 8 == 0


def test_the_time_of_a_picture_is_a_part_of_that_of_a_step(tmp_path, monkeypatch):
    took = iter((9.0, 3.0, 2.0, 4.0, 5.0, 6.0))
    monkeypatch.setattr(measure, "timeit", lambda call, number: next(took))
    made = study(tmp_path, [])
    assert measure.seconds_per_picture(made.base, Task(*made.data)) == 2 / 4, "batches of four"


def test_speed_is_told_as_a_median_between_quartiles():
    told = measure._summary([5.0, 1.0, 4.0, 2.0, 30.0])
    assert told == {"low": 2.0, "median": 4.0, "high": 5.0}


def test_half_a_line_does_not_count(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text('{"kind": "plan", "name": "toy"}\n{"kind": "ro', encoding="utf8")
    journal = Journal(path)
    journal.append({"kind": "row"})
    assert [line["kind"] for line in Journal(path).lines] == ["plan", "row"]
