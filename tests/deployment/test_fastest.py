"""The fastest backend is measured, and what it costs in detections is said."""

import numpy as np
import pytest
import torch
from small import shaken, small

from rtdetr_lab.deployment import fastest as choosing
from rtdetr_lab.deployment.backends import OnnxRuntime, PyTorch
from rtdetr_lab.deployment.bench.timing import Times
from rtdetr_lab.deployment.engine import Engine
from rtdetr_lab.deployment.fastest import Choice, fastest, offered
from rtdetr_lab.deployment.form import Rewrites
from rtdetr_lab.deployment.precision import drift, drift_of, drift_table
from rtdetr_lab.detections import Classes, Detections
from rtdetr_lab.errors import ConfigError, MissingExtraError
from rtdetr_lab.images.decode import read_photo
from rtdetr_lab.images.postprocess import Found

SIZE = (96, 64)
TINY = {"encoder.aifi": None, "decoder.num_layers": 1, "selection.num_queries": 5}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return shaken(small(TINY).build()).eval()


def test_what_is_offered_depends_on_device_and_precision():
    names = [c.name for c in offered("cpu")]
    assert names == [
        "PyTorch fp32",
        "onnxruntime fp32",
        "OpenVINO fp32",
        "PyTorch bf16",
        "OpenVINO bf16",
    ]
    assert [c.name for c in offered("cpu", [torch.float64])] == ["PyTorch float64"]
    on_gpu = offered("cuda", [torch.float16])
    assert [c.name for c in on_gpu] == ["PyTorch fp16, graph", "PyTorch fp16, compiled, graph"]
    assert all(c.backend.graphed for c in on_gpu)


def test_the_least_median_wins_and_the_table_says_so(model, monkeypatch):
    taken = {"PyTorch fp32": (3.0, 1.0, 9.0), "PyTorch bf16": (2.0, 2.0, 2.0)}
    asked = []

    def rounds_of(subjects, rounds, *, clock):
        asked.append((list(subjects), rounds))
        for run in subjects.values():
            assert [len(rows) for rows in run()] == [2], "a call of the largest batch, per size"
        return {name: Times(taken[name]) for name in subjects}

    monkeypatch.setattr(choosing, "interleaved", rounds_of)
    choices = [c for c in offered("cpu") if c.name in taken]
    found = fastest(model, SIZE, (1, 2), device="cpu", rounds=3, choices=choices, threshold=0.1)
    assert asked == [(["PyTorch fp32", "PyTorch bf16"], 3)]
    assert found.name == "PyTorch bf16"
    assert found.engine.buckets[SIZE].plan.dtype == torch.bfloat16
    assert found.engine.threshold == 0.1
    assert str(found).splitlines()[2:] == [
        "| **PyTorch bf16** | 2000.00 | 0% | 1.00 |",
        "| PyTorch fp32 | 3000.00 | 67% | 1.50 |",
    ]


def test_a_runtime_that_is_missing_is_named_and_the_others_run(model):
    class Missing:
        def build(self, model, plan):
            raise MissingExtraError("warp", "is not installed", "buy one")

    choices = [Choice("warp", Missing(), torch.float32), *offered("cpu", [torch.float32])[:1]]
    found = fastest(model, SIZE, device="cpu", rounds=1, choices=choices)
    assert found.name == "PyTorch fp32"
    assert "| warp | is not installed |  |  |" in str(found)
    assert found.engine(np.zeros((50, 40, 3), np.uint8), threshold=0.0).scores.numel() == 5
    with pytest.raises(ConfigError, match="not installed: warp"):
        fastest(model, SIZE, device="cpu", choices=choices[:1])


