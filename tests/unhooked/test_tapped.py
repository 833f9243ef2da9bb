"""A graph with taps returns what `record` keeps, and a switch of it is the same edit in Python.

Unhooked, as everything that becomes a graph.
"""

import json

import numpy as np
import pytest
import torch
from small import shaken, small

from rtdetr_lab.cli import main
from rtdetr_lab.commands.explore import LIVE_TAPS
from rtdetr_lab.data.shapes import DEFAULT, VAL, draw
from rtdetr_lab.deployment.tapped import at_rest, onnx_with_taps
from rtdetr_lab.detector import Detector
from rtdetr_lab.errors import ConfigError
from rtdetr_lab.taps import record

pytest.importorskip("onnxscript", reason="torch's exporter needs it; runs with the extra [export]")
runtime = pytest.importorskip("onnxruntime", reason="runs with the extra [export]")


def session(file):
    return runtime.InferenceSession(file, providers=["CPUExecutionProvider"])


def answers(run, **given):
    """Outputs by name."""
    names = [output.name for output in run.get_outputs()]
    return {
        name: torch.from_numpy(value)
        for name, value in zip(names, run.run(None, given), strict=True)
    }


@pytest.fixture(scope="module")
def detector():
    return Detector.from_pretrained("nano", device="cpu")


@pytest.fixture(scope="module")
def image(detector):
    return detector.preprocess(draw(DEFAULT, VAL, 1).image)[None]


@pytest.fixture(scope="module")
def graph(detector):
    return session(onnx_with_taps(detector.model, LIVE_TAPS, (256, 256), switches=True))


@pytest.fixture(scope="module")
def run(detector, image, graph):
    """`run(name=value)` sets switches; returns outputs by name."""
    rest = {name: value.numpy() for name, value in at_rest(detector.model, 1344).items()}

    def answer(**switched):
        given = {name: np.asarray(value, np.float32) for name, value in switched.items()}
        return answers(graph, images=image.numpy(), **{**rest, **given})

    return answer


def seen_in_python(model, image, keep="*", edit=None):
    with torch.no_grad(), record(model, keep, edit) as seen:
        found = model(image)
    return {"logits": found.logits, "boxes": found.boxes, **seen}


def same(found, wanted, names=("logits", "boxes")):
    for name in names:
        torch.testing.assert_close(found[name], wanted[name], atol=1e-3, rtol=0, msg=name)


def test_at_rest_every_output_is_what_a_record_keeps(run, detector, image, graph):
    found, wanted = run(), seen_in_python(detector.model, image)
    told = json.loads(graph.get_modelmeta().custom_metadata_map["taps"])
    assert ["logits", "boxes", *told] == list(found)
    assert {"selection.index", "decoder.layers.2.cross_attn.locations"} <= set(told)
    same(found, wanted, found)


def test_fewer_queries_are_a_model_with_fewer_queries(run, detector, image):
    found = run(queries=[20])
    detector.model.num_queries = 20
    wanted = seen_in_python(detector.model, image)
    detector.model.num_queries = 100
    assert len(wanted["boxes"][0]) == 20
    same({name: found[name][:, :20] for name in ("logits", "boxes")}, wanted)
    assert (run()["logits"][:, :20] - wanted["logits"]).abs().max() > 0.05, "100 queries differ"


def test_the_logits_of_a_layer_are_those_of_a_model_trimmed_to_it(run, detector, image):
    found = run()
    wanted = seen_in_python(detector.model.trim(2), image)
    same({"logits": found["decoder.logits.1"], "boxes": found["decoder.boxes.1"]}, wanted)


def no_middle_level(weights):
    return weights * torch.tensor([1.0] * 4 + [0.0] * 4 + [1.0] * 4)


def only_itself(weights):
    return torch.eye(100).expand_as(weights).contiguous()


ORDER = torch.rand(1344, generator=torch.Generator().manual_seed(0)) * 1000


@pytest.mark.parametrize(
    ("switched", "edit"),
    [
        ({"levels": [1, 0, 1]}, {"decoder.layers.*.cross_attn.weights": no_middle_level}),
        ({"self_attention": [0]}, {"decoder.layers.*.self_attn.weights": only_itself}),
        ({"added": ORDER}, {"selection.score": lambda score: score + ORDER}),
    ],
    ids=["a level without weight", "self-attention cut", "random selection"],
)
def test_a_switch_is_the_same_edit_in_python(run, detector, image, switched, edit):
    found, wanted = run(**switched), seen_in_python(detector.model, image, edit=edit)
    same(found, wanted)
    assert (run()["boxes"] - found["boxes"]).abs().max() > 0.01, "it changes something"


def test_positions_off_is_a_position_network_that_says_zero(run, image):
    model = Detector.from_pretrained("nano", device="cpu").model
    last = model.decoder.query_position.layers[-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    found = run(positions=[0])
    same(found, seen_in_python(model, image))
    assert (run()["boxes"] - found["boxes"]).abs().max() > 0.01, "it changes something"


@pytest.mark.full
def test_the_command_writes_chosen_taps_for_any_batch(tmp_path, capsys):
    file = tmp_path / "nano.onnx"
    assert main(["export", "nano", "--out", str(file), "--taps", "decoder.boxes.*"]) == 0
    assert "decoder.boxes.0, decoder.boxes.1, decoder.boxes.2" in capsys.readouterr().out
    images = torch.rand(3, 3, 256, 256)
    model = Detector.from_pretrained("nano", device="cpu").model
    found = answers(session(file), images=images.numpy())
    same(found, seen_in_python(model, images), [f"decoder.boxes.{i}" for i in range(3)])


def test_what_has_no_such_tap_or_no_switch_is_refused(capsys, tmp_path):
    from small_detr import DETECTOR

    with pytest.raises(ConfigError, match=r"'decoder\.bboxes' matches no tap"):
        onnx_with_taps(shaken(small().build()), "decoder.bboxes", (96, 64))
    with pytest.raises(ConfigError, match="has no selection to edit"):
        onnx_with_taps(DETECTOR.build(), "*", (96, 64), switches=True)
    out = str(tmp_path / "nano.pt2")
    assert main(["export", "nano", "--out", out, "--taps", "*"]) == 1
    assert "taps: is only for ONNX" in capsys.readouterr().err
