"""Idle taps leave compile, export and ONNX alone; what they made cannot be recorded."""

import pytest
import torch
from torch import nn

from rtdetr_lab.errors import RecordError
from rtdetr_lab.taps import record, tap, watched


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x):
        if watched("doubled"):
            x = tap("doubled", 2 * x) / 2
        return tap("out", self.linear(x))


@pytest.fixture
def model():
    return Model().eval()


@pytest.fixture
def x():
    return torch.randn(2, 3)


def test_an_idle_tap_compiles_into_one_graph_and_stays_there(model, x):
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    plain = model(x)
    assert torch.equal(compiled(x), plain)
    with record(model, "out") as seen:
        model(x)
    assert torch.equal(seen["out"], plain)
    assert torch.equal(compiled(x), plain), "a record in between leaves the graph usable"


@pytest.mark.parametrize("strict", [True, False])
def test_an_idle_tap_leaves_no_trace_in_an_export(model, x, strict):
    program = torch.export.export(model, (x,), strict=strict)
    calls = [n.target for n in program.graph.nodes if n.op == "call_function"]
    assert calls == [torch.ops.aten.linear.default]
    assert torch.equal(program.module()(x), model(x))


def test_an_export_inside_a_record_is_the_same_export(model, x):
    with pytest.raises(RecordError), record(model, edit={"out": torch.zeros_like}):
        program = torch.export.export(model, (x,), strict=False)
    assert torch.equal(program.module()(x), model(x))


def test_an_idle_tap_leaves_no_trace_in_onnx(model, x):
    pytest.importorskip("onnxscript", reason="onnxscript is not installed; runs with [export]")
    program = torch.onnx.export(model, (x,), dynamo=True, verbose=False)
    assert {n.op_type for n in program.model.graph} == {"Gemm"}


@pytest.mark.parametrize(
    "make",
    [
        lambda m, x: torch.compile(m, backend="eager"),
        lambda m, x: m.compile(backend="eager") or m,
        lambda m, x: torch.jit.trace(m, x),
        lambda m, x: torch.export.export(m, (x,)).module(),
        lambda m, x: nn.Sequential(torch.compile(m, backend="eager")),
    ],
    ids=["wrapped", "in place", "traced", "exported", "inside another"],
)
@pytest.mark.filterwarnings("ignore")
def test_what_no_longer_runs_our_lines_cannot_be_recorded(model, x, make):
    made = make(model, x)
    with pytest.raises(RecordError, match="record the plain model"), record(made):
        made(x)


def test_a_compiled_call_of_a_recorded_model_is_not_silent(model, x):
    compiled = torch.compile(model, backend="eager")
    compiled(x)
    with pytest.raises(RecordError), record(model, "out"):
        compiled(x)