TAKEN = {
    "PyTorch fp32": 1.0,
    "onnxruntime fp32": 1.1,
    "OpenVINO fp32": 1.2,
    "PyTorch fp32 without read_first": 0.9,
}


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """What was built and timed, with these times and no work; notes lie in `tmp_path`."""
    built, timed = [], []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    class Unbuilt(Engine):
        def __init__(self, *given, backend, **more):
            self.backend = backend
            built.append(backend)

    monkeypatch.setattr(choosing, "Engine", Unbuilt)
    monkeypatch.setattr(choosing, "_call", lambda engine: None)

    def rounds_of(subjects, rounds, *, clock):
        timed.append(list(subjects))
        return {name: Times((TAKEN.get(name, 2.0),) * rounds) for name in subjects}

    monkeypatch.setattr(choosing, "interleaved", rounds_of)
    return built, timed


def test_what_is_near_the_best_is_tried_in_other_forms(model, measured):
    built, timed = measured
    found = fastest(model, SIZE, device="cpu", dtypes=[torch.float32])
    first, second = timed
    assert first == ["PyTorch fp32", "onnxruntime fp32", "OpenVINO fp32"]
    assert second == [
        "PyTorch fp32",
        "PyTorch fp32 without split_fusion",
        "PyTorch fp32 without read_first",
        "onnxruntime fp32",
        "onnxruntime fp32 without split_fusion",
        "onnxruntime fp32 without planar",
    ]
    assert len(built) == 7, "each is built once"
    assert found.name == "PyTorch fp32 without read_first"
    assert found.engine.backend == PyTorch(rewrites=Rewrites(read_first=False))
    assert found.measured is None
    assert len(str(found).splitlines()) == 9


def test_the_answer_is_kept_for_this_machine_and_this_call(model, measured, tmp_path):
    built, _ = measured
    call = {"size": SIZE, "device": "cpu", "dtypes": [torch.float32]}
    before = fastest(model, **call)
    built.clear()
    kept = fastest(model, **call)
    assert built == [PyTorch(rewrites=Rewrites(read_first=False))], "the winner, and nothing else"
    assert (kept.name, kept.times) == (before.name, before.times)
    assert str(kept).endswith(f"Measured {kept.measured}.")
    fastest(model, **call, again=True)
    assert len(built) == 1 + 7
    threads = torch.get_num_threads()
    others = [{"batch": 2}, {"size": (64, 96)}, {"dtypes": [torch.float32, torch.bfloat16]}]
    for other in others:
        built.clear()
        fastest(model, **call | other)
        assert len(built) > 1, other
    try:
        torch.set_num_threads(threads + 1)
        built.clear()
        fastest(model, **call)
        assert len(built) > 1
    finally:
        torch.set_num_threads(threads)
    other = small(TINY | {"selection.num_queries": 6}).build().eval()
    built.clear()
    fastest(other, **call)
    assert len(built) > 1
    assert len(list((tmp_path / "rtdetr_lab" / "fastest").iterdir())) == 6


@pytest.mark.parametrize("text", ["", "[]", '{"name": "PyTorch fp32"}', '{"seconds": []}', "\0"])
def test_a_damaged_note_is_measured_again(model, measured, tmp_path, text):
    built, _ = measured
    fastest(model, SIZE, device="cpu", dtypes=[torch.float32])
    (note,) = (tmp_path / "rtdetr_lab" / "fastest").iterdir()
    note.write_text(text)
    built.clear()
    fastest(model, SIZE, device="cpu", dtypes=[torch.float32])
    assert len(built) == 7


def test_where_nothing_can_be_kept_it_is_measured(model, measured, tmp_path):
    (tmp_path / "rtdetr_lab").write_text("a file")
    for _ in range(2):
        measured[0].clear()
        fastest(model, SIZE, device="cpu", dtypes=[torch.float32])
        assert len(measured[0]) == 7


@pytest.mark.full
def test_all_that_are_installed_run_and_the_winner_answers_as_the_model(model):
    pytest.importorskip("openvino", reason="runs with the extra [export]")
    call = {"rounds": 2, "dtypes": [torch.float32], "again": True}
    found = fastest(model, SIZE, device="cpu", **call)
    assert set(found.times) >= {"PyTorch fp32", "onnxruntime fp32", "OpenVINO fp32"}
    images = torch.rand(1, 3, *SIZE)
    plain = Engine(model, SIZE, device="cpu", backend=PyTorch()).answer(images)
    assert (found.engine.answer(images) - plain).abs().max() <= 1e-2
    assert isinstance(offered("cpu")[1].backend, OnnxRuntime)


