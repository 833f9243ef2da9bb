"""The parity check sees: change any one tensor by 1 % and it fails.

Kinds of tensors are the names with their numbers left out; the last of each kind is
changed, with --full every one.
"""

import re
from functools import lru_cache

import pytest
import torch
from oracle import THEIRS, answer, by_token, error, preset, twins

TOLERANCE = 1e-9  # of test_rtdetr.py
MARGIN = 100

# What no picture in eval mode can show: counters, labels of denoising queries (they are checked in
# test_training_mode.py), and a bias that moves all scores of a query alike before a softmax.
INVISIBLE = r"num_batches_tracked|denoising\.|k_proj\.bias"


def kinds(size):
    """Kind → the names of its tensors in a preset."""
    with torch.device("meta"):
        names = [n for n in preset(size).build().state_dict() if not re.search(INVISIBLE, n)]
    found = {}
    for name in names:
        found.setdefault(re.sub(r"\d+", "N", name), []).append(name)
    return found


BOTTLENECK_ONLY = {k: n for k, n in kinds("r50").items() if k not in kinds("r18")}
CASES = [("r18", names[-1]) for names in kinds("r18").values()]
FULL = [("r18", name) for names in kinds("r18").values() for name in names[:-1]]
FULL += [("r50", name) for names in BOTTLENECK_ONLY.values() for name in names]


@lru_cache(maxsize=1)
def right(size):
    """What both say while their weights agree."""
    images = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(1)).double()
    model, ours = twins(size, "v1", 100)
    expected = answer(model, images)
    assert max(error(answer(ours, images), expected).values()) <= TOLERANCE
    return images, ours, expected


@pytest.mark.parametrize(
    ("size", "name"),
    [*CASES, *(pytest.param(*case, marks=pytest.mark.full) for case in FULL)],
    ids=str,
)
def test_one_percent_of_one_tensor_is_noticed(size, name):
    images, ours, expected = right(size)
    tensor = ours.state_dict()[name]
    before = tensor.clone()
    try:
        tensor *= 1.01
        wrong = answer(ours, images)
    finally:
        tensor.copy_(before)
    noticed = by_token(wrong, expected)[2] < 1 or max(error(wrong, expected).values())
    assert noticed > MARGIN * TOLERANCE


def test_every_module_of_every_preset_is_of_a_kind_tested():
    tested = {*kinds("r18"), *BOTTLENECK_ONLY}
    assert all(set(kinds(size)) <= tested for size in THEIRS)
    assert len(CASES) > 100
