"""Where a query looks, and the mask that becomes of it."""

import math

import pytest
import torch
import torch.nn.functional as F
from small import shaken

from rtdetr_lab.detr.mask_head import ConvGroupNorm, MaskAttention, MaskHead

DIM, HEADS, SIZE = 32, 4, (3, 5)


@pytest.fixture
def attention():
    return shaken(MaskAttention(DIM, HEADS)).double()


def seen():
    return torch.randn(2, 6, DIM).double(), torch.randn(2, 15, DIM).double()


@torch.no_grad()
def test_one_softmax_over_heads_and_cells_together(attention):
    """Eq. 18.1"""
    """The equation, query by query; every query has one unit to share out among all its maps."""
    content, memory = seen()
    got = attention(content, memory, None, SIZE)
    assert got.shape == (2, 6, HEADS, *SIZE)
    for b in range(2):
        for q in range(6):
            a, k = attention.q_proj(content[b, q]), attention.k_proj(memory[b])
            scores = torch.cat(
                [k[:, m : m + 8] @ a[m : m + 8] / math.sqrt(8) for m in range(0, DIM, 8)]
            )
            torch.testing.assert_close(got[b, q].flatten(), scores.softmax(0))


@torch.no_grad()
def test_no_query_looks_at_padding(attention):
    content, memory = seen()
    padding = torch.zeros(2, *SIZE, dtype=torch.bool)
    padding[1, 1:] = True
    got = attention(content, memory, padding, SIZE)
    assert (got[1, :, :, 1:] == 0).all()
    torch.testing.assert_close(got.flatten(2).sum(-1), torch.ones(2, 6).double())
    alone = attention(content[1:], memory[1:, :5], None, (1, 5))
    torch.testing.assert_close(got[1:, :, :, :1], alone)


@torch.no_grad()
def test_the_share_of_the_picture_may_be_computed_once():
    """A convolution is linear: the same as laying both side by side for every query."""
    conv = shaken(ConvGroupNorm(12 + 4, 16)).double()
    shared, own = torch.randn(2, 12, 5, 6).double(), torch.randn(2, 7, 4, 5, 6).double()
    together = torch.cat([shared.unsqueeze(1).expand(-1, 7, -1, -1, -1), own], dim=2)
    torch.testing.assert_close(conv.blend(shared, own), conv(together.flatten(0, 1)))


def head(dim=DIM, channels=(12, 10, 8)):
    return shaken(MaskHead(dim, HEADS, channels)).double()


def maps():
    return [torch.randn(2, c, 5 * n, 6 * n).double() for c, n in ((12, 2), (10, 4), (8, 8))]


@torch.no_grad()
def test_every_query_gets_its_own_mask_of_the_size_of_the_finest_map():
    model, projected, finer = head(), torch.randn(2, DIM, 5, 6).double(), maps()
    attention = torch.rand(2, 7, HEADS, 5, 6).double()
    masks = model(projected, attention, finer)
    assert masks.shape == (2, 7, 40, 48)
    order = torch.randperm(7)
    torch.testing.assert_close(model(projected, attention[:, order], finer), masks[:, order])
    one = model(projected[1:], attention[1:, 3:4], [m[1:] for m in finer])
    torch.testing.assert_close(one, masks[1:, 3:4])


@torch.no_grad()
def test_a_level_is_nearest_enlargement_plus_the_finer_map_then_a_look():
    level, x, finer = head().levels[0], torch.randn(6, 16, 3, 4).double(), torch.randn(2, 12, 7, 8)
    finer = finer.double()
    by_hand = F.interpolate(x, (7, 8)) + level.adapt(finer).repeat_interleave(3, dim=0)
    torch.testing.assert_close(level(x, finer), level.refine(by_hand))


@pytest.mark.parametrize("dim", [16, 32, 48, 96])
def test_group_norm_has_eight_groups_or_as_many_as_fit(dim):
    for module in head(dim).modules():
        if isinstance(module, torch.nn.GroupNorm):
            assert module.num_groups == math.gcd(8, module.num_channels)
