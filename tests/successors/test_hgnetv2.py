"""HGNetv2: what a block keeps, what a light layer saves, and maps of every size."""

import pytest
import torch
import torch.nn.functional as F
from small import SMALL_HGNET
from torch import nn

from rtdetr_lab.config import replace_at
from rtdetr_lab.errors import ConfigError
from rtdetr_lab.kernels.folding import fused
from rtdetr_lab.layers import ConvNormAct
from rtdetr_lab.rtdetr import rtdetr_r50, rtdetr_r101
from rtdetr_lab.successors.hgnetv2 import (
    AffineActivation,
    HGBlock,
    HGNetV2Config,
    Stem,
    hgnetv2_b4,
    hgnetv2_b5,
    padded,
    rtdetr_l,
    rtdetr_x,
)
from rtdetr_lab.taps import record


def size(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("preset", "millions"), [(hgnetv2_b4, 13.5), (hgnetv2_b5, 33.2)])
def test_the_table_of_the_chapter_is_true(preset, millions):
    with torch.device("meta"):
        backbone = preset().build()
    assert backbone.channels == (512, 1024, 2048)
    assert backbone.strides == (8, 16, 32)
    assert round(size(backbone) / 1e6, 1) == millions


def test_l_and_x_are_r50_and_r101_with_another_backbone():
    for here, there in ((rtdetr_l(), rtdetr_r50()), (rtdetr_x(), rtdetr_r101())):
        assert replace_at(here, "backbone", there.backbone) == there


