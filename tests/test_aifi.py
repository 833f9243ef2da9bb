"""Everybody listens to everybody; only the position embedding knows who is where."""

import pytest
import torch
from small import rebuilt
from torch import nn

from rtdetr_lab.aifi import AIFIConfig
from rtdetr_lab.errors import ConfigError
from rtdetr_lab.layers import sine_2d, sine_2d_authors
from rtdetr_lab.taps import record


def tiny(dim=16, **changes):
    cfg = AIFIConfig(**{"num_heads": 4, "ffn_dim": 32, **changes})

    class Build:
        build = staticmethod(lambda: cfg.build(dim))

    return rebuilt(Build)


def shuffled(s5, order):
    return s5.flatten(2)[..., order].unflatten(2, s5.shape[2:])


@pytest.fixture
def s5():
    return torch.randn(2, 16, 3, 5).double()


def test_without_positions_a_shuffled_map_gives_the_same_features_shuffled(s5):
    order = torch.randperm(15)
    blind, sighted = tiny(positions=None), tiny()
    assert (blind(shuffled(s5, order)) - shuffled(blind(s5), order)).abs().max() <= 1e-12
    assert (sighted(shuffled(s5, order)) - shuffled(sighted(s5), order)).abs().max() > 1e-2


@pytest.mark.parametrize("num_layers", [1, 3])
def test_a_layer_is_attend_add_norm_think_add_norm(s5, num_layers):
    """Eq. 06.1."""
    aifi = tiny(num_layers=num_layers)
    x = s5.flatten(2).transpose(1, 2)
    where = sine_2d(3, 5, 16, 10000.0, "cpu", torch.float64)
    for layer in aifi.layers:
        x = layer.norm1(x + layer.self_attn(x + where, x + where, x))
        x = layer.norm2(x + layer.ffn(x))
    assert torch.equal(aifi(s5), x.transpose(1, 2).unflatten(2, (3, 5)))


def test_positions_decide_who_listens_but_are_not_what_is_said(s5):
    """When nobody can compare (queries and keys are silent), positions have no way in."""
    aifi = tiny()
    plain = tiny(positions=None)
    plain.load_state_dict(aifi.state_dict())
    assert not torch.allclose(aifi(s5), plain(s5))
    for model in (aifi, plain):
        for projection in (model.layers[0].self_attn.q_proj, model.layers[0].self_attn.k_proj):
            nn.init.zeros_(projection.weight)
    assert torch.equal(aifi(s5), plain(s5))


def test_the_authors_order_agrees_on_squares_only():
    ours, theirs = tiny(), tiny(positions=sine_2d_authors)
    theirs.load_state_dict(ours.state_dict())
    square, rectangle = torch.randn(1, 16, 4, 4).double(), torch.randn(1, 16, 3, 5).double()
    assert torch.equal(ours(square), theirs(square))
    assert not torch.allclose(ours(rectangle), theirs(rectangle))


def test_the_temperature_reaches_the_embedding(s5):
    cold, warm = tiny(temperature=20.0), tiny()
    warm.load_state_dict(cold.state_dict())
    assert not torch.allclose(cold(s5), warm(s5))


def test_the_embedding_follows_the_size_and_is_no_weight(s5):
    aifi = tiny()
    first = aifi(s5)
    assert aifi(torch.randn(1, 16, 7, 2).double()).shape == (1, 16, 7, 2)
    assert torch.equal(aifi(s5), first)
    assert not list(aifi.buffers())


def test_the_result_and_the_weights_are_tapped(s5):
    aifi = tiny()
    with record(aifi) as seen:
        out = aifi(s5)
    assert list(seen) == ["layers.0.self_attn.weights", "F5"]
    assert torch.equal(seen["F5"], out)
    assert seen["layers.0.self_attn.weights"].shape == (2, 4, 15, 15)


@pytest.mark.parametrize(("dim", "num_heads"), [(16, 3), (18, 2)])
def test_a_width_that_cannot_be_shared_is_refused(dim, num_heads):
    with pytest.raises(ConfigError, match="cannot be divided"):
        AIFIConfig(num_heads=num_heads).build(dim)
