"""Bricks do what their one line says, and attention shows its weights only when asked."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rtdetr_lab.layers import (
    MLP,
    Attention,
    ConvNormAct,
    FeedForward,
    FrozenBatchNorm2d,
    cached_by_size,
    identity,
    sine_2d,
    sine_2d_authors,
)
from rtdetr_lab.taps import record


def test_conv_norm_act_is_its_three_parts_and_keeps_the_size():
    layer = ConvNormAct(3, 4, 3, act=F.silu).eval()
    x = torch.randn(2, 3, 5, 7)
    assert layer(x).shape == (2, 4, 5, 7)
    assert torch.equal(layer(x), F.silu(layer.norm(layer.conv(x))))
    assert layer.conv.bias is None, "the norm has one"


def test_no_activation_is_the_identity():
    x = torch.randn(3)
    assert identity(x) is x


def test_frozen_batch_norm_is_batch_norm_in_eval_mode_forever():
    """Eq. 05.2."""
    live, frozen = nn.BatchNorm2d(3), FrozenBatchNorm2d(3)
    for tensor in (live.weight, live.bias, live.running_mean, live.running_var):
        nn.init.uniform_(tensor, 0.5, 2)
    state = {n: t for n, t in live.state_dict().items() if n != "num_batches_tracked"}
    frozen.load_state_dict(state)
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(frozen.train()(x), live.eval()(x))
    assert list(frozen.parameters()) == []
    assert torch.equal(frozen.running_mean, live.running_mean), "it saw a batch and did not move"


def test_an_mlp_activates_between_its_layers_and_not_after():
    mlp = MLP(2, 5, 3, num_layers=3)
    x = torch.randn(4, 2)
    a, b, c = mlp.layers
    assert torch.equal(mlp(x), c(F.relu(b(F.relu(a(x))))))
    assert (mlp(torch.randn(50, 2)) < 0).any()


def test_feed_forward_widens_activates_and_narrows():
    layer = FeedForward(4, 9, act=F.gelu)
    x = torch.randn(1, 3, 4)
    assert torch.equal(layer(x), layer.fc2(F.gelu(layer.fc1(x))))


# --- attention ----------------------------------------------------------------------------------


@pytest.fixture
def attention():
    """In fp64, with a torch module of the same weights."""
    ours = Attention(12, num_heads=3).double()
    for bias in (ours.q_proj.bias, ours.k_proj.bias, ours.v_proj.bias, ours.out_proj.bias):
        nn.init.normal_(bias)
    torchs = nn.MultiheadAttention(12, 3, batch_first=True).double()
    thirds = (ours.q_proj, ours.k_proj, ours.v_proj)
    with torch.no_grad():
        torchs.in_proj_weight.copy_(torch.cat([p.weight for p in thirds]))
        torchs.in_proj_bias.copy_(torch.cat([p.bias for p in thirds]))
    torchs.out_proj.load_state_dict(ours.out_proj.state_dict())
    return ours, torchs


@pytest.fixture
def qkv():
    return [torch.randn(2, n, 12).double() for n in (5, 7, 7)]


def close(a, b, tolerance=1e-12):
    return (a - b).abs().max() <= tolerance


def test_attention_is_torchs_multi_head_attention(attention, qkv):
    ours, torchs = attention
    assert close(ours(*qkv), torchs(*qkv, need_weights=False)[0])


def test_weights_start_as_torchs_do():
    ours, torchs = Attention(64, 4), nn.MultiheadAttention(64, 4)
    bound = torchs.in_proj_weight.abs().max().item()
    for projection in (ours.q_proj, ours.k_proj, ours.v_proj):
        assert projection.weight.abs().max().item() == pytest.approx(bound, rel=0.02)


def test_a_query_does_not_see_what_is_blocked(attention, qkv):
    ours, torchs = attention
    blocked = torch.rand(5, 7) < 0.5
    blocked[:, 0] = False
    out = ours(*qkv, blocked)
    assert close(out, torchs(*qkv, attn_mask=blocked, need_weights=False)[0])

    query, key, value = qkv
    hidden = blocked[2].nonzero()[0]
    key, value = key.clone(), value.clone()
    key[:, hidden], value[:, hidden] = 100.0, -100.0
    assert torch.equal(ours(query, key, value, blocked)[:, 2], out[:, 2])
    assert not close(ours(query, key, value, blocked)[:, ~blocked[:, hidden[0]]],
                     out[:, ~blocked[:, hidden[0]]])  # fmt: skip


def test_who_may_see_one_thing_only_answers_with_it(attention, qkv):
    ours, _ = attention
    blocked = torch.ones(5, 7, dtype=torch.bool)
    blocked[:, 3] = False
    only = ours.out_proj(ours.v_proj(qkv[2][:, 3:4]))
    assert close(ours(*qkv, blocked), only.expand(-1, 5, -1))


def test_each_picture_may_block_differently(attention, qkv):
    ours, _ = attention
    blocked = torch.zeros(2, 1, 5, 7, dtype=torch.bool)
    blocked[1, :, :, 4:] = True
    out = ours(*qkv, blocked)
    query, key, value = qkv
    assert close(out[:1], ours(query[:1], key[:1], value[:1]))
    assert close(out[1:], ours(query[1:], key[1:, :4], value[1:, :4]))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("with_mask", [False, True])
def test_looking_at_the_weights_changes_nothing(attention, qkv, dtype, tolerance, with_mask):
    ours = attention[0].to(dtype)
    inputs = [x.to(dtype) for x in qkv]
    blocked = torch.rand(5, 7) < 0.3 if with_mask else None
    plain = ours(*inputs, blocked)
    with record(ours, "weights") as seen:
        opened = ours(*inputs, blocked)
    assert close(opened, plain, tolerance)
    weights = seen["weights"]
    assert weights.shape == (2, 3, 5, 7)
    assert close(weights.sum(-1), torch.ones(2, 3, 5), tolerance)
    if with_mask:
        assert not weights.masked_select(blocked).any()


def test_an_edit_of_the_weights_is_what_the_model_goes_on_with(attention, qkv):
    ours, _ = attention
    with record(ours, edit={"weights": lambda w: torch.full_like(w, 1 / 7)}):
        out = ours(*qkv)
    mean = ours.out_proj(ours.v_proj(qkv[2]).mean(1, keepdim=True))
    assert close(out, mean.expand(-1, 5, -1))


def test_dropout_is_dropped_in_training_only_recorded_or_not(qkv):
    ours = Attention(12, 3, dropout=0.5).double()
    assert not torch.equal(ours(*qkv), ours(*qkv))
    with record(ours) as seen:
        opened = ours(*qkv), ours(*qkv)
    assert not torch.equal(*opened)
    assert torch.equal(*seen.all("weights")), "weights are seen before the dropout"
    ours.eval()
    assert torch.equal(ours(*qkv), ours(*qkv))


# --- positions, and what is remembered by size --------------------------------------------------


def test_the_embedding_of_a_cell_is_the_formula():
    """Eq. 06.2."""
    height, width, dim, temperature = 3, 5, 16, 100.0
    found = sine_2d(height, width, dim, temperature, "cpu", torch.float64)
    assert found.shape == (1, height * width, dim)
    for n in range(height * width):
        row, column = n // width, n % width
        for i in range(4):
            f = temperature ** (-i / 4)
            expected = [
                math.sin(row * f),
                math.cos(row * f),
                math.sin(column * f),
                math.cos(column * f),
            ]
            assert found[0, n, i::4].tolist() == pytest.approx(expected, abs=1e-15)


def test_the_authors_order_is_ours_on_squares_and_another_on_rectangles():
    assert torch.equal(sine_2d(4, 4, 16), sine_2d_authors(4, 4, 16))
    ours, theirs = sine_2d(3, 5, 16), sine_2d_authors(3, 5, 16)
    assert not torch.equal(ours, theirs)
    assert torch.equal(theirs, sine_2d(5, 3, 16)), "they lay out the transposed map"


def test_a_size_is_computed_once_and_never_mixed_up():
    assert sine_2d(4, 6, 8) is sine_2d(4, 6, 8)
    assert sine_2d(6, 4, 8) is not sine_2d(4, 6, 8)
    assert sine_2d(4, 6, 8, 10000.0, "cpu", torch.float64).dtype == torch.float64
    assert sine_2d(2, 2, 8).shape[1] == 4


def test_what_inference_mode_computed_can_be_trained_with():
    calls = []

    @cached_by_size
    def table(n):
        calls.append(n)
        return torch.ones(n)

    with torch.inference_mode():
        table(3)
    weight = torch.ones(3, requires_grad=True)
    (table(3) * weight).sum().backward()
    assert weight.grad.tolist() == [1, 1, 1]
    assert calls == [3]
