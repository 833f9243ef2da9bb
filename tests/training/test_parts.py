"""Optimizer groups, schedules and the averaged weights, against their equations."""

import math

import pytest
import torch
import torch.nn.functional as F
from small import small
from torch import nn
from training_toy import Toy

from rtdetr_lab.config_json import from_json, to_json
from rtdetr_lab.kernels import fused_sampler
from rtdetr_lab.kernels.fused_sampler import Fused
from rtdetr_lab.layers import Attention
from rtdetr_lab.rtdetrv2 import discrete
from rtdetr_lab.samplers import Bilinear, Discrete
from rtdetr_lab.training import Constant, Cosine, TrainConfig, from_scratch
from rtdetr_lab.training.ema import EMA, ema_decay
from rtdetr_lab.training.optim import adamw, learning_mode, lr_factor, parameter_groups, set_lr


@pytest.fixture
def groups():
    return parameter_groups(Toy().build(), lr=1e-3, backbone_lr=1e-4, weight_decay=0.05)


def test_norms_and_biases_are_not_pulled_to_zero(groups):
    decayed = {name for g in groups for name in g["names"] if g["weight_decay"] > 0}
    assert decayed == {"backbone.0.weight", "head.weight"}


def test_the_backbone_learns_at_its_own_rate(groups):
    rates = {name: g["lr"] for g in groups for name in g["names"]}
    assert {n for n, rate in rates.items() if rate == 1e-4} == {
        n for n in rates if n.startswith("backbone.")
    }
    assert len(rates) == len(list(Toy().build().parameters()))


def test_frozen_parameters_are_in_no_group():
    model = Toy().build()
    model.backbone.requires_grad_(False)
    names = [n for g in parameter_groups(model, 1.0, 1.0, 0.0) for n in g["names"]]
    assert names == ["head.weight", "head.bias"]


def test_a_frozen_part_goes_to_eval_mode_and_nothing_around_it():
    model = Toy().build().eval()
    model.backbone[1].requires_grad_(False)
    learning_mode(model)
    assert (model.training, model.backbone.training, model.dropout.training) == (True, True, True)
    assert not model.backbone[1].training


def test_a_factor_reaches_every_group(groups):
    optimizer = adamw(groups)
    set_lr(optimizer, 0.5)
    assert {g["lr"] for g in optimizer.param_groups} == {5e-4, 5e-5}


def test_the_rate_rises_in_a_line_and_falls_in_a_wave():
    """Eq. 15.1."""
    factors = [lr_factor(step, 100, 10, Cosine(0.1)) for step in range(101)]
    flat = [Cosine(0.1)(step / 100) for step in range(101)]
    assert factors[:10] == pytest.approx([(s + 1) / 10 * flat[s] for s in range(10)])
    assert factors[10:] == pytest.approx(flat[10:])
    assert factors[100] == pytest.approx(0.1)
    assert factors[50] == pytest.approx(0.55)
    assert [lr_factor(s, 100, 0, Constant()) for s in (0, 99)] == [1.0, 1.0]


@pytest.mark.parametrize("config", [TrainConfig(), from_scratch(10, amp=True)])
def test_a_recipe_survives_json(config):
    assert from_json(to_json(config)) == config


def test_the_average_follows_its_equation():
    """Eq. 15.2."""
    model = nn.Linear(1, 1, bias=False)
    by_hand = model.weight.item()
    average = EMA(model, decay=0.9, warmup=5)
    for step in range(1, 20):
        with torch.no_grad():
            model.weight.fill_(math.sin(step))
        average.update(step)
        decay = 0.9 * (1 - math.exp(-step / 5))
        by_hand = decay * by_hand + (1 - decay) * math.sin(step)
        assert float(average.model.weight) == pytest.approx(by_hand, abs=1e-6)


def test_without_warm_up_the_decay_is_what_was_asked_for():
    assert ema_decay(1, 0.99, 0) == 0.99
    assert ema_decay(1, 0.99, 1000) < 0.001
    assert ema_decay(100_000, 0.99, 1000) == pytest.approx(0.99)


