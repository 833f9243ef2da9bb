"""The plain ResNet: what differs from variant D, and what DC5 changes and keeps."""

import pytest
import torch
from torch import nn

from rtdetr_lab.backbone import BasicBlock, Bottleneck, ResNetDConfig
from rtdetr_lab.detr.resnet import ResNetConfig
from rtdetr_lab.errors import ConfigError

SMALL = {"depths": (1, 1, 2, 2), "widths": (8, 12, 16, 24), "stem_width": 4}


def live(block, **more):
    return ResNetConfig(**SMALL, block=block, norm=nn.BatchNorm2d, **more)


def conv_shapes(module):
    return [(tuple(m.weight.shape[2:]), m.stride) for m in module.modules() if hasattr(m, "stride")]


def test_the_stem_is_one_large_convolution_and_a_pooling():
    model = live(Bottleneck).build()
    assert conv_shapes(model.stem) == [((7, 7), (2, 2))]
    assert model.stem(torch.rand(1, 3, 33, 47)).shape == (1, 4, 17, 24)


def test_a_shrinking_shortcut_reads_one_cell_in_four():
    block = live(Bottleneck).build().eval().stages[1][0]
    x = torch.rand(1, 8, 6, 6)
    y = x.clone()
    y[..., 1::2, :] = y[..., :, 1::2] = 5.0
    assert torch.equal(block.shortcut(x), block.shortcut(y))
    d = ResNetDConfig(**SMALL, block=Bottleneck).build().eval().stages[1][0]
    assert not torch.equal(d.shortcut(x), d.shortcut(y))


@pytest.mark.parametrize(("block", "projects"), [(BasicBlock, False), (Bottleneck, True)])
def test_the_first_stage_projects_only_where_the_shape_changes(block, projects):
    cfg = ResNetConfig((2, 1), (8, 12), block, stem_width=4 if projects else 8, outputs=(1, 2))
    first, second = cfg.build().stages[0]
    assert isinstance(first.shortcut, nn.Identity) is (not projects)
    assert isinstance(second.shortcut, nn.Identity)


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
@pytest.mark.parametrize("size", [(64, 64), (75, 101), (33, 130)])
def test_every_other_cell_of_dc5_is_the_map_without_it(block, size):
    """The filters were spread just so: the coarse map is still there, between new cells."""
    plain = live(block, outputs=(3, 4)).build().double().eval()
    dc5 = live(block, outputs=(3, 4), dilated=True).build().double().eval()
    dc5.load_state_dict(plain.state_dict())
    images = torch.rand(2, 3, *size).double()
    (fine, last), (fine_dc5, last_dc5) = plain(images), dc5(images)
    assert torch.equal(fine, fine_dc5)
    assert last_dc5.shape[2:] == fine.shape[2:]
    torch.testing.assert_close(last_dc5[..., ::2, ::2], last, rtol=1e-12, atol=1e-12)
    assert (plain.strides, dc5.strides) == ((16, 32), (16, 16))


@pytest.mark.parametrize("count", range(5))
def test_frozen_stages_stay_and_the_others_learn(count):
    model = live(Bottleneck, frozen_stages=count).build()
    frozen = {n.split(".")[0:2][-1] for n, p in model.named_parameters() if not p.requires_grad}
    stages = {str(i) for i in range(count)}
    assert frozen == (stages | {"conv", "norm"} if count else set())
    loss = sum(m.sum() for m in model(torch.rand(2, 3, 64, 64)))
    if count < 4:
        loss.backward()
        assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="frozen_stages"):
        live(Bottleneck, frozen_stages=5)
    with pytest.raises(ConfigError, match="outputs"):
        live(Bottleneck, outputs=(5,))
