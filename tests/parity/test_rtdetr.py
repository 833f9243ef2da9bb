"""The same weights give the same answer in transformers and here: every layer, every size.

The oracle is transformers (RT-DETR and RT-DETRv2). fp64 decides; in fp32 we may be at most twice as
far from the oracle's fp64 as its own fp32 is. Queries are compared by the token they hold.
"""

from itertools import product

import pytest
import torch
from oracle import (
    THEIRS,
    VERSIONS,
    answer,
    by_token,
    error,
    preset,
    same_weights,
    spread,
    theirs,
    twins,
)

from rtdetr_lab.config import replace_at
from rtdetr_lab.rtdetrv2 import discrete, with_points

SHAPES = [(640, 640), (320, 320), (256, 384), (384, 256)]
full = pytest.mark.full


def some(value):
    """A case that the cut leaves out."""
    return pytest.param(value, marks=full)


def cases():
    """The cut: r18 in all shapes, every size on small pictures. The rest with --full."""
    found = []
    for version in VERSIONS:
        for size in THEIRS:
            marks = () if version == "v1" or size in ("r18", "r50") else full
            found.append(pytest.param(size, version, 2, (96, 128), 100, marks=marks))
            for shape, batch in product(SHAPES, (1, 2)):
                alone = shape == (640, 640) or (shape == (256, 384)) == (version == "v1")
                cut = size == "r18" and batch == (1 if alone else 2)
                marks = () if cut else full
                found.append(pytest.param(size, version, batch, shape, 300, marks=marks))
    return found


@pytest.mark.parametrize(("size", "version", "batch", "shape", "num_queries"), cases())
def test_every_number_is_theirs(size, version, batch, shape, num_queries, rng):
    model, ours = twins(size, version, num_queries)
    images = torch.rand(batch, 3, *shape, generator=rng)
    exact = answer(model, images.double())
    mine = answer(ours, images.double())
    assert torch.equal(mine["index"], exact["index"])
    assert max(error(mine, exact).values()) <= 1e-9

    rounded, mine = answer(model, images), answer(ours, images)
    kept = min(by_token(side, exact)[2] for side in (rounded, mine))
    assert kept >= 0.95, "hardly a token may be lost to rounding"
    if kept < 1:  # but one lost changes what all others hear: both are asked about the same
        rounded, mine = (answer(m, images, exact["index"]) for m in (model, ours))
    allowed, got = error(rounded, exact), error(mine, exact)
    assert {n: e for n, e in got.items() if not e <= 2 * allowed[n] + 1e-6} == {}


@pytest.mark.parametrize("size", ["r18", some("r50")])
def test_the_answers_compared_are_not_all_alike(size, rng):
    """What makes the test above worth running: pictures, queries and layers differ."""
    model, _ = twins(size, "v1", 100)
    out = answer(model, torch.rand(2, 3, 96, 128, generator=rng).double())
    assert out["logits"].std() > 0.5
    assert out["logits"].std(dim=1).mean() > 0.1
    assert out["boxes"].std(dim=1).mean() > 0.05
    assert (out["layer boxes"][:, :, 1:] - out["layer boxes"][:, :, :-1]).abs().mean() > 0.005
    assert (out["boxes"][0] - out["boxes"][1]).abs().mean() > 0.01


def pair(points=4, shift=None):
    """v2 with other points or discrete sampling: theirs, made to, and ours, asked to."""
    uneven = isinstance(points, tuple)
    model = theirs(
        "r18",
        "v2",
        num_queries=100,
        decoder_n_points=4 if uneven else points,
        decoder_method="default" if shift is None else "discrete",
    )
    if uneven:
        set_points(model, points)
    cfg = with_points(replace_at(preset("r18", "v2"), "selection.num_queries", 100), points)
    cfg = cfg if shift is None else discrete(cfg, shift)
    spread(model)
    return model, same_weights(model, cfg)


def set_points(model, points):
    """Their code takes a list of points and their configuration does not: set what it sets."""
    for layer in model.model.decoder.layers:
        attention = layer.encoder_attn
        heads, total, width = attention.n_heads, sum(points), attention.d_model
        attention.n_levels, attention.n_points, attention.n_points_list = 1, total, list(points)
        scale = [1 / n for n in points for _ in range(n)]
        attention.n_points_scale = torch.nn.Buffer(torch.tensor(scale))
        attention.sampling_offsets = torch.nn.Linear(width, heads * total * 2)
        attention.attention_weights = torch.nn.Linear(width, heads * total)


@pytest.mark.parametrize("points", [1, some(2), some(8), (4, 2, 1)], ids=str)
def test_v2_with_powers_of_two_is_theirs_exactly(points, rng):
    model, ours = pair(points)
    images = torch.rand(1, 3, 96, 128, generator=rng)
    assert (
        max(error(answer(ours, images.double()), answer(model, images.double())).values()) <= 1e-9
    )


@pytest.mark.parametrize("points", [3, some((3, 2, 1)), (5, 4, 3)], ids=str)
def test_v2_with_other_splits_differs_by_their_rounded_scale(points, rng):
    """They keep 1/n as an fp32 buffer, we divide."""
    model, ours = pair(points)
    images = torch.rand(1, 3, 96, 128, generator=rng)
    off = error(answer(ours, images.double()), answer(model, images.double()))
    assert max(off["proposal logits"], off["proposal boxes"]) <= 1e-9
    assert 1e-9 < max(off["logits"], off["boxes"]) < 1e-5

    for layer in model.model.decoder.layers:  # and by nothing else
        attention = layer.encoder_attn
        counts = [n for n in attention.n_points_list for _ in range(n)]
        attention.n_points_scale = torch.nn.Buffer(1 / torch.tensor(counts).double())
    assert (
        max(error(answer(ours, images.double()), answer(model, images.double())).values()) <= 1e-9
    )


@pytest.mark.parametrize("shape", [(128, 128), (96, 128), (160, 96)], ids=str)
def test_discrete_sampling_is_theirs_on_squares_and_rectangles(shape, rng):
    model, ours = pair(shift=0.5)
    images = torch.rand(2, 3, *shape, generator=rng)
    mine, exact = answer(ours, images.double()), answer(model, images.double())
    assert max(error(mine, exact).values()) <= 1e-9

    wrong = same_weights(model, discrete(ours.cfg, shift=0.0))
    assert error(answer(wrong, images.double()), exact)["logits"] > 1e-3


def test_more_levels_than_maps_follow_their_projections(rng):
    """A fourth level comes from the third by a convolution with stride 2."""
    model = theirs("r18", num_queries=100, num_feature_levels=4)
    cfg = replace_at(preset("r18"), "selection.num_queries", 100)
    spread(model)
    ours = same_weights(model, replace_at(cfg, "decoder.num_levels", 4))
    images = torch.rand(1, 3, 96, 128, generator=rng)
    assert (
        max(error(answer(ours, images.double()), answer(model, images.double())).values()) <= 1e-9
    )