@pytest.mark.parametrize("shape", [(64, 64), (96, 32), (100, 75), (33, 47), (1, 1)], ids=str)
@pytest.mark.parametrize("light", [(), (3, 4), (1, 2)], ids=str)
def test_a_map_has_a_cell_for_every_stride_begun(shape, light):
    backbone = replace_at(SMALL_HGNET, "light", light).build().eval()
    maps = backbone(torch.rand(1, 3, *shape))
    for stride, channels, m in zip(backbone.strides, backbone.channels, maps, strict=True):
        height, width = (-(-side // stride) for side in shape)
        assert m.shape == (1, channels, height, width)


@pytest.mark.parametrize("outputs", [(4,), (3, 4), (1, 2, 3, 4), (2,), (1, 4)], ids=str)
def test_stages_named_are_stages_given(outputs):
    backbone = replace_at(SMALL_HGNET, "outputs", outputs).build().eval()
    whole = replace_at(SMALL_HGNET, "outputs", (1, 2, 3, 4)).build().eval()
    state = whole.state_dict()
    backbone.load_state_dict({n: state[n] for n in backbone.state_dict()})
    assert len(backbone.stages) == outputs[-1], "a stage nobody listens to is not there"
    x = torch.rand(1, 3, 64, 96)
    with record(backbone) as seen:
        maps = backbone(x)
    assert list(seen) == [f"S{stage + 1}" for stage in outputs]
    for stage, m in zip(outputs, maps, strict=True):
        assert torch.equal(m, whole(x)[stage - 1])


# --- a block ------------------------------------------------------------------------------------


def block(stage, channels_in, residual, **changes):
    cfg = SMALL_HGNET
    for path, value in changes.items():
        cfg = replace_at(cfg, path, value)
    return HGBlock(cfg, stage, channels_in, residual).double().eval()


@pytest.mark.parametrize("residual", [False, True])
def test_a_block_mixes_the_input_and_every_layer(residual):
    """Eq. 20.1."""
    made = block(3, 16, residual)
    x = torch.randn(2, 16, 5, 7).double()
    x1 = made.layers[0](x)
    x2 = made.layers[1](x1)
    squeeze, excite = made.aggregation
    expected = excite(squeeze(torch.cat([x, x1, x2], dim=1)))
    assert squeeze.conv.weight.shape == (8, 16 + 6 + 6, 1, 1)
    assert torch.equal(made(x), expected + x if residual else expected)


def test_a_block_sees_one_more_ring_of_cells_with_every_layer():
    made = block(2, 12, False, num_layers=(2, 3, 2, 2))
    x = torch.randn(1, 12, 9, 9).double().requires_grad_()
    maps = [x]
    for layer in made.layers:
        maps.append(layer(maps[-1]))
    for ring, m in enumerate(maps):
        (grad,) = torch.autograd.grad(m[0, :, 4, 4].square().sum(), x, retain_graph=True)
        rows = grad.abs().sum((0, 1)).sum(1).nonzero().flatten().tolist()
        assert rows == list(range(4 - ring, 5 + ring))


def test_a_light_layer_needs_22_times_fewer_weights():
    """Eq. 20.2 for 192 channels and a 5×5 filter."""
    cfg = HGNetV2Config()
    light = cfg.layer(3, 192)
    dense = replace_at(cfg, "light", ()).layer(3, 192)
    assert size(light) == 192 * 192 + 25 * 192 == 41_664
    assert size(dense) == 25 * 192 * 192 == 921_600
    assert 921_600 // 41_664 == 22


def test_the_second_half_of_a_light_layer_keeps_channels_apart():
    _, depthwise = SMALL_HGNET.layer(3, 6).eval()
    x = torch.zeros(1, 6, 5, 5)
    x[0, 2] = torch.rand(5, 5)
    with torch.no_grad():
        moved = depthwise.conv(x).abs().sum((0, 2, 3))
    assert moved.nonzero().flatten().tolist() == [2]


def test_filters_of_a_depthwise_convolution_start_as_large_as_others():
    wide = HGNetV2Config((32, 64), (64, 512, 512, 512), (8, 8, 8, 8)).build()
    depthwise = wide.stages[2].downsample.conv.weight
    assert depthwise.shape == (512, 1, 3, 3)
    assert depthwise.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.05)


# --- the stem and the activation ----------------------------------------------------------------


def test_the_stem_stacks_a_pooled_and_a_convolved_map():
    stem = Stem(SMALL_HGNET).double().eval()
    images = torch.rand(2, 3, 18, 22).double()
    x = F.pad(stem.stem1(images), (0, 1, 0, 1))
    assert x.shape[-2:] == (10, 12)
    pooled = x.unfold(2, 2, 1).unfold(3, 2, 1).amax((-1, -2))
    learned = stem.stem2b(padded(stem.stem2a(x)))
    both = torch.cat([pooled, learned], dim=1)
    assert torch.equal(stem(images), stem.stem4(stem.stem3(both)))


def test_an_affine_activation_scales_and_shifts_after_the_activation():
    act = AffineActivation(F.relu)
    x = torch.randn(2, 3, 4, 5)
    assert torch.equal(act(x), x.relu()), "at the start it is the activation alone"
    with torch.no_grad():
        act.scale.fill_(-2.0)
        act.bias.fill_(0.25)
    assert torch.equal(act(x), -2.0 * x.relu() + 0.25)


def test_every_activation_of_an_affine_backbone_is_affine_and_no_other_is():
    affine = replace_at(SMALL_HGNET, "affine", True).build()
    units = [m for m in affine.modules() if isinstance(m, ConvNormAct)]
    with_scale = [m for m in units if isinstance(m.act, AffineActivation)]
    linear = [m for m in units if not isinstance(m.act, AffineActivation)]
    # Depthwise steps between stages, and the first half of the light layers.
    assert len(linear) == 3 + 2 * (2 + 1)
    assert len({id(m.act) for m in with_scale}) == len(with_scale), "each learns its own numbers"
    assert size(affine) - size(SMALL_HGNET.build()) == 2 * len(with_scale)


def test_a_grouped_convolution_is_folded_with_its_norm():
    unit = ConvNormAct(6, 6, 3, 2, F.relu, groups=6).double().eval()
    nn.init.uniform_(unit.norm.running_var, 0.5, 2.0)
    nn.init.normal_(unit.norm.running_mean)
    x = torch.randn(1, 6, 7, 5).double()
    short = fused(unit)
    assert short.conv.groups == 6
    assert (short(x) - unit(x)).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"stem": (3, 8)}, "stem.0"),
        ({"stem": (0, 8)}, "stem"),
        ({"mid_widths": (4, 4, 6)}, "mid_widths"),
        ({"depths": (1, 0, 1, 1)}, "depths"),
        ({"num_layers": (2, 2, 2, 0)}, "num_layers"),
        ({"kernels": (3, 3, 4, 5)}, "kernels"),
        ({"widths": (8, 13, 16, 24)}, "widths.1"),
        ({"light": (3, 5)}, "light"),
        ({"outputs": (3, 2)}, "outputs"),
    ],
    ids=str,
)
def test_an_impossible_backbone_is_refused_by_name(changes, where):
    with pytest.raises(ConfigError) as refused:
        for path, value in changes.items():
            replace_at(SMALL_HGNET, path, value)
    assert refused.value.where == f"backbone.{where}"