def answer(*rows):
    """Detections of (left, top, right, bottom, score, label)."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    found = Found(table[:, :4], table[:, 4], table[:, 5].long(), torch.arange(len(table)))
    photo = read_photo(np.zeros((100, 100, 3), np.uint8))
    return Detections.of(found, photo, Classes.unnamed(3))


BOX = (10, 10, 30, 30)


def test_a_pair_is_matched_by_box_and_its_differences_are_measured():
    exact = answer((*BOX, 0.9, 1), (60, 60, 80, 80, 0.8, 2), (*BOX, 0.2, 0))
    other = answer((60, 60, 80, 83, 0.7, 2), (10.5, 10, 30, 30, 0.85, 0), (*BOX, 0.1, 1))
    found = drift_of([(exact, other)], 0.5)
    assert (found.kept, found.sunk, found.risen, found.gone, found.new) == (2, 0, 0, 0, 0)
    assert found.relabelled == 1
    assert found.shifts.tolist() == pytest.approx([0.5, 3.0])
    assert found.changes.tolist() == pytest.approx([0.05, 0.1])
    head, line, row = drift_table({"x": found}).splitlines()
    assert row == "| x | 1 | 2 | 2 | 0 / 0 | 0 / 0 | 1 | 0.50 / 3.00 | 0.0500 / 0.1000 |"
    assert head.count("|") == line.count("|") == row.count("|")


def test_crossing_the_threshold_is_not_coming_and_going():
    exact = answer((*BOX, 0.51, 1), (60, 60, 80, 80, 0.4, 2), (0, 80, 9, 99, 0.9, 0))
    other = answer((*BOX, 0.49, 1), (60, 60, 80, 80, 0.6, 2), (80, 0, 99, 9, 0.9, 0))
    found = drift_of([(exact, other), (answer(), answer())], 0.5)
    assert (found.sunk, found.risen, found.gone, found.new, found.kept) == (1, 1, 1, 1, 0)
    assert found.exact == 2
    assert found.pictures == 2


def test_a_row_without_a_partner_leaves_that_of_another_alone():
    """The left box is nearer to the one in the middle in score and label, but overlaps too little:
    the right one has it."""
    right, left = (15, 10, 35, 30, 0.9, 0), (2, 10, 22, 30, 0.6, 1)
    middle, distant = (*BOX, 0.6, 1), (70, 70, 90, 90, 0.9, 0)
    found = drift_of([(answer(right, left), answer(distant, middle))], 0.5)
    assert (found.kept, found.gone, found.new) == (1, 1, 1)


def test_two_labels_for_one_box_find_each_their_own():
    both = answer((*BOX, 0.8, 1), (*BOX, 0.7, 2))
    found = drift_of([(both, answer((*BOX, 0.8, 2), (*BOX, 0.7, 1)))], 0.5)
    assert found.relabelled == 0
    assert drift_of([(answer(), answer())], 0.5).cells[-1] == "0.0000 / 0.0000"


def test_double_precision_finds_what_single_does_and_bfloat16_nearly(model):
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (80, 60, 3), dtype=np.uint8) for _ in range(3)]
    threshold = Engine(model, SIZE, device="cpu")(frames[0], 0.0).scores.median().item()
    built = []

    class Watched(PyTorch):
        def build(self, model, plan):
            built.append(plan.dtype)
            return super().build(model, plan)

    how = {"backend": Watched(), "threshold": threshold}
    same = drift(model, frames, SIZE, torch.float64, "cpu", **how)
    assert built == [torch.float64], "the exact engine is always torch"
    assert same.exact > 0
    assert same.kept == same.exact
    assert same.shifts.max() < 1e-2
    rounded = drift(model, frames, SIZE, torch.bfloat16, "cpu", threshold=threshold)
    assert same.changes.max() < rounded.changes.max() < 0.1
