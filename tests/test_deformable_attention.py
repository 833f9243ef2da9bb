"""A query says where to look and how much each look counts, in strides of its own box."""

import math

import pytest
import torch
from small import shaken

from rtdetr_lab.deformable_attention import DeformableAttention, points_per_level
from rtdetr_lab.errors import ConfigError
from rtdetr_lab.samplers import Discrete, Naive
from rtdetr_lab.taps import record

SHAPES = [(5, 7), (3, 4), (1, 1)]


@pytest.fixture
def inputs():
    """(queries, reference boxes, memory, shapes) in fp64."""
    boxes = torch.cat([torch.rand(2, 6, 2), 0.1 + 0.5 * torch.rand(2, 6, 2)], dim=-1)
    return torch.randn(2, 6, 8).double(), boxes.double(), torch.randn(2, 48, 8).double(), SHAPES


def attention(points=(4, 2, 1), **changes):
    return shaken(DeformableAttention(8, 2, points, **changes)).double()


@pytest.mark.parametrize("points", [(4, 4, 4), (3, 3, 3), (4, 2, 1), (0, 5, 0)], ids=str)
def test_the_fast_form_is_the_naive_loop(inputs, points):
    """Eq. 10.2."""
    fast, slow = attention(points), attention(points, sampler=Naive())
    slow.load_state_dict(fast.state_dict())
    assert (fast(*inputs) - slow(*inputs)).abs().max() <= 1e-12


def test_gradients_are_those_of_differences(inputs):
    module = attention((1, 2, 1))
    queries, boxes, memory, shapes = (x[:1] if torch.is_tensor(x) else x for x in inputs)
    leaves = [x[:, :2].clone().requires_grad_() for x in (queries, boxes)]
    memory = memory.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda q, b, m: module(q, b, m, shapes), [*leaves, memory])


def test_locations_are_the_equation(inputs):
    """Eq. 10.1."""
    module, (queries, boxes, _, _) = attention(), inputs
    plan = module.plan(queries, boxes)
    offsets = module.sampling_offsets(queries).view(2, 6, 2, 7, 2)
    per_point = torch.tensor([4] * 4 + [2] * 2 + [1])
    for k in range(7):
        centre, size = boxes[:, :, None, :2], boxes[:, :, None, 2:]
        expected = centre + offsets[:, :, :, k] / per_point[k] * size * 0.5
        assert torch.allclose(plan.locations[:, :, :, k], expected, atol=1e-15)
    assert torch.allclose(plan.weights.sum(-1), torch.ones(2, 6, 2).double())
    logits = module.attention_weights(queries).view(2, 6, 2, 7)
    assert torch.equal(plan.weights, logits.softmax(-1)), "one softmax over all levels together"


def test_large_objects_are_looked_at_in_large_strides(inputs):
    module, (queries, boxes, _, _) = attention(), inputs
    doubled = torch.cat([boxes[..., :2], 2 * boxes[..., 2:]], dim=-1)
    centre = boxes[:, :, None, None, :2]
    near = module.plan(queries, boxes).locations - centre
    far = module.plan(queries, doubled).locations - centre
    assert torch.allclose(far, 2 * near)


def test_before_training_each_head_looks_along_its_ray_and_touches_the_edge_of_the_box():
    module = DeformableAttention(16, 8, (4,))
    box = torch.tensor([0.5, 0.5, 0.2, 0.4]).expand(1, 1, 4)
    plan = module.plan(torch.randn(1, 1, 16), box)
    assert torch.allclose(plan.weights, torch.tensor(1 / 4))
    rays = (plan.locations[0, 0] - 0.5) / torch.tensor([0.1, 0.2])  # 1 is the edge
    for head, ray in enumerate(rays):
        assert ray[-1].abs().max().item() == pytest.approx(1)
        angle = math.atan2(*ray[-1].flip(0).tolist()) % (2 * math.pi)
        assert angle == pytest.approx(head * math.pi / 4, abs=1e-5)
        for k in range(4):
            assert torch.allclose(ray[k], ray[-1] * (k + 1) / 4, atol=1e-6)


def test_every_query_is_read_for_itself(inputs):
    module, (queries, boxes, memory, shapes) = attention(), inputs
    order = torch.randperm(6)
    shuffled = module(queries[:, order], boxes[:, order], memory, shapes)
    assert (shuffled - module(*inputs)[:, order]).abs().max() <= 1e-15


def test_offsets_of_a_sampler_without_slope_are_frozen(inputs):
    module = attention(sampler=Discrete())
    assert [p.requires_grad for p in module.sampling_offsets.parameters()] == [False, False]
    module(*inputs).sum().backward()
    assert {n for n, p in module.named_parameters() if p.grad is None} == {
        "sampling_offsets.weight",
        "sampling_offsets.bias",
    }


def test_the_plan_is_tapped_and_an_edit_moves_the_look(inputs):
    module = attention()
    with record(module) as seen:
        out = module(*inputs)
    assert {n: tuple(t.shape) for n, t in seen.items()} == {
        "weights": (2, 6, 2, 7),
        "locations": (2, 6, 2, 7, 2),
    }
    with record(module, edit={"locations": lambda p: torch.full_like(p, 9.0)}):
        blind = module(*inputs)
    assert torch.equal(blind, module.output_proj.bias.expand_as(out)), "nothing is seen out there"


def test_points_are_one_number_or_one_per_level():
    assert points_per_level(4, 3) == (4, 4, 4)
    assert points_per_level((4, 2, 0), 3) == (4, 2, 0)
    assert points_per_level([3], 1) == (3,)
    for wrong in (0, -1, (4, 2), (0, 0, 0), (4, -1, 2)):
        with pytest.raises(ConfigError, match=r"decoder\.num_points"):
            points_per_level(wrong, 3)
