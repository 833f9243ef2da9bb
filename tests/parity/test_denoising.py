"""The same seed spoils the ground truth in the same way: queries, mask, positives and groups.

The oracle is transformers' get_contrastive_denoising_training_group. It draws in the default dtype.
"""

import pytest
import torch

from rtdetr_lab.denoising import DenoisingConfig
from rtdetr_lab.structures import Targets

modeling = pytest.importorskip(
    "transformers.models.rt_detr.modeling_rt_detr",
    reason="transformers, the oracle, is not installed; runs with the extra [dev]",
)

NUM_CLASSES, NUM_MATCHING = 80, 30


@pytest.fixture(params=[torch.float32, torch.float64], ids=["fp32", "fp64"])
def dtype(request):
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


def pictures(counts, rng, dtype):
    for count in counts:
        centre = 0.2 + 0.6 * torch.rand(count, 2, generator=rng, dtype=torch.float64)
        size = 0.02 + 0.35 * torch.rand(count, 2, generator=rng, dtype=torch.float64)
        labels = torch.randint(NUM_CLASSES, (count,), generator=rng)
        yield {"class_labels": labels, "boxes": torch.cat([centre, size], 1).to(dtype)}


def both(counts, cfg, rng, dtype, seed=3):
    """(their four results, our batch) with the same seed and the same embedding."""
    theirs = list(pictures(counts, rng, dtype))
    ours = cfg.build(NUM_CLASSES, dim=16)
    torch.manual_seed(seed)
    expected = modeling.get_contrastive_denoising_training_group(
        theirs, NUM_CLASSES, NUM_MATCHING, ours.label_embedding,
        cfg.num_queries, cfg.label_noise, cfg.box_noise,
    )  # fmt: skip
    torch.manual_seed(seed)
    targets = Targets.of({"labels": p["class_labels"], "boxes": p["boxes"]} for p in theirs)
    return expected, ours(targets, NUM_MATCHING)


CASES = [(1,), (7,), (49, 3), (51,), (100, 0), (2, 0, 5), (300, 10)]


@pytest.mark.parametrize("counts", CASES, ids=str)
def test_the_queries_are_the_same_bits(counts, rng, dtype):
    (content, reference_logits, mask, meta), batch = both(counts, DenoisingConfig(), rng, dtype)
    assert batch.reference_logits.dtype == dtype
    assert torch.equal(batch.content, content)
    assert torch.equal(batch.reference_logits, reference_logits)
    assert torch.equal(batch.blocked, mask == -torch.inf)
    assert batch.num_groups == meta["dn_num_group"]
    assert [batch.num_queries, NUM_MATCHING] == meta["dn_num_split"]
    for row, positive in zip(batch.is_positive, meta["dn_positive_idx"], strict=True):
        assert torch.equal(row.nonzero()[:, 0], positive)


@pytest.mark.parametrize(
    "cfg",
    [
        DenoisingConfig(num_queries=37),
        DenoisingConfig(label_noise=0.0),
        DenoisingConfig(label_noise=1.3),
        DenoisingConfig(box_noise=0.4),
    ],
    ids=str,
)
def test_every_setting_means_the_same(cfg, rng):
    (content, reference_logits, mask, _), batch = both((6, 2), cfg, rng, torch.float32)
    assert torch.equal(batch.content, content)
    assert torch.equal(batch.reference_logits, reference_logits)
    assert torch.equal(batch.blocked, mask == -torch.inf)