def test_statistics_are_averaged_counters_copied_and_the_model_left_alone():
    model = nn.BatchNorm1d(2)
    average = EMA(model, decay=0.5, warmup=0)
    model(torch.randn(8, 2) + 3)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    average.update(1)
    assert torch.allclose(average.model.running_mean, 0.5 * model.running_mean)
    assert average.model.num_batches_tracked == 1
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(p.requires_grad for p in average.model.parameters())


@pytest.mark.parametrize(("device", "wanted"), [("cuda", Fused()), ("cpu", Bilinear())], ids=str)
def test_on_cuda_training_reads_through_the_fused_kernel(device, wanted, monkeypatch):
    """The choice alone: what the kernel computes is tested in `tests/unhooked/test_kernels.py`."""
    monkeypatch.setattr(fused_sampler, "has_triton", lambda: True)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    model = small().build()
    keys, cfg = set(model.state_dict()), to_json(model.cfg)
    made = fused_sampler.fast_training(model, torch.device(device))
    assert [layer.cross_attn.sampler for layer in made.decoder.layers] == [wanted] * 3
    assert set(made.state_dict()) == keys
    assert to_json(made.cfg) == cfg
    other = fused_sampler.fast_training(discrete(small()).build(), torch.device(device))
    assert other.decoder.layers[0].cross_attn.sampler == Discrete()


def test_without_triton_training_keeps_the_chapters_sampler(monkeypatch):
    monkeypatch.setattr(fused_sampler, "has_triton", lambda: False)
    model = fused_sampler.fast_training(small().build(), torch.device("cuda"))
    assert model.decoder.layers[0].cross_attn.sampler == Bilinear()


@pytest.mark.parametrize(("device", "single"), [("cpu", True), ("cuda", False)])
def test_on_a_cpu_attention_learns_in_single_precision(device, single):
    model = fused_sampler.fast_training(small().build(), torch.device(device))
    found = [m for m in model.modules() if isinstance(m, Attention)]
    assert len(found) >= 4
    assert all((m.mix is fused_sampler.mix_in_single_precision) == single for m in found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_attention_in_single_precision_is_attention(dtype):
    draw = torch.Generator().manual_seed(4)
    q, k, v = (torch.randn(2, 3, 7, 5, generator=draw, dtype=torch.float64) for _ in range(3))
    seen = torch.rand(7, 7, generator=draw) < 0.7
    wanted = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    given = [t.to(dtype).requires_grad_() for t in (q, k, v)]
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        got = fused_sampler.mix_in_single_precision(*given, attn_mask=seen, dropout_p=0.0)
    assert got.dtype == dtype
    close = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.03}[dtype]
    torch.testing.assert_close(got.double(), wanted, atol=close, rtol=close)
    got.sum().backward()
    assert all(t.grad.dtype == dtype for t in given)


def test_attention_in_bfloat16_is_nearer_to_the_exact_one_in_single_precision():
    draw = torch.Generator().manual_seed(5)
    given = [torch.randn(1, 4, 60, 16, generator=draw).bfloat16() for _ in range(3)]
    exact = F.scaled_dot_product_attention(*(t.double() for t in given))
    with torch.autocast("cpu", torch.bfloat16):
        single = fused_sampler.mix_in_single_precision(*given, attn_mask=None, dropout_p=0.0)
    half = F.scaled_dot_product_attention(*given)
    assert (single - exact).abs().mean() <= (half - exact).abs().mean()


def test_a_trained_model_in_use_computes_attention_as_any_other():
    """No conversion and no change of autocast is left in a graph, and bfloat16 stays bfloat16."""
    draw = torch.Generator().manual_seed(6)
    given = tuple(torch.randn(1, 2, 9, 8, generator=draw).bfloat16() for _ in range(3))

    class Mix(torch.nn.Module):
        def __init__(self, mix):
            super().__init__()
            self.mix = mix

        def forward(self, q, k, v):
            return self.mix(q, k, v, attn_mask=None, dropout_p=0.0)

    mixes = Mix(fused_sampler.mix_in_single_precision), Mix(F.scaled_dot_product_attention)
    trained, plain = (torch.export.export(mix, given) for mix in mixes)
    assert trained.graph_module.code == plain.graph_module.code
    assert torch.equal(mixes[0](*given), mixes[1](*given))
