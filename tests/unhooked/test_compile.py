"""The whole model compiles into one graph, and taps leave no trace in it."""

import shutil

import pytest
import torch
from small import pictures, shaken, small, targets

from rtdetr_lab.rtdetr import rtdetr_nano
from rtdetr_lab.taps import record

needs_a_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")),
    reason="inductor needs a C++ compiler; runs where g++ or clang++ is installed",
)
SHORT = {"decoder.num_layers": 1}
BACKENDS = ["aot_eager", pytest.param("inductor", marks=[pytest.mark.full, needs_a_compiler])]


@pytest.fixture(autouse=True)
def _fresh():
    yield
    torch._dynamo.reset()


def close(a, b, tolerance):
    pairs = zip(a.layers, b.layers, strict=True)
    return all(
        (x.boxes - y.boxes).abs().max() <= tolerance
        and (x.logits - y.logits).abs().max() <= tolerance
        for x, y in pairs
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_nano_compiles_into_one_graph(backend):
    model, images = shaken(rtdetr_nano().build()).eval(), pictures(1, 160, 128)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    with torch.no_grad():
        assert close(compiled(images), model(images), 1e-3 if backend == "inductor" else 1e-5)


def test_a_compiled_model_follows_the_picture_size_and_a_record_in_between_sees_the_plain_one():
    model = shaken(small(SHORT).build()).double().eval()
    compiled = torch.compile(model, fullgraph=True, backend="eager", dynamic=False)
    with torch.no_grad():
        for size in [(96, 64), (64, 96), (96, 64)]:
            images = pictures(1, *size).double()
            with record(model, "decoder.boxes.*") as seen:
                plain = model(images)
            assert torch.equal(seen["decoder.boxes.0"], plain.boxes)
            assert close(compiled(images), plain, 1e-12)


def test_a_compiled_model_trains_on():
    """Denoising draws and counts objects, so the graph may break there; the answer may not."""
    model = shaken(small(SHORT).build()).double().train()
    compiled = torch.compile(model, backend="eager")
    images, found = pictures().double(), targets(3, 1)
    outs = []
    for run in (model, compiled):
        torch.manual_seed(2)
        outs.append(run(images, found))
    assert close(*outs, 1e-12)
    sum(model.cfg.criterion.build()(outs[1], found).values()).backward()
    assert all(p.grad is not None for p in model.parameters())
