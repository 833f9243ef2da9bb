"""Coarse and fine maps talk, whatever their number and size."""

import pytest
import torch
import torch.nn.functional as F
from small import shaken
from torch import nn

from rtdetr_lab.ccff import CCFFConfig, CSPRepLayer, RepVggBlock, upsample_to
from rtdetr_lab.errors import ConfigError
from rtdetr_lab.layers import identity
from rtdetr_lab.taps import record


def maps(*sizes, dim=8):
    return [torch.randn(1, dim, *size, dtype=torch.double) for size in sizes]


def tiny(num_levels, dim=8, **changes):
    cfg = CCFFConfig(**{"expansion": 0.5, "num_blocks": 1, **changes})
    return shaken(cfg.build(dim, num_levels)).double().eval()


def test_a_rep_vgg_block_is_one_convolution():
    """Eq. 07.2."""
    block = RepVggBlock(4, act=identity).double().eval()
    for norm in (block.dense.norm, block.pointwise.norm):
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            nn.init.uniform_(tensor, 0.5, 2)

    def folded(unit):
        scale = unit.norm.weight / (unit.norm.running_var + unit.norm.eps).sqrt()
        return unit.conv.weight * scale[:, None, None, None], (
            unit.norm.bias - unit.norm.running_mean * scale
        )

    (dense, b3), (pointwise, b1) = folded(block.dense), folded(block.pointwise)
    kernel = dense + F.pad(pointwise, (1, 1, 1, 1))
    x = torch.randn(2, 4, 5, 6).double()
    one = F.conv2d(x, kernel, b3 + b1, padding=1)
    assert (block(x) - one).abs().max() <= 1e-12


def test_a_csp_layer_adds_its_two_paths_and_widens_only_if_it_must():
    for hidden, widens in [(3, True), (6, False)]:
        layer = CSPRepLayer(4, 6, hidden, 2, F.silu).eval()
        x = torch.randn(1, 4, 5, 5)
        assert torch.equal(layer(x), layer.conv3(layer.blocks(layer.conv1(x)) + layer.conv2(x)))
        assert isinstance(layer.conv3, nn.Identity) != widens
        assert layer(x).shape == (1, 6, 5, 5)


@pytest.mark.parametrize("num_levels", [1, 2, 3, 4])
def test_every_map_comes_back_in_its_size(num_levels):
    sizes = [(12, 20), (6, 10), (3, 5), (2, 3)][-num_levels:]
    ccff = tiny(num_levels)
    assert [m.shape[2:] for m in ccff(maps(*sizes))] == sizes


def test_one_level_passes_through():
    (only,) = maps((3, 5))
    assert torch.equal(tiny(1)([only])[0], only)


def test_every_level_hears_every_other():
    inputs = [m.requires_grad_() for m in maps((8, 8), (4, 4), (2, 2))]
    for out in tiny(3)(inputs):
        grads = torch.autograd.grad(out.square().sum(), inputs, retain_graph=True)
        assert all(g.abs().sum() > 0 for g in grads)


def test_three_levels_by_hand():
    """Eq. 07.1."""
    ccff, (s3, s4, f5) = tiny(3), maps((8, 8), (4, 4), (2, 2))
    top = ccff.lateral[0](f5)
    middle = ccff.lateral[1](ccff.top_down[0](torch.cat([upsample_to(top, s4), s4], 1)))
    fine = ccff.top_down[1](torch.cat([upsample_to(middle, s3), s3], 1))
    out4 = ccff.bottom_up[0](torch.cat([ccff.downsample[0](fine), middle], 1))
    out5 = ccff.bottom_up[1](torch.cat([ccff.downsample[1](out4), top], 1))
    for found, expected in zip(ccff([s3, s4, f5]), [fine, out4, out5], strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("fine", [(4, 6), (7, 5), (3, 4), (1, 1)], ids=str)
def test_cell_i_of_the_fine_map_reads_cell_half_i(fine):
    coarse = torch.randn(1, 2, -(-fine[0] // 2), -(-fine[1] // 2))
    up = upsample_to(coarse, torch.empty(1, 9, *fine))
    assert up.shape[2:] == fine
    for i in range(fine[0]):
        for j in range(fine[1]):
            assert torch.equal(up[..., i, j], coarse[..., i // 2, j // 2])


def test_both_ways_are_tapped_in_the_order_they_go():
    ccff, inputs = tiny(2), maps((4, 4), (2, 2))
    with record(ccff) as seen:
        out = ccff(inputs)
    assert list(seen) == ["top_down.1", "top_down.0", "bottom_up.0", "bottom_up.1"]
    assert torch.equal(seen["bottom_up.1"], out[1])
    assert torch.equal(seen["top_down.0"], out[0]), "the finest map has nobody below it"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"expansion": 0.0}, r"expansion: 0\.0 leaves no channel of 8"),
        ({"expansion": -1.0}, r"expansion: -1\.0 leaves no channel of 8"),
        ({"num_blocks": -1}, r"num_blocks: is -1; give at least 0"),
    ],
)
def test_blocks_without_a_channel_are_refused(changes, says):
    with pytest.raises(ConfigError, match=says):
        CCFFConfig(**changes).build(8, 3)
