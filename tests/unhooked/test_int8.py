"""Eight bits up to the top-k: the file stays a model, and finds what the float32 model finds."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rtdetr_lab.cli import main
from rtdetr_lab.commands.sets import world
from rtdetr_lab.data.shapes import TRAIN, ShapesDataset, draw
from rtdetr_lab.deployment.backends import OnnxRuntime, OpenVINO
from rtdetr_lab.deployment.engine import Engine
from rtdetr_lab.deployment.int8 import (
    MOST,
    Ran,
    _openvino_steps,
    after_selection,
    checked,
    onnx_int8,
    openvino_int8,
)
from rtdetr_lab.deployment.onnx_file import onnx_bytes
from rtdetr_lab.deployment.onnx_model import load_onnx
from rtdetr_lab.detector import Detector
from rtdetr_lab.errors import ConfigError, MissingExtraError
from rtdetr_lab.evaluation.evaluate import evaluate

onnx = pytest.importorskip("onnx", reason="runs with the extra [export]")
pytest.importorskip("onnxscript", reason="torch's exporter needs it; runs with the extra [export]")
pytest.importorskip("onnxruntime", reason="runs the file; comes with the extra [export]")
SIZE = (96, 64)


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (90 + i, 70, 3), dtype=np.uint8) for i in range(3)]


@pytest.fixture(scope="module")
def file(plain, pictures):
    return onnx_int8(plain, pictures, SIZE)


def test_a_step_is_kept_if_it_is_the_top_k_or_depends_on_it():
    steps = [
        ("MatMul", "scores", ["memory"], ["s"]),
        ("TopK", "top", ["s"], ["best", "index"]),
        ("MatMul", "values", ["memory"], ["v"]),
        ("GridSample", "read", ["v", "index"], ["r"]),
        ("Add", "sum", ["r", "v"], ["out"]),
    ]
    assert after_selection(steps) == ["top", "read", "sum"]
    with pytest.raises(ConfigError, match="int8: selects no queries; take an RT-DETR"):
        after_selection(steps[:1])


def test_eight_bits_end_at_the_top_k(plain, file):
    nodes = onnx.load_from_string(file).graph.node
    steps = [(n.op_type, n.name, n.input, n.output) for n in nodes]
    late = set(after_selection(steps))
    kinds = {kind for kind, name, *_ in steps if name in late}
    assert {"GridSample", "MatMul"} <= kinds
    assert not {"QuantizeLinear", "DequantizeLinear"} & kinds
    whole = {out for kind, *_, outs in steps if kind == "DequantizeLinear" for out in outs}
    convs = [given for kind, _, given, _ in steps if kind == "Conv"]
    assert len(convs) > 20
    assert all(set(given[:2]) <= whole for given in convs)
    assert len(file) < len(plain)


def test_the_file_still_says_what_it_is_and_answers_nearly_as_the_model(model, file, tmp_path):
    (tmp_path / "m.onnx").write_bytes(file)
    loaded = load_onnx(tmp_path / "m.onnx")
    assert replace(loaded.metadata, source=None) == model.metadata
    images = torch.rand(2, 3, *SIZE)
    with torch.no_grad():
        exact, found = model(images), loaded(images)
    best, now = (one.logits.amax((1, 2)) for one in (exact, found))
    assert 0 < (best - now).abs().max() < 0.25 * exact.logits.std()


def test_an_engine_calibrates_on_the_pictures_that_it_is_given(
    model, plain, file, pictures, monkeypatch
):
    monkeypatch.setattr("rtdetr_lab.deployment.backends.onnx_bytes", lambda *a, **k: plain)
    engine = Engine(model, device="cpu", backend=OnnxRuntime(calibrate=pictures))
    images = torch.rand(1, 3, *SIZE)
    same = Engine(Ran(model, OnnxRuntime().load(file)), device="cpu").answer(images)
    assert torch.equal(engine.answer(images), same)


def test_many_pictures_are_thinned_evenly_and_none_is_an_error(plain):
    assert list(checked(range(7))) == list(range(7))
    some = checked(range(700))
    assert len(some) <= MOST
    assert (some[0], some[-1]) == (0, 699)
    for quantise in (onnx_int8, checked):
        given = () if quantise is checked else (plain,)
        more = () if quantise is checked else (SIZE,)
        with pytest.raises(ConfigError, match="calibrate: holds no picture; give pictures like"):
            quantise(*given, [], *more)


@pytest.fixture
def words(model, plain, pictures, tmp_path, monkeypatch):
    """What is typed before the name of the file, to export the tiny model in eight bits."""
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    monkeypatch.setattr("rtdetr_lab.commands.export.model_of", lambda *a: model)
    monkeypatch.setattr("rtdetr_lab.deployment.onnx_file.onnx_bytes", lambda *a: plain)
    return ["export", "any", "--int8", "--calibrate", str(tmp_path), "--out"]


def test_eight_bits_end_at_the_top_k_in_openvino_too(words, tmp_path):
    pytest.importorskip("nncf", reason="runs with the extra [int8]")
    openvino = pytest.importorskip("openvino", reason="runs with the extra [export]")
    assert main([*words, str(tmp_path / "m.xml")]) == 0
    assert (tmp_path / "m.bin").is_file()
    steps = list(_openvino_steps(openvino.Core().read_model(tmp_path / "m.xml")))
    late = set(after_selection(steps))
    kinds = [kind for kind, name, *_ in steps if name in late]
    assert {"GridSample", "MatMul"} <= set(kinds)
    assert "FakeQuantize" not in kinds
    assert [kind for kind, *_ in steps].count("FakeQuantize") > 20


def test_pictures_are_a_list():
    for wrong in ("photos/", Path("photos"), iter([])):
        with pytest.raises(ConfigError, match=r"calibrate: is .*; give a list of pictures"):
            checked(wrong)


def test_a_backend_with_pictures_can_be_compared_and_hashed(pictures):
    given = OpenVINO(2, calibrate=pictures)
    assert given == OpenVINO(2, calibrate=pictures[::-1]) != OpenVINO(3, calibrate=pictures)
    assert len({given, OpenVINO(2), OnnxRuntime(2)}) == 2


def test_without_nncf_the_extra_is_named(plain, pictures, monkeypatch):
    pytest.importorskip("openvino", reason="runs with the extra [export]")
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(MissingExtraError, match=r"nncf.*pip install 'rtdetr_lab\[int8\]'"):
        openvino_int8(plain, pictures, SIZE)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--int8", "--out", "m.onnx"], "calibrate: holds no picture"),
        (["--int8", "--calibrate", "p", "--out", "m.pt2"], "int8: goes with .onnx or .xml"),
        (["--int8", "--taps", "*", "--out", "m.onnx"], "taps: is only for ONNX in float32"),
        (["--out", "m.xml"], "int8: goes with .onnx or .xml"),
        (["--calibrate", "p", "--out", "m.onnx"], "int8: goes with .onnx or .xml"),
        (["--data", "p", "--out", "m.onnx"], "int8: goes with .onnx or .xml"),
        (["--int8", "--calibrate", "p", "--limit", "3", "--out", "m.onnx"], "int8: goes with"),
    ],
)
def test_words_that_do_not_fit_together_are_refused(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "nano", *words]) == 1
    assert said in capsys.readouterr().err


def test_export_compares_detections_before_and_after(words, tmp_path, capsys):
    assert main([*words, str(tmp_path / "m.onnx")]) == 0
    assert "| int8 | 3 |" in capsys.readouterr().out
    assert Detector.from_pretrained(tmp_path / "m.onnx").classes.category_ids == (7, 2, 5)


@pytest.mark.full
@pytest.mark.parametrize("backend", [OnnxRuntime, OpenVINO])
def test_nano_loses_less_than_a_point(backend):
    from rtdetr_lab.checkpoints.load import load_pretrained

    if backend is OpenVINO:
        pytest.importorskip("nncf", reason="runs with the extra [int8]")
    nano, data = load_pretrained("nano"), ShapesDataset(world(256), count=40)
    given = [np.asarray(draw(world(256), TRAIN, i).image) for i in range(30)]
    made = backend.int8(onnx_bytes(nano, (256, 256)), given, (256, 256))
    after = evaluate(Ran(nano, backend().load(made)), data).AP
    assert after > evaluate(nano, data).AP - 0.01
