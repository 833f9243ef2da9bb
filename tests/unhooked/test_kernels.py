"""The fused kernel against the naive loop, in Triton's interpreter: the same text that a GPU runs.

The interpreter is chosen before Triton is imported, so these tests run in a process of their own
choosing: this file sets it first.
"""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest
import torch

triton = pytest.importorskip(
    "triton", reason="Triton is not installed; runs with the extra [kernels]"
)

from small import pictures, small, targets  # noqa: E402

from rtdetr_lab.deployment.bench.gpu.kernels import Reading, errors  # noqa: E402
from rtdetr_lab.deployment.form import deploy, same  # noqa: E402
from rtdetr_lab.kernels.fused_sampler import Fused, fused, interpreted  # noqa: E402
from rtdetr_lab.rtdetrv2 import with_points  # noqa: E402
from rtdetr_lab.samplers import Bilinear, Discrete, Naive, SamplingPlan  # noqa: E402
from rtdetr_lab.structures import Batch  # noqa: E402
from rtdetr_lab.training import TrainConfig  # noqa: E402
from rtdetr_lab.training import trainer as training  # noqa: E402
from rtdetr_lab.training.trainer import Trainer  # noqa: E402

DEVICE = "cpu" if interpreted() else "cuda"

CASES = {
    "one cell": ([(1, 1)], (2,), 4),
    "odd shapes, odd width": ([(3, 5), (2, 3)], (2, 1), 3),
    "an unused level": ([(4, 2), (2, 1), (1, 1)], (1, 0, 2), 8),
}


def case(shapes, points, dim, dtype, spread):
    generator = torch.Generator().manual_seed(0)
    tokens, total = sum(h * w for h, w in shapes), sum(points)
    value = torch.randn(2, tokens, 2, dim, generator=generator)
    where = torch.rand(2, 3, 2, total, 2, generator=generator) * spread - (spread - 1) / 2
    where[0, 0, 0, 0] = torch.tensor([0.0, 1.0])  # on the border
    where[1, 0, 0, 0] = torch.tensor([-50.0, 70.0])  # far outside
    weights = torch.randn(2, 3, 2, total, generator=generator).softmax(-1)
    return [t.to(DEVICE, dtype).requires_grad_() for t in (value, where, weights)]


def run(sampler, inputs, shapes, points):
    value, where, weights = inputs
    out = sampler(value, shapes, points, SamplingPlan(where, weights))
    upstream = torch.linspace(-1, 1, out.numel(), dtype=out.dtype, device=out.device)
    return out, torch.autograd.grad(out, inputs, upstream.view_as(out))


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 2e-5), (torch.float16, 2e-2)],
    ids=["fp64", "fp32", "fp16"],
)
@pytest.mark.parametrize("spread", [1.0, 3.0], ids=["inside", "over the border"])
@pytest.mark.parametrize(("shapes", "points", "dim"), CASES.values(), ids=CASES)
def test_forward_and_backward_are_those_of_the_naive_loop(
    shapes, points, dim, dtype, tolerance, spread
):
    inputs = case(shapes, points, dim, dtype, spread)
    out, grads = run(Fused(), inputs, shapes, points)
    exact = [t.detach().double().requires_grad_() for t in inputs]
    wanted, theirs = run(Naive(), exact, shapes, points)
    assert out.dtype == dtype
    assert (out - wanted).abs().max() <= tolerance
    for got, want in zip(grads, theirs, strict=True):
        assert (got - want).abs().max() <= tolerance * want.abs().max().clamp(min=1)


def test_a_gradient_is_added_where_many_queries_read_one_cell():
    value = torch.ones(1, 1, 1, 2, dtype=torch.float64, device=DEVICE, requires_grad=True)
    where = torch.full((1, 5, 1, 2, 2), 0.5, dtype=torch.float64, device=DEVICE)
    weights = torch.full((1, 5, 1, 2), 0.5, dtype=torch.float64, device=DEVICE)
    Fused()(value, [(1, 1)], (2,), SamplingPlan(where, weights)).sum().backward()
    assert value.grad.flatten().tolist() == [5.0, 5.0]


def test_torch_agrees_that_the_operator_is_sound():
    shapes, points, dim = CASES["odd shapes, odd width"]
    inputs = case(shapes, points, dim, torch.float64, 1.0)
    from rtdetr_lab.kernels.embedding_bag_samplers import layout
    from rtdetr_lab.kernels.fused_sampler import fused_read

    levels = layout(tuple(shapes), points, torch.device(DEVICE))
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(fused_read, (*inputs, levels), test_utils=checks)


def test_only_the_bilinear_sampler_is_exchanged():
    assert fused(Bilinear()) == Fused()
    assert fused(Discrete(0.5)) == Discrete(0.5)


def trainer():
    """Of a model that reads little, for the interpreter is slow; the same in every call."""
    torch.manual_seed(0)
    changes = {"decoder.num_layers": 1, "selection.num_queries": 3, "denoising.num_queries": 2}
    model = with_points(small(changes), (1, 1, 1)).build()
    return Trainer(model, TrainConfig(num_pictures=8, batch_size=2), torch.device(DEVICE))


def one_step():
    """A trainer after one step on two pictures."""
    made = trainer()
    torch.manual_seed(1)
    made.learn(Batch(pictures(2, 64, 64), targets(1, 0)))
    return made


def test_a_step_of_training_with_the_kernel_is_the_step_without(monkeypatch):
    by_kernel = one_step()
    assert by_kernel.model.decoder.layers[0].cross_attn.sampler == Fused()
    monkeypatch.setattr(training, "fast_training", lambda model, device: model)
    plain = one_step()
    assert plain.model.decoder.layers[0].cross_attn.sampler == Bilinear()
    for (name, a), b in zip(
        by_kernel.model.named_parameters(), plain.model.parameters(), strict=True
    ):
        assert a.grad is not None, name
        assert (a.grad - b.grad).abs().max() <= 1e-5 * b.grad.abs().max() + 1e-7, name
    a, b = by_kernel.state(), plain.state()
    assert a["cfg"] == b["cfg"], "the choice is of the machine, and not of the model"
    assert a["model"].keys() == b["model"].keys()
    assert a["ema"].keys() == b["ema"].keys()


def test_what_has_learned_with_the_kernel_is_deployed_as_any_other():
    model = trainer().model
    assert deploy(model, same).decoder.layers[0].cross_attn.sampler == Bilinear()


def test_away_from_the_kernel_the_same_value_reads_on(monkeypatch):
    shapes, points, dim = CASES["odd shapes, odd width"]
    value, where, weights = (
        t.detach().cpu() for t in case(shapes, points, dim, torch.float64, 3.0)
    )
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    plan = SamplingPlan(where, weights)
    a, b = (sampler(value, shapes, points, plan) for sampler in (Fused(), Bilinear()))
    assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_the_command_for_a_gpu_tells_a_right_kernel_from_one_that_is_off(dtype, monkeypatch):
    """In bfloat16 many locations are on cells' centres, where the loop has no gradient."""
    reading = Reading([(5, 3), (2, 1)], (1, 2), batch=1, queries=6, heads=1, dim=3)
    assert errors(reading, dtype, Naive(), DEVICE)["right"]
    kernel = Fused.read
    monkeypatch.setattr(Fused, "read", lambda *given: 1.5 * kernel(*given))
    found = errors(reading, dtype, Naive(), DEVICE)
    assert not found["right"]
    assert min(found["errors"].values()) > found["most"]
