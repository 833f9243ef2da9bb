"""Where DETR's cells think they are, with padding and without."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rtdetr_lab.detr.positions import EPS, LearnedPositions, SinePositions
from rtdetr_lab.errors import ConfigError, ImageError
from rtdetr_lab.layers import sine_2d

sizes = st.tuples(st.integers(1, 6), st.integers(1, 6))


def no_padding(height, width, batch=1):
    return torch.zeros(batch, height, width, dtype=torch.bool)


def naive(padding, dim, temperature=10000.0, scale=2 * math.pi):
    """Eq. 02.2, cell by cell and number by number."""
    height, width = padding.shape
    out = torch.zeros(height, width, dim, dtype=torch.float64)
    for r, c, k in product(range(height), range(width), range(dim // 4)):
        column, row = (~padding[:, c]).tolist(), (~padding[r]).tolist()
        y = scale * sum(column[: r + 1]) / (sum(column) + EPS)
        x = scale * sum(row[: c + 1]) / (sum(row) + EPS)
        for half, angle in enumerate((y, x)):
            at, turned = half * dim // 2 + 2 * k, angle * temperature ** (-4 * k / dim)
            out[r, c, at], out[r, c, at + 1] = math.sin(turned), math.cos(turned)
    return out.flatten(0, 1)


@settings(max_examples=25)
@given(sizes, st.sampled_from([4, 8, 12]), st.data())
def test_the_equation_holds_wherever_the_padding_is(size, dim, data):
    flags = data.draw(st.lists(st.booleans(), min_size=36, max_size=36))
    padding = torch.tensor(flags)[: size[0] * size[1]].view(1, *size)
    got = SinePositions().build(dim)(padding, torch.float64)
    torch.testing.assert_close(got[0], naive(padding[0], dim), rtol=1e-12, atol=1e-12)


def test_temperature_and_scale_do_what_the_equation_says():
    got = SinePositions(temperature=20.0, scale=3.0).build(8)(no_padding(3, 2), torch.float64)
    torch.testing.assert_close(got[0], naive(no_padding(3, 2)[0], 8, 20.0, 3.0))


@given(sizes, sizes)
@settings(max_examples=25)
def test_a_small_picture_on_a_large_canvas_has_the_positions_of_a_picture(small, more):
    (h, w), canvas = small, (small[0] + more[0], small[1] + more[1])
    padding = ~no_padding(*canvas)
    padding[:, :h, :w] = False
    embed = SinePositions().build(8)
    on_canvas = embed(padding).unflatten(1, canvas)[:, :h, :w].flatten(1, 2)
    assert torch.equal(on_canvas, embed(no_padding(h, w)))


def test_it_is_not_the_order_of_rt_detr():
    ours = SinePositions().build(16)(no_padding(4, 5))
    assert not torch.allclose(ours, sine_2d(4, 5, 16), atol=0.1)


def test_half_precision_keeps_the_angles_of_single():
    rough = SinePositions().build(16)(no_padding(50, 50), torch.bfloat16)
    fine = SinePositions().build(16)(no_padding(50, 50))
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - fine).abs().max() < 0.005


def test_learned_positions_are_a_vector_per_column_then_one_per_row():
    model = LearnedPositions(max_cells=5).build(6)
    got = model(no_padding(3, 4, batch=2)).unflatten(1, (3, 4))
    assert got.shape == (2, 3, 4, 6)
    for r in range(3):
        for c in range(4):
            assert torch.equal(got[1, r, c], torch.cat([model.columns[c], model.rows[r]]))
    got.sum().backward()
    assert model.rows.grad[:, 0].tolist() == [8, 8, 8, 0, 0]


def test_a_map_larger_than_what_was_learned_is_refused_by_name():
    with pytest.raises(ImageError, match=r"6×2 cells.*learned for 5"):
        LearnedPositions(max_cells=5).build(6)(no_padding(6, 2))


@pytest.mark.parametrize(("cfg", "dim"), [(SinePositions(), 6), (LearnedPositions(), 5)])
def test_a_width_that_cannot_be_shared_is_refused(cfg, dim):
    with pytest.raises(ConfigError, match=f"dim: {dim} cannot be divided"):
        cfg.build(dim)
