"""What a study says while it runs."""

from dataclasses import replace

from ablation_toy import study

from rtdetr_lab.ablations.executors import Outcome
from rtdetr_lab.ablations.progress import show_progress


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
