"""Three ways to read a map between its cells agree wherever they must."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from rtdetr_lab.notation import num_tokens
from rtdetr_lab.samplers import Bilinear, Discrete, Naive, Sampler, SamplingPlan

CASES = {
    "even": ([(4, 4), (2, 2)], (2, 2)),
    "odd": ([(5, 7), (3, 1)], (2, 2)),
    "one cell": ([(1, 1)], (3,)),
    "uneven points": ([(4, 6), (2, 3), (1, 2)], (4, 0, 1)),
}


def case(shapes, points, spread=1.0, batch=2, queries=3, heads=2):
    """(value, plan) with points all over the picture, and beyond it for a spread over 1."""
    total = sum(points)
    value = torch.randn(batch, num_tokens(shapes), heads, 3).double()
    where = 0.5 + spread * (torch.rand(batch, queries, heads, total, 2).double() - 0.5)
    weights = torch.randn(batch, queries, heads, total).double().softmax(-1)
    return value, SamplingPlan(where, weights)


@pytest.mark.parametrize("spread", [1.0, 2.0, 1e3], ids=["inside", "around", "far outside"])
@pytest.mark.parametrize(("shapes", "points"), CASES.values(), ids=CASES)
def test_bilinear_is_the_naive_loop(shapes, points, spread):
    value, plan = case(shapes, points, spread)
    fast, slow = (read(value, shapes, points, plan) for read in (Bilinear(), Naive()))
    assert fast.shape == (2, 3, 6)
    assert (fast - slow).abs().max() <= 1e-12
    assert fast.any() or spread > 100, "far outside there is nothing"


@settings(max_examples=25)
@given(st.data())
def test_bilinear_is_the_naive_loop_for_any_sizes(data):
    side, count = st.integers(1, 6), st.integers(0, 3)
    shapes = data.draw(st.lists(st.tuples(side, side), min_size=1, max_size=3))
    points = data.draw(st.tuples(*[count] * len(shapes)).filter(any))
    value, plan = case(shapes, points, spread=1.5)
    fast, slow = (read(value, shapes, points, plan) for read in (Bilinear(), Naive()))
    assert (fast - slow).abs().max() <= 1e-12


@pytest.mark.parametrize("sampler", [Bilinear(), Naive()])
def test_gradients_reach_values_locations_and_weights(sampler):
    shapes, points = [(3, 4), (2, 1)], (1, 2)
    value, plan = case(shapes, points, 1.3, batch=1, queries=2)
    inputs = [t.requires_grad_() for t in (value, plan.locations, plan.weights)]

    def read(value, locations, weights):
        return sampler(value, shapes, points, SamplingPlan(locations, weights))

    assert torch.autograd.gradcheck(read, inputs)


def on_centres(shapes, points):
    """A plan whose every point is the centre of a cell."""
    value, plan = case(shapes, points)
    levels = [shape for shape, count in zip(shapes, points, strict=True) for _ in range(count)]
    for k, (height, width) in enumerate(levels):
        cells = torch.tensor([width, height])
        index = (plan.locations[:, :, :, k] * cells).floor().clamp(max=cells - 1)
        plan.locations[:, :, :, k] = (index + 0.5) / cells
    return value, plan


@pytest.mark.parametrize(("shapes", "points"), CASES.values(), ids=CASES)
def test_discrete_and_bilinear_agree_on_cell_centres(shapes, points):
    value, plan = on_centres(shapes, points)
    a, b = (read(value, shapes, points, plan) for read in (Discrete(), Bilinear()))
    assert (a - b).abs().max() <= 1e-12


def test_discrete_reads_the_cell_that_contains_the_point():
    where = torch.tensor([[0.24, 0.99], [0.26, 0.0], [0.5, 0.5]]).view(1, 1, 1, 3, 2)
    cells = Discrete().cells(where, [(2, 4)], (3,))
    assert cells.flatten().tolist() == [4 + 0, 0 + 1, 4 + 2]


def test_the_references_look_half_a_cell_further():
    where = torch.tensor([[0.10, 0.10], [0.15, 0.30], [0.15, 0.20]]).view(1, 1, 1, 3, 2)
    assert Discrete().cells(where, [(2, 4)], (3,)).flatten().tolist() == [0, 0, 0]
    assert Discrete(shift=0.5).cells(where, [(2, 4)], (3,)).flatten().tolist() == [0, 5, 1]


def test_discrete_takes_the_nearest_border_cell_outside_on_a_rectangle():
    where = torch.tensor([[-9.0, 0.1], [9.0, 9.0], [0.6, -1.0]]).view(1, 1, 1, 3, 2)
    assert Discrete().cells(where, [(2, 5)], (3,)).flatten().tolist() == [0, 9, 3]


def test_levels_do_not_read_each_other():
    shapes, points = [(3, 3), (2, 2)], (1, 1)
    for sampler in (Bilinear(), Discrete(), Naive()):
        value, plan = case(shapes, points, spread=0.9)
        plan.weights[..., 1] = 0
        out = sampler(value, shapes, points, plan)
        value[:, 9:] = 1e6
        assert torch.equal(sampler(value, shapes, points, plan), out)


def test_a_gather_has_no_gradient_by_its_index():
    shapes, points = [(3, 4)], (2,)
    value, plan = case(shapes, points)
    inputs = [t.requires_grad_() for t in (value, plan.locations, plan.weights)]
    Discrete()(value, shapes, points, plan).sum().backward()
    assert [t.grad is None for t in inputs] == [False, True, False]
    assert [s.trains_offsets for s in (Bilinear, Naive, Discrete)] == [True, True, False]


def test_the_call_checks_the_shapes_of_a_readers_own_sampler():
    class Transposed(Sampler):
        def read(self, value, shapes, points, plan):
            return Bilinear()(value, shapes, points, plan).double()[..., 0]

    value, plan = case([(3, 4)], (2,))
    with pytest.raises(TypeCheckError, match="return value"):
        Transposed()(value, [(3, 4)], (2,), plan)
    with pytest.raises(TypeCheckError, match="value"):
        Bilinear()(value[0], [(3, 4)], (2,), plan)
    with pytest.raises(TypeError, match="read"):
        Sampler()
