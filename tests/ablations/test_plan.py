"""What fails while a study is planned has a name and a line, and stops nothing else."""

from dataclasses import dataclass, replace

import pytest
from ablation_toy import broken, no_aifi, study, tiny

from rtdetr_lab.ablations import Setup, sweep
from rtdetr_lab.ablations.decoder import EveryDepth
from rtdetr_lab.ablations.denoising import MatchingStability
from rtdetr_lab.config import replace_at
from rtdetr_lab.errors import ConfigError
from rtdetr_lab.hybrid_encoder import HybridEncoderConfig
from rtdetr_lab.rtdetr import RTDETRConfig
from rtdetr_lab.training import TrainConfig


def no_return(cfg: RTDETRConfig) -> RTDETRConfig:
    """Forgets to return what it made."""
    replace_at(cfg, "encoder.aifi", None)


def text_for_a_number(cfg: RTDETRConfig) -> RTDETRConfig:
    """A number as text, as it comes out of a file."""
    return replace(cfg, encoder=Repeated(cfg.encoder.dim, cfg.encoder.aifi, times="2"))


@dataclass(frozen=True)
class Repeated(HybridEncoderConfig):
    """Has a number of its own."""

    times: int = 1


def raises(cfg: RTDETRConfig) -> RTDETRConfig:
    """Fails by itself."""
    raise KeyError("a planted mistake")


def test_what_fails_while_the_study_is_planned_is_in_the_journal_and_the_others_go_on(tmp_path):
    failing = [broken, no_return, text_for_a_number, raises]
    report = study(tmp_path, [*failing, no_aifi], seeds=(3,)).run()
    found = {e.name: e for e in report.entries}
    said = {name: [f["traceback"] for f in e.failures] for name, e in found.items()}
    assert len(found["base"].rows) == len(found["no aifi"].rows) == 1
    assert "15" in said["broken"][0]
    assert "no return: returns nothing; return the changed cfg" in said["no return"][0]
    where = "text for a number.cfg.encoder.times: is '2'; give int"
    assert where in said["text for a number"][0]
    assert "a planted mistake" in said["raises"][0]
    assert report.markdown.count(", before its first run:") == 4
    before = (tmp_path / "toy" / "journal.jsonl").read_bytes()
    study(tmp_path, [*failing, no_aifi], seeds=(3,)).run()
    assert (tmp_path / "toy" / "journal.jsonl").read_bytes() == before


def test_a_sweep_is_a_study_with_a_variant_for_every_combination(tmp_path):
    rates = sweep(
        "A higher rate learns faster.", recipe__lr=(1e-3, 2e-4), cfg__decoder__num_layers=(1, 2)
    )
    base = study(tmp_path).base
    made = study(tmp_path, rates, base=replace(base, recipe=replace(base.recipe, lr=2e-4)))
    plan = made.preview()
    assert made.reference == "lr 0.0002, num_layers 1"
    changes = {v["name"]: v["differences"] for v in plan["variants"]}
    assert changes["lr 0.0002, num_layers 1"] == []
    assert changes["lr 0.0002, num_layers 2"] == [["decoder.num_layers", "1", "2"]]
    assert [path for path, *_ in changes["lr 0.001, num_layers 2"]] == [
        "decoder.num_layers",
        "recipe.lr",
    ]
    assert len(changes) == 4
    assert {v["hypothesis"] for v in plan["variants"]} == {"A higher rate learns faster."}


def test_a_sweep_of_a_setting_that_does_not_exist_is_named(tmp_path):
    plan = study(tmp_path, sweep("None.", recipe__rate=(0.1,))).preview()
    assert "recipe.rate: TrainConfig has no 'rate'" in plan["failures"]["rate 0.1"]


def test_a_reference_that_cannot_be_built_ends_the_study_by_name(tmp_path):
    base = Setup(replace_at(tiny(), "encoder.dim", 15), TrainConfig(batch_size=4))
    with pytest.raises(ConfigError, match=r"base: is the reference, and raises .*15"):
        replace(study(tmp_path), base=base).run()


def test_what_a_study_is_given_for_all_runs_is_in_every_job(tmp_path):
    given = {"views": EveryDepth(), "measures": (MatchingStability(),), "device": "cuda:1"}
    made = study(tmp_path, **given)
    for job in made.jobs(8):
        assert {name: getattr(job.task, name) for name in given} == given
        assert (job.task.train, job.task.val) == made.data


def test_a_study_names_a_logger_that_is_none_before_anything_runs(tmp_path):
    with pytest.raises(
        ConfigError, match="loggers: 'tensorbord' is none; use tensorboard or wandb"
    ):
        study(tmp_path, loggers=("tensorbord",))
