"""Pretrained backbone weights alone: every way such files are named, and nothing else touched."""

import pytest
import torch

from rtdetr_lab.checkpoints.backbone import load_backbone
from rtdetr_lab.checkpoints.files import digest
from rtdetr_lab.checkpoints.rename import export_tensors
from rtdetr_lab.checkpoints.tables import AUTHORS, TRANSFORMERS
from rtdetr_lab.errors import CheckpointError
from rtdetr_lab.rtdetr import rtdetr_nano

CFG = rtdetr_nano(3)


@pytest.fixture(scope="module")
def pretrained():
    torch.manual_seed(1)
    return CFG.build()


def only_backbone(tensors, prefix):
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def theirs(model, table):
    return export_tensors(table, model.state_dict(), "")


FILES = {
    "our detector": lambda m: m.state_dict(),
    "our backbone": lambda m: m.backbone.state_dict(),
    "transformers' detector": lambda m: theirs(m, TRANSFORMERS),
    "transformers' backbone": lambda m: only_backbone(
        theirs(m, TRANSFORMERS), "model.backbone.model."
    ),
    "the authors' detector": lambda m: {"model": theirs(m, AUTHORS)},
    "the authors' backbone": lambda m: only_backbone(theirs(m, AUTHORS), "backbone."),
    "an ImageNet classifier": lambda m: (
        only_backbone(theirs(m, AUTHORS), "backbone.") | {"fc.weight": torch.ones(1000, 128)}
    ),
    "without counters": lambda m: {
        n: t for n, t in m.state_dict().items() if not n.endswith("num_batches_tracked")
    },
}


@pytest.mark.parametrize("kind", FILES)
def test_the_backbone_is_filled_and_nothing_else(kind, pretrained, tmp_path):
    torch.save(FILES[kind](pretrained), tmp_path / "weights.pth")
    model = CFG.build()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    assert load_backbone(model, tmp_path / "weights.pth") is model
    assert digest(model.backbone.state_dict()) == digest(pretrained.backbone.state_dict())
    for name, tensor in model.state_dict().items():
        if not name.startswith("backbone."):
            assert torch.equal(tensor, before[name])


def test_a_backbone_may_be_given_itself(pretrained, tmp_path):
    torch.save(pretrained.state_dict(), tmp_path / "weights.pth")
    backbone = CFG.backbone.build()
    load_backbone(backbone, tmp_path / "weights.pth")
    assert digest(backbone.state_dict()) == digest(pretrained.backbone.state_dict())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("stages.0.0.conv1.conv.weight"), "stages.0.0.conv1.conv.weight"),
        (lambda t: t.update({"stages.9.0.conv1.conv.weight": torch.ones(1)}), "unexpectedly"),
        (lambda t: t.update({"stem.0.conv.weight": torch.ones(1)}), "has shape"),
        (lambda t: t["stem.0.norm.weight"].fill_(torch.inf), "not finite"),
        (lambda t: (t.clear(), t.update({"layer1.0.weight": torch.ones(1)})), "no ResNet-D or H"),
    ],
)
def test_a_backbone_that_does_not_fit_is_refused(change, says, pretrained, tmp_path):
    tensors = {n: t.clone() for n, t in pretrained.backbone.state_dict().items()}
    change(tensors)
    torch.save(tensors, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=says):
        load_backbone(CFG.build(), tmp_path / "weights.pth")
