"""A study: what it trains, what it remembers, what survives, and what it says."""

import errno
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace

import pytest
import torch
from ablation_toy import no_aifi, study, tiny
from paths import PROGRAMS, child_environment
from training_toy import StandInForWandb

from rtdetr_lab.ablations import LocalProcesses, Setup, Study, Submitit, Variant, variant
from rtdetr_lab.ablations.decoder import EveryDepth
from rtdetr_lab.ablations.executors import Errand
from rtdetr_lab.ablations.journal import Journal
from rtdetr_lab.ablations.plan import measured, pictures_for
from rtdetr_lab.ablations.resample import judge
from rtdetr_lab.ablations.sampling import FineTune
from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.cli import main
from rtdetr_lab.config import diff, replace_at
from rtdetr_lab.errors import ConfigError, DataError, MissingExtraError, TrainingError
from rtdetr_lab.hybrid_encoder import HybridEncoder, HybridEncoderConfig
from rtdetr_lab.rtdetr import RTDETRConfig
from rtdetr_lab.training import TrainConfig


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A study that ran once, undisturbed."""
    made = study(tmp_path_factory.mktemp("done"))
    made.run()
    return made


# --- variants -----------------------------------------------------------------------------------


def test_the_docstring_is_the_hypothesis_and_a_variant_without_one_is_refused():
    assert variant(no_aifi).hypothesis == "Attention on S5 is worth its time."
    assert variant(no_aifi).name == "no aifi"
    with pytest.raises(ConfigError, match="hypothesis"):
        variant(lambda cfg: cfg)


def test_the_annotation_says_whether_model_or_recipe_is_changed():
    def slower(recipe: TrainConfig) -> TrainConfig:
        """A lower rate learns less."""
        return replace(recipe, lr=recipe.lr / 2)

    base = Setup(tiny(), TrainConfig())
    assert diff(base, variant(slower)(base)) == {"recipe.lr": (1e-4, 5e-5)}
    assert list(diff(base, variant(no_aifi)(base))) == ["cfg.encoder.aifi"]


def test_a_fine_tune_starts_from_a_run_of_the_base():
    base = Setup(tiny(), TrainConfig(num_pictures=400))
    later = Variant("discrete", FineTune(discrete=True), "half a point")(base)
    assert later.start == base
    assert later.recipe.num_pictures == 100
    again = base
    for path, (_, value) in diff(base, later).items():
        again = replace_at(again, path, value)
    assert again == later


def test_what_changes_nothing_is_the_reference_under_its_own_name(tmp_path):
    def as_published(cfg: RTDETRConfig) -> RTDETRConfig:
        """What the paper has."""
        return cfg

    assert study(tmp_path).reference == "base"
    assert study(tmp_path, [no_aifi, as_published]).reference == "as published"
    with pytest.raises(ConfigError, match="occur twice"):
        study(tmp_path, [no_aifi, no_aifi])


# --- runs ---------------------------------------------------------------------------------------


def test_the_same_study_twice_gives_the_same_table(done, tmp_path):
    assert study(tmp_path).run().csv == done.report().csv


def test_a_row_belongs_to_every_variant_and_seed_and_a_second_run_does_nothing(done):
    report, before = done.report(), (done.home / "journal.jsonl").read_bytes()
    assert [(e.name, len(e.rows)) for e in report.entries] == [("base", 2), ("no aifi", 2)]
    done.run()
    assert (done.home / "journal.jsonl").read_bytes() == before


def test_equal_seeds_are_pairs_and_see_the_same_pictures(done):
    report = done.report()
    lines = [dict(line) for line in report.lines]
    for number, line in enumerate(line for line in lines if line["kind"] == "row"):
        line["scores"] = {"": {**line["scores"][""], "AP": 0.3 + 0.07 * number**2}}
    learned = replace(report, lines=tuple(lines))
    per_seed = {e.name: e.values("AP") for e in learned.entries}
    difference = next(e for e in learned.entries if e.name == "no aifi").difference
    expected = [a - b for a, b in zip(per_seed["no aifi"], per_seed["base"], strict=True)]
    assert list(difference.per_seed) == expected


def test_a_variant_that_fails_is_reported_and_the_others_go_on(tmp_path):
    def explodes(cfg: RTDETRConfig) -> RTDETRConfig:
        """It can be described, but its encoder breaks in training."""
        return replace(cfg, encoder=Explosive(cfg.encoder.dim, cfg.encoder.aifi, cfg.encoder.ccff))

    report = study(tmp_path, [explodes, no_aifi], seeds=(0,)).run()
    found = {e.name: e for e in report.entries}
    assert "a planted failure" in found["explodes"].failures[0]["traceback"]
    assert found["explodes"].verdict == "no result"
    assert len(found["base"].rows) == len(found["no aifi"].rows) == 1
    assert "a planted failure" in report.markdown


@dataclass(frozen=True)
class Explosive(HybridEncoderConfig):
    """Works until it is trained."""

    def build(self, channels):
        return _Explosive(self, channels)


class _Explosive(HybridEncoder):
    def forward(self, maps):
        if torch.is_grad_enabled() and len(maps[0]) == 4 and self.seen():
            raise RuntimeError("a planted failure")
        return super().forward(maps)

    def seen(self):
        """Not while the plan times its three steps."""
        self.calls = getattr(self, "calls", 0) + 1
        return self.calls > 3


def test_two_studies_train_what_they_share_once(done):
    other = replace(done, name="other", variants=[Variant("as it is", lambda c: c, "the same")])
    other.run()
    runs = {row["run"] for row in other.journal.of_kind("row")}
    assert runs <= {row["run"] for row in done.journal.of_kind("row")}
    sessions = json.loads((done.folder / "runs" / runs.pop() / "run.json").read_text())["sessions"]
    assert len(sessions) == 1, "the second study found the run finished"


def test_a_finished_run_keeps_the_model_that_was_judged_and_no_optimizer(done):
    row = done.journal.of_kind("row")[2]
    folder = done.folder / "runs" / row["run"]
    assert not list(folder.glob("*.pt"))
    model = load_pretrained(folder)
    assert model.cfg == done.prepared(16).setups[row["variant"]].cfg
    assert judge(model, done.data[1]) == row["scores"][""]
    model_bytes = 4 * sum(p.numel() for p in model.parameters())
    held = sum(p.stat().st_size for p in folder.rglob("*") if p.suffix != ".png")
    assert held < 1.5 * model_bytes + 50_000


def test_views_of_one_trained_model_are_rows_of_their_own(tmp_path):
    def three(cfg: RTDETRConfig) -> RTDETRConfig:
        """More layers refine more."""
        return replace_at(cfg, "decoder.num_layers", 3)

    report = study(tmp_path, [three], seeds=(0,), views=EveryDepth()).run()
    names = [e.name for e in report.entries]
    assert names == ["base", "three", "three, run 1", "three, run 2"]
    assert report.entries[2].verdict.startswith("no verdict")


# --- what survives ------------------------------------------------------------------------------


def test_a_torn_tail_is_cut_off_and_whole_lines_stay(done, tmp_path):
    path = tmp_path / "journal.jsonl"
    whole = (done.home / "journal.jsonl").read_bytes()
    path.write_bytes(whole + b'{"kind": "row", "variant"')
    journal = Journal(path)
    assert len(journal.lines) == whole.count(b"\n")
    journal.append({"kind": "failed"})
    assert path.read_bytes() == whole + b'{"kind": "failed"}\n'


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / "journal.jsonl").write_text('{"kind": "plan"}\nnonsense\n{"kind": "row"}\n')
    with pytest.raises(DataError, match=r"journal\.jsonl:2"):
        Journal(tmp_path / "journal.jsonl")


def test_a_disk_that_takes_a_line_in_parts_has_all_of_it(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, content: write(file, content[:7]))
    Journal(tmp_path / "journal.jsonl").append({"kind": "row", "AP": 0.5})
    assert Journal(tmp_path / "journal.jsonl").lines == [{"kind": "row", "AP": 0.5}]


def test_a_full_disk_ends_a_study_by_name_and_leaves_whole_lines(tmp_path, monkeypatch):
    journal, write = Journal(tmp_path / "journal.jsonl"), os.write
    journal.append({"kind": "row"})

    def full(file, content):
        if len(content) < 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, content[:10])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(TrainingError, match=r"journal\.jsonl: cannot be written: No space left"):
        journal.append({"kind": "row", "AP": 0.5})
    monkeypatch.undo()
    assert Journal(tmp_path / "journal.jsonl").lines == [{"kind": "row"}]
    journal.append({"kind": "row", "AP": 0.5})
    assert len(Journal(tmp_path / "journal.jsonl").lines) == 2


@pytest.mark.parametrize(
    "count", [pytest.param(3, id="cut"), pytest.param(100, id="full", marks=pytest.mark.full)]
)
def test_killed_at_any_moment_finished_rows_stay_and_the_rest_goes_on(tmp_path, count):
    out = tmp_path / "kills.json"
    script = PROGRAMS / "kill_studies.py"
    words = ["--count", str(count), "--seed", str(count), "--first", "1", "--out", str(out)]
    command = [sys.executable, str(script), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=child_environment())
    seen = json.loads(out.read_text())
    assert (seen["same"], seen["inside"]) == (count, (count + 1) // 4), done.stdout


# --- elsewhere ----------------------------------------------------------------------------------


def test_processes_of_their_own_give_the_same_rows(done, tmp_path):
    made = study(tmp_path, [], seeds=(0,))
    lines = made.run(LocalProcesses(workers=2)).csv.splitlines()
    assert lines == done.report().csv.splitlines()[:2]
    assert not list((tmp_path / "toy" / "jobs").glob("*.row.json")), "every answer was taken"


@pytest.mark.full
def test_jobs_of_submitit_give_the_same_rows(done, tmp_path):
    report = study(tmp_path, []).run(Submitit("local", {"timeout_min": 5}))
    assert report.csv.splitlines() == done.report().csv.splitlines()[:3]


def test_submitit_submits_the_worker_as_a_command(tmp_path, monkeypatch):
    commands = []

    class Done:
        def done(self):
            return True

        def exception(self):
            return None

    class Executor:
        def __init__(self, folder, cluster):
            assert cluster == "local"

        def update_parameters(self, **how):
            assert how == {"timeout_min": 5}

        def submit(self, call):
            commands.append(call.command)
            return Done()

    submitit = pytest.importorskip("submitit", reason="runs with the extra [cluster]")
    monkeypatch.setattr(submitit, "AutoExecutor", Executor)
    made = study(tmp_path, seeds=(0,))
    command = ("torchrun", "--nproc-per-node=2", "-m")
    jobs = made.jobs(16)
    found = list(
        Submitit("local", {"timeout_min": 5}, command)(
            jobs, tmp_path, tmp_path / "runs", lambda job: None
        )
    )
    assert [c[:4] for c in commands] == [[*command, "rtdetr_lab.ablations.worker"]] * 2
    assert all(o.error == "the process ended without a message" for o in found)


def test_without_submitit_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(MissingExtraError, match=r"rtdetr_lab\[cluster\]"):
        list(Submitit()([], tmp_path, tmp_path, lambda job: None))


def test_a_class_of_a_notebook_stays_in_its_process_and_the_error_says_so(tmp_path, monkeypatch):
    def own(cfg: RTDETRConfig) -> RTDETRConfig:
        """Only this process knows the class."""
        return replace(cfg, encoder=Explosive(cfg.encoder.dim, cfg.encoder.aifi, cfg.encoder.ccff))

    class Local(HybridEncoderConfig):
        """Defined inside a function."""

    job = study(tmp_path, [own], seeds=(0,)).jobs(16)[1]
    local = dataclass(frozen=True)(Local)(16)
    inside = replace(job, setup=replace(job.setup, cfg=replace(job.setup.cfg, encoder=local)))
    monkeypatch.delattr(sys.modules[Explosive.__module__], "__file__")
    for each, what in ((job, "is not defined in a file"), (inside, "is defined inside a function")):
        (outcome,) = LocalProcesses(1)([each], tmp_path, tmp_path / "runs", lambda job: None)
        assert outcome.row is None
        assert what in outcome.error
        assert "or use InProcess()" in outcome.error


def test_what_one_process_holds_no_second_one_starts(tmp_path):
    same = [Variant(name, lambda c: c, "the same") for name in ("one", "two")]
    jobs = study(tmp_path, same, seeds=(0, 1)).jobs(16)
    errands = [Errand.of(job, tmp_path, tmp_path / "runs") for job in jobs]
    processes = LocalProcesses(workers=4)
    assert processes._ready(errands, {}, 4) == [errands[0], errands[2]]
    assert processes._ready(errands, {"a process": (errands[0], None)}, 3) == [errands[2]]


# --- the report ---------------------------------------------------------------------------------


def test_the_report_is_made_from_the_journal_alone(done, tmp_path, monkeypatch):
    monkeypatch.setattr("rtdetr_lab.training.train", None)
    monkeypatch.setattr(RTDETRConfig, "build", None)
    written = done.report().save(tmp_path)
    names = {p.name for p in written}
    assert {"toy.md", "toy.csv", "toy.json", "toy_page.html"} <= names
    assert {"toy_bars.png", "toy_bars.svg", "toy_bars.pdf", "toy_curves.png", "toy.tex"} <= names
    lines = (tmp_path / "toy_pictures.csv").read_text().splitlines()
    assert lines[0] == "variant,view,seed,image_id,AP"
    assert len(lines) == 1 + 4 * 4, "four pictures of four runs"
    again = done.report().save(tmp_path / "again")
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in written]


def test_the_page_loads_nothing_from_elsewhere_and_says_what_was_run(done, tmp_path):
    done.report().save(tmp_path)
    page = (tmp_path / "toy_page.html").read_text()
    assert "http" not in page.replace('http-equiv="', "")
    assert page.count("data:image/png;base64,") == 2, "nothing was learned: no differences"
    for said in ("Attention on S5 is worth its time.", "encoder.aifi", "16 pictures", "torch"):
        assert said in page


def test_the_json_has_means_differences_and_verdicts(done):
    tree = json.loads(done.report().json)
    assert [row["name"] for row in tree["rows"]] == ["base", "no aifi"]
    assert tree["rows"][1]["verdict"].startswith("no verdict: nothing learned")
    assert tree["cost"]["runs"] == 4


def test_a_time_becomes_a_number_of_pictures_for_all(tmp_path):
    made = study(tmp_path, budget="60s")
    preview = made.preview()
    assert not (tmp_path / "toy").exists()
    timed = measured(made.prepared(1).setups, made.task)
    assert set(timed) == set(preview["s_per_picture"]) == {"base", "no aifi"}
    count = pictures_for("60s", {"base": 0.1, "no aifi": 0.06}, 2, 4, time.monotonic())
    assert count == 148, "0.8 · 60 s of steps, for 2 seeds of 2 variants, in batches of 4"


# --- the command line ---------------------------------------------------------------------------


def test_a_dry_run_says_what_would_be_done_and_keeps_nothing(tmp_path, capsys):
    words = ["--dry-run", "--only", "0 positives", "--pictures", "64", "--size", "64"]
    assert main(["ablate", "denoising", *words, "--out", str(tmp_path / "x")]) == 0
    said = capsys.readouterr().out
    assert "2 variants × 3 seeds × 64 pictures" in said
    assert "denoising: DenoisingConfig(…) → None" in said
    assert "1.64 M" in said
    assert "of training" in said
    assert not (tmp_path / "x").exists()


def test_a_study_or_variant_nobody_knows_is_one_line(tmp_path, capsys):
    assert main(["ablate", "colours"]) == 1
    assert main(["ablate", "encoder", "--only", "Z", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "is not a study" in said
    assert "['Z']" in said


def test_a_report_of_nothing_says_so(tmp_path, capsys):
    assert main(["ablate", "encoder", "--report-only", "--out", str(tmp_path)]) == 1
    assert "has no study" in capsys.readouterr().err


def test_a_study_with_two_equal_seeds_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="repeat"):
        Study(tiny(), [no_aifi], seeds=(1, 1), folder=tmp_path)


def test_every_run_of_a_study_is_logged_where_the_study_says(tmp_path, monkeypatch):
    """The names of the command line: --tensorboard, --wandb."""
    monkeypatch.setitem(sys.modules, "wandb", fake := StandInForWandb())
    study(tmp_path, seeds=(3,), loggers=("wandb",)).run()
    begun = [call for call in fake.calls if isinstance(call, dict)]
    assert [call["config"]["recipe"]["seed"] for call in begun] == [3, 3]
    assert len({call["dir"] for call in begun}) == 2
    assert fake.calls.count("finished") == 2
