"""One width first, attention on the coarsest map, convolutions across all; then to the decoder."""

import pytest
import torch
from small import shaken
from torch import nn

from rtdetr_lab.aifi import AIFIConfig
from rtdetr_lab.ccff import CCFFConfig
from rtdetr_lab.errors import ConfigError
from rtdetr_lab.hybrid_encoder import HybridEncoderConfig, MemoryProjection

CHANNELS, SIZES = (4, 6, 10), ((8, 12), (4, 6), (2, 3))


@pytest.fixture
def maps():
    pairs = zip(CHANNELS, SIZES, strict=True)
    return [torch.randn(2, c, *size).double() for c, size in pairs]


def tiny(channels=CHANNELS, **changes):
    parts = {"aifi": AIFIConfig(num_heads=2, ffn_dim=8), "ccff": CCFFConfig(0.5, 1), **changes}
    return shaken(HybridEncoderConfig(8, **parts).build(channels)).double().eval()


def test_the_encoder_is_its_three_steps(maps):
    """Eq. 08.1."""
    encoder = tiny()
    s3, s4, s5 = (project(m) for project, m in zip(encoder.project, maps, strict=True))
    expected = encoder.ccff([s3, s4, encoder.aifi(s5)])
    found = encoder(maps)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert [m.shape for m in found] == [(2, 8, *size) for size in SIZES]
    assert encoder.channels == (8, 8, 8)


def test_without_aifi_the_coarsest_map_goes_on_as_it_is(maps):
    encoder = tiny(aifi=None)
    expected = encoder.ccff([p(m) for p, m in zip(encoder.project, maps, strict=True)])
    assert all(torch.equal(a, b) for a, b in zip(encoder(maps), expected, strict=True))
    assert isinstance(encoder.aifi, nn.Identity)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_any_number_of_maps(maps, count):
    encoder = tiny(CHANNELS[-count:])
    assert [m.shape[2:] for m in encoder(maps[-count:])] == list(SIZES[-count:])


def test_memory_has_the_decoders_width():
    project = MemoryProjection((8, 8, 8), 6, 3)
    levels = project([torch.randn(1, 8, *size) for size in SIZES])
    assert [m.shape for m in levels] == [(1, 6, *size) for size in SIZES]
    assert {p.conv.kernel_size for p in project} == {(1, 1)}


def test_further_levels_halve_the_coarsest_map_again_and_again():
    project = MemoryProjection((8, 8, 8), 6, 5).eval()
    maps = [torch.randn(1, 8, *size) for size in SIZES]
    levels = project(maps)
    assert [tuple(m.shape[2:]) for m in levels] == [*SIZES, (1, 2), (1, 1)]
    assert torch.equal(levels[3], project[3](maps[2]))
    assert torch.equal(levels[4], project[4](levels[3]))


def test_fewer_levels_than_maps_are_refused():
    with pytest.raises(ConfigError, match=r"decoder.num_levels.*2 levels.*3 maps"):
        MemoryProjection((8, 8, 8), 6, 2)
