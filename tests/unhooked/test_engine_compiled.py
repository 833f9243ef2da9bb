"""An engine on compiled code answers as one without: two sizes, two batches."""

import shutil

import pytest
import torch
from small import shaken, small

from rtdetr_lab.deployment.backends import PyTorch
from rtdetr_lab.deployment.engine import Engine

SIZES = [(96, 64), (64, 96)]
TINY = {"encoder.aifi": None, "decoder.num_layers": 1, "selection.num_queries": 5}
needs_a_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")),
    reason="inductor needs a C++ compiler; runs where g++ or clang++ is installed",
)


@pytest.fixture(autouse=True)
def _fresh():
    yield
    torch._dynamo.reset()


def answers(engine):
    generator = torch.Generator().manual_seed(1)
    given = [torch.rand(n, 3, *size, generator=generator) for size in SIZES for n in (1, 2)]
    return [engine.answer(images) for images in given]


def check(model, batches):
    engines = [
        Engine(model, SIZES, batches, device="cpu", backend=PyTorch(compiled=compiled))
        for compiled in (True, False)
    ]
    for a, b in zip(*map(answers, engines), strict=True):
        assert (a[..., 5:] == b[..., 5:]).all(), "labels and queries"
        assert (a - b).abs().max() <= 1e-2, "hundredths of a pixel"


def test_what_is_compiled_is_one_graph_per_bucket(monkeypatch):
    """All but inductor's own work, which takes minutes."""
    asked = []

    def eager_of(answer, **given):
        asked.append(given)
        return real(answer, fullgraph=given["fullgraph"], dynamic=False, backend="eager")

    real = torch.compile
    monkeypatch.setattr(torch, "compile", eager_of)
    check(shaken(small(TINY).build()).eval(), (1, 2))
    assert [given["fullgraph"] for given in asked] == [True, True], "one per size"
    assert asked[0]["options"] == {"freezing": True}


@pytest.mark.full
@needs_a_compiler
def test_inductor_answers_as_the_plain_engine():
    check(shaken(small(TINY).build()).eval(), 1)  # a batch of two goes through in two calls
