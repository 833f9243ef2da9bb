"""The documented classes become graphs: compiled, exported, traced, and ONNX with any batch."""

import pytest
import torch
from small_api import SMALL, SMALL_DETR

import rtdetr_lab as lab

KINDS = {
    "RTDetrForObjectDetection": (lab.RTDetrConfig, SMALL),
    "DetrForSegmentation": (lab.DetrConfig, SMALL_DETR),
    "RTDetrModel": (lab.RTDetrConfig, SMALL),
    "RTDetrV2ForObjectDetection": (lab.RTDetrV2Config, SMALL),
    "DetrForObjectDetection": (lab.DetrConfig, SMALL_DETR),
}
IN_THE_CUT = list(KINDS)[:2]
EVERYTHING = {"output_attentions": True, "output_hidden_states": True}
ASKED = [EVERYTHING, pytest.param({}, marks=pytest.mark.full)]


def marked(kinds):
    """Graphs take half a minute each: the other kinds are in the full matrix."""
    return [k if k in IN_THE_CUT else pytest.param(k, marks=pytest.mark.full) for k in kinds]


@pytest.fixture(scope="module", params=marked(KINDS))
def model(request):
    torch.manual_seed(0)
    config, small = KINDS[request.param]
    return getattr(lab, request.param)(config(**small)).eval()


@pytest.fixture
def images():
    return torch.rand(2, 3, 64, 96)


def same(found, expected):
    """Equal trees of tensors, up to rounding."""
    found, expected = (torch.utils._pytree.tree_leaves(tree) for tree in (found, expected))
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("asked", ASKED, ids=["everything", "plain"])
@torch.no_grad()
def test_a_compiled_class_is_one_graph_and_returns_its_output(model, images, asked):
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    found, expected = compiled(images, **asked), model(images, **asked)
    assert type(found) is type(expected)
    assert list(found) == list(expected)
    same(dict(found), dict(expected))


@pytest.mark.parametrize("strict", [False, pytest.param(True, marks=pytest.mark.full)])
@pytest.mark.parametrize("asked", ASKED, ids=["everything", "plain"])
@torch.no_grad()
def test_an_exported_class_returns_its_output(model, images, asked, strict):
    graph = torch.export.export(model, (images,), asked, strict=strict)
    found, expected = graph.module()(images, **asked), model(images, **asked)
    assert list(found) == list(expected)
    same(dict(found), dict(expected))


@torch.no_grad()
def test_a_traced_class_returns_its_tuple(model, images):
    model.config.return_dict = False
    try:
        traced = torch.jit.trace(model, images, check_trace=False)
        same(traced(images + 0.1), [v for v in model(images + 0.1) if v is not None])
    finally:
        model.config.return_dict = True


@torch.no_grad()
def test_an_onnx_file_takes_any_number_of_pictures(model, images, tmp_path):
    reason = "onnx is not installed; runs with the extra [export]"
    onnxruntime = pytest.importorskip("onnxruntime", reason=reason)
    pytest.importorskip("onnxscript", reason=reason)
    batch = torch.export.Dim("batch", min=1, max=8)
    shapes = {"pixel_values": {0: batch}}
    torch.onnx.export(
        model, (images,), tmp_path / "model.onnx", dynamo=True, dynamic_shapes=shapes, verbose=False
    )
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    name = session.get_inputs()[0].name
    for count in (1, 3):
        more = torch.rand(count, 3, 64, 96)
        found = session.run(None, {name: more.numpy()})
        shapes = [one.shape for one in found]
        expected = [v for v in torch.utils._pytree.tree_leaves(model(more)) if v is not None]
        assert shapes == [tuple(one.shape) for one in expected]
        torch.testing.assert_close(torch.from_numpy(found[0]), expected[0], rtol=1e-3, atol=1e-3)
