"""From pixels to maps: any size, any stages, frozen or live, and the two repairs of variant D."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rtdetr_lab.backbone import BasicBlock, Bottleneck, Residual, ResNetDConfig, Shortcut
from rtdetr_lab.errors import ConfigError
from rtdetr_lab.layers import ConvNormAct, FrozenBatchNorm2d, identity
from rtdetr_lab.rtdetr import rtdetr_r18, rtdetr_r34, rtdetr_r50, rtdetr_r101
from rtdetr_lab.taps import record

TINY = {"depths": (1, 1, 1, 1), "widths": (4, 8, 12, 16), "stem_width": 8}


def tiny(**changes):
    return ResNetDConfig(**{**TINY, **changes}).build()


@pytest.mark.parametrize(
    ("preset", "channels", "millions"),
    [
        (rtdetr_r18, (128, 256, 512), 11.2),
        (rtdetr_r34, (128, 256, 512), 21.3),
        (rtdetr_r50, (512, 1024, 2048), 23.5),
        (rtdetr_r101, (512, 1024, 2048), 42.4),
    ],
)
def test_the_table_of_the_chapter_is_true(preset, channels, millions):
    with torch.device("meta"):
        backbone = preset().backbone.build()
    assert backbone.channels == channels
    assert backbone.strides == (8, 16, 32)
    assert round(sum(p.numel() for p in backbone.parameters()) / 1e6, 1) == millions


@pytest.mark.parametrize("size", [(64, 64), (96, 32), (100, 75), (33, 47), (1, 1)], ids=str)
@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_a_map_has_a_cell_for_every_stride_begun(size, block):
    backbone = tiny(block=block)
    for stride, channels, m in zip(
        backbone.strides, backbone.channels, backbone(torch.rand(1, 3, *size)), strict=True
    ):
        height, width = (-(-side // stride) for side in size)
        assert m.shape == (1, channels, height, width)


@pytest.mark.parametrize("outputs", [(4,), (3, 4), (2, 3, 4), (1, 2, 3, 4), (2,), (1, 4)], ids=str)
def test_stages_named_are_stages_given(outputs):
    backbone = tiny(outputs=outputs)
    whole = tiny(outputs=(1, 2, 3, 4))
    state = whole.state_dict()
    backbone.load_state_dict({n: state[n] for n in backbone.state_dict()})
    assert backbone.strides == tuple(2 ** (stage + 1) for stage in outputs)
    assert len(backbone.stages) == outputs[-1], "a stage nobody listens to is not there"
    x = torch.rand(1, 3, 64, 64)
    expected = whole.eval()(x)
    for stage, m in zip(outputs, backbone.eval()(x), strict=True):
        assert torch.equal(m, expected[stage - 1])


def test_a_map_is_tapped_under_its_name():
    backbone = tiny(outputs=(1, 2, 3, 4))
    with record(backbone) as seen:
        maps = backbone(torch.rand(1, 3, 64, 64))
    assert list(seen) == ["S2", "S3", "S4", "S5"]
    assert all(torch.equal(a, b) for a, b in zip(seen.values(), maps, strict=True))


def test_a_block_activates_the_sum_of_branch_and_shortcut():
    """Eq. 05.1."""
    block = Bottleneck(8, 12, 2, True, F.relu, FrozenBatchNorm2d)
    x = torch.randn(1, 8, 6, 6)
    y = block.conv1.norm(block.conv1.conv(x)).relu()
    y = block.conv2.norm(block.conv2.conv(y)).relu()
    y = block.conv3.norm(block.conv3.conv(y))
    assert torch.equal(block(x), (y + block.shortcut(x)).relu())
    assert block.conv2.conv.stride == (2, 2), "the 3×3 carries the stride"


def test_a_block_that_keeps_its_shape_adds_its_input():
    block = BasicBlock(8, 8, 1, False, F.relu, FrozenBatchNorm2d)
    nn.init.zeros_(block.conv2.conv.weight)
    x = torch.rand(1, 8, 5, 5)
    assert torch.equal(block(x), x)


def test_the_shortcut_reads_every_pixel_and_a_plain_one_does_not():
    shortcut = Shortcut(2, 3, 2, FrozenBatchNorm2d)
    x = torch.randn(1, 2, 5, 7, requires_grad=True)  # odd: the last row and column count too
    out = shortcut(x)
    assert out.shape[-2:] == (3, 4)
    corner = torch.einsum("oc,c->o", shortcut.conv.weight[:, :, 0, 0], x[0, :, 4, 6])
    assert torch.allclose(out[0, :, 2, 3], corner / (1 + 1e-5) ** 0.5)
    out.square().sum().backward()
    assert (x.grad != 0).all()


def test_frozen_norms_stay_and_live_ones_follow_the_data():
    for norm, moves in [(FrozenBatchNorm2d, False), (nn.BatchNorm2d, True)]:
        backbone = tiny(norm=norm).train()
        before = {n: b.clone() for n, b in backbone.named_buffers() if "running" in n}
        backbone(torch.rand(2, 3, 64, 64))
        after = dict(backbone.named_buffers())
        assert len(before) > 10
        assert {n for n in before if not torch.equal(before[n], after[n])} == (
            set(before) if moves else set()
        )
        affine = [n for n, _ in backbone.named_parameters() if "norm" in n]
        assert bool(affine) == moves


def test_filters_start_so_that_activations_keep_their_size():
    conv = tiny(widths=(64, 64, 64, 64)).stages[0][0].conv2.conv
    assert conv.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)


class Plain(Residual):
    """A reader's block: one convolution."""

    def __init__(self, channels_in, width, stride, first, act, norm):
        super().__init__(channels_in, width, stride, first, act, norm)
        self.conv = ConvNormAct(channels_in, width, 3, stride, identity, norm)

    def branch(self, x):
        return self.conv(x)


def test_a_readers_own_block_is_a_value():
    assert [m.shape[1] for m in tiny(block=Plain)(torch.rand(1, 3, 64, 64))] == [8, 12, 16]


def test_a_block_without_a_branch_says_what_is_missing():
    class Nothing(Residual):
        pass

    with pytest.raises(TypeError, match=r"Nothing must define branch\(\)"):
        Nothing(4, 4, 1, False, F.relu, FrozenBatchNorm2d)(torch.rand(1, 4, 2, 2))


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"depths": (1, 1)}, "depths"),
        ({"depths": (1, 0, 1, 1)}, "depths"),
        ({"widths": (4, 8, 12, 0)}, "widths"),
        ({"depths": (), "widths": ()}, "depths"),
        ({"outputs": ()}, "outputs"),
        ({"outputs": (3, 2)}, "outputs"),
        ({"outputs": (2, 2)}, "outputs"),
        ({"outputs": (0, 1)}, "outputs"),
        ({"outputs": (4, 5)}, "outputs"),
    ],
    ids=str,
)
def test_an_impossible_backbone_is_refused_by_name(changes, where):
    with pytest.raises(ConfigError) as refused:
        ResNetDConfig(**{**TINY, **changes})
    assert refused.value.where == f"backbone.{where}"
