"""`torch.export` carries the whole model, records and all, out of Python."""

import pytest
import torch
from small import SMALL_DFINE, SMALL_HGNET, pictures, shaken, small

from rtdetr_lab.deployment.form import deploy
from rtdetr_lab.deployment.form import same as same_sampler
from rtdetr_lab.deployment.onnx_file import Raw, program_of
from rtdetr_lab.deployment.planar import planar
from rtdetr_lab.rtdetr import rtdetr_nano
from rtdetr_lab.rtdetrv2 import discrete, with_points
from rtdetr_lab.structures import Prediction

SHORT = {"decoder.num_layers": 1}
VARIANTS = {
    "discrete": discrete(with_points(small(SHORT), (4, 2, 0))),
    "hgnet": small({**SHORT, "backbone": SMALL_HGNET}),
    "dfine": SMALL_DFINE,
    "no positions": small({**SHORT, "encoder.aifi.positions": None}),
}


def same(a, b):
    assert isinstance(a, Prediction), "records survive"
    assert torch.equal(a.proposals.index, b.proposals.index)
    return all(
        (x.boxes - y.boxes).abs().max() <= 1e-12 and (x.logits - y.logits).abs().max() <= 1e-12
        for x, y in zip(a.layers, b.layers, strict=True)
    )


@pytest.mark.parametrize(("cfg", "strict"), [(rtdetr_nano(), False), (small(SHORT), True)])
def test_the_model_is_exported_and_answers_alike(cfg, strict):
    model = shaken(cfg.build()).double().eval()
    images, other = pictures(1, 160, 128).double(), pictures(1, 160, 128).double()
    with torch.no_grad():
        program = torch.export.export(model, (images,), strict=strict)
        assert same(program.module()(images), model(images))
        assert same(program.module()(other), model(other)), "nothing of the picture is folded in"


@pytest.mark.parametrize("cfg", VARIANTS.values(), ids=VARIANTS)
def test_every_way_to_sample_and_to_place_is_exported(cfg):
    model, images = shaken(cfg.build()).double().eval(), pictures(1).double()
    with torch.no_grad():
        program = torch.export.export(model, (images,))
        assert same(program.module()(images), model(images))


def test_the_memory_of_an_exported_file_is_transposed_once():
    """A runtime takes longer to transpose 8400 tokens than to project them."""
    form = planar(deploy(shaken(small().build()).eval(), same_sampler))
    given, tokens = {"images": pictures(2)}, []
    program = program_of(Raw(form).eval(), given, (96, 64))
    count = sum(96 // stride * 64 // stride for stride in (8, 16, 32))
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if node.target is torch.ops.aten.transpose.int and count in value.shape:
            tokens.append(node)
    assert len(tokens) == 1
    images = pictures(3)
    with torch.no_grad():
        logits, boxes = program.module()(images)
        expected = form(images)
    assert (logits - expected.logits).abs().max() <= 1e-4
    assert (boxes - expected.boxes).abs().max() <= 1e-5


def test_an_export_holds_the_state_dict_and_remembers_nothing_else():
    """Anchors and positions are constants of the graph, and the cache outside stays usable."""
    model, images = shaken(small().build()).double().eval(), pictures(1).double()
    with torch.no_grad():
        program = torch.export.export(model, (images,))
        assert set(program.state_dict) == set(model.state_dict())
        assert model(images).boxes.shape == (1, 10, 4)
    sum(
        layer.boxes.sum() for layer in model.train()(images.expand(2, -1, -1, -1)).layers
    ).backward()
