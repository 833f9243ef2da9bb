"""Denoising: how many queries, how far off, who sees whom, and what happens without objects."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rtdetr_lab.boxes import xyxy_from_cxcywh
from rtdetr_lab.denoising import DenoisingConfig, who_may_not_see
from rtdetr_lab.errors import ConfigError
from rtdetr_lab.structures import Targets

NUM_CLASSES = 5


def targets_of(*counts, size=0.2):
    """Boxes in the middle of the picture, so that no noise leaves it."""
    return Targets.of(
        {
            "labels": torch.arange(count) % NUM_CLASSES,
            "boxes": torch.tensor([0.5, 0.5, size, size / 2]).repeat(count, 1),
        }
        for count in counts
    )


def noised(targets, num_matching=3, **settings):
    return DenoisingConfig(**settings).build(NUM_CLASSES, dim=8)(targets, num_matching)


@pytest.mark.parametrize(
    ("num_objects", "num_queries"), [(1, 200), (7, 196), (49, 196), (51, 102), (100, 200)]
)
def test_about_200_queries_come_out_whatever_the_number_of_objects(num_objects, num_queries):
    """Eq. 12.3"""
    batch = noised(targets_of(num_objects, 1))
    assert batch.num_queries == num_queries
    assert batch.num_groups == max(1, 100 // num_objects)
    assert batch.is_positive.sum(1).tolist() == [num_queries // 2, batch.num_groups]


def relative_error(batch, targets):
    """|corner - true corner| in units of the object's width or height, per row of one picture;
    NaN along an axis where the corners passed each other."""
    true = targets.boxes[0][batch.target_index[0]]
    boxes = batch.reference_logits[0].sigmoid()
    off = (xyxy_from_cxcywh(boxes) - xyxy_from_cxcywh(true)).abs() / true[:, 2:].repeat(1, 2)
    return off.masked_fill(boxes[:, 2:].repeat(1, 2) < 1e-4, torch.nan)


@pytest.mark.parametrize("box_noise", [1.0, 0.4])
def test_positives_miss_by_less_than_half_a_box_and_negatives_by_more(box_noise):
    """Eq. 12.1"""
    targets = targets_of(10)
    batch = noised(targets, num_queries=1000, max_queries=2000, box_noise=box_noise)
    off = relative_error(batch, targets) / box_noise
    positive, negative = off[batch.is_positive[0]], off[~batch.is_positive[0]]
    assert len(positive) == len(negative) == 1000
    assert not positive.isnan().any()
    collapsed = negative.isnan().float().mean().item()
    assert collapsed == pytest.approx(0.25 if box_noise == 1 else 0, abs=0.03)
    negative = negative[~negative.isnan()]
    assert 0.49 < positive.max() < 0.5001
    assert 0.4999 < negative.min() < 0.51
    assert 0.99 < negative.max() < 1.0001
    assert positive.mean() == pytest.approx(0.25, abs=0.01)


def test_no_noised_box_leaves_the_picture():
    targets = Targets.of(
        [{"labels": [0, 1], "boxes": [[0.5, 0.5, 1.0, 1.0], [0.1, 0.1, 0.2, 0.2]]}]
    )
    corners = xyxy_from_cxcywh(noised(targets).reference_logits.sigmoid())
    assert -1e-4 < corners.min() < 0.01
    assert 0.99 < corners.max() < 1 + 1e-4


def test_without_box_noise_every_copy_is_the_object():
    targets = targets_of(4)
    assert relative_error(noised(targets, box_noise=0.0), targets).max() < 1e-5


@pytest.mark.parametrize(("label_noise", "share"), [(0.0, 0.0), (0.5, 0.25), (2.0, 1.0)])
def test_half_the_label_noise_is_the_share_of_labels_drawn_anew(label_noise, share):
    targets = targets_of(10)
    batch = noised(targets, num_queries=2000, max_queries=10_000, label_noise=label_noise)
    changed = batch.labels != targets.labels[0][batch.target_index]
    # One in five is drawn as what it was.
    expected = share * (1 - 1 / NUM_CLASSES)
    assert changed.float().mean().item() == pytest.approx(expected, abs=0.02)
    assert batch.labels.max() < NUM_CLASSES


def test_the_content_is_the_embedding_of_the_label_shown():
    module = DenoisingConfig().build(NUM_CLASSES, dim=8)
    batch = module(targets_of(3, 1), 4)
    assert torch.equal(batch.content, module.label_embedding.weight[batch.labels])


def test_the_embedding_starts_normal_with_a_row_of_zeros_for_padding():
    weight = DenoisingConfig().build(80, dim=256).label_embedding.weight
    assert weight.shape == (81, 256)
    assert not weight[80].any()
    assert weight[:80].std().item() == pytest.approx(1, abs=0.02)
    assert weight[:80].mean().item() == pytest.approx(0, abs=0.02)


def test_every_row_knows_its_object_and_padding_says_so():
    batch = noised(targets_of(3, 1, 0), num_queries=6)
    assert batch.num_groups == 2
    assert batch.target_index.tolist() == [[0, 1, 2] * 4, [0, -1, -1] * 4, [-1] * 12]
    assert batch.is_positive.tolist() == [
        ([True] * 3 + [False] * 3) * 2,
        ([True] + [False] * 5) * 2,
        [False] * 12,
    ]
    assert torch.equal(batch.labels == NUM_CLASSES, batch.target_index < 0)


# --- who sees whom ------------------------------------------------------------------------------


@given(size=st.integers(1, 5), num_groups=st.integers(1, 4), num_matching=st.integers(0, 6))
@settings(max_examples=30)
def test_groups_are_closed_and_matching_queries_see_no_denoising(size, num_groups, num_matching):
    """Eq. 12.2"""
    blocked = who_may_not_see(size, num_groups, num_matching)
    count = 2 * size * num_groups
    assert blocked.shape == (count + num_matching, count + num_matching)
    for i in range(len(blocked)):
        for j in range(len(blocked)):
            matching_sees_denoising = i >= count > j
            other_group = i < count and j < count and i // (2 * size) != j // (2 * size)
            assert blocked[i, j] == (matching_sees_denoising or other_group)


def test_no_query_is_left_without_anything_to_see():
    assert not who_may_not_see(2, 3, 4).all(dim=1).any()


def test_the_mask_fits_the_queries():
    batch = noised(targets_of(3, 1), num_matching=9)
    assert len(batch.blocked) == batch.num_queries + 9


# --- crowds and empty batches -------------------------------------------------------------------


@given(counts=st.lists(st.integers(0, 40), min_size=1, max_size=3), cap=st.integers(2, 30))
@settings(max_examples=40)
def test_the_cap_holds_whatever_the_crowd(counts, cap):
    batch = noised(targets_of(*counts), num_queries=20, max_queries=cap)
    assert batch.num_queries <= cap
    shown = min(max(counts), cap // 2)
    for row, index, count in zip(batch.is_positive, batch.target_index, counts, strict=True):
        assert len(set(index[row].tolist())) == min(count, max(shown, 0))
        assert row.sum() == min(count, shown) * batch.num_groups


def test_700_objects_make_600_queries_by_default_and_other_ones_each_time():
    targets = targets_of(700)
    module = DenoisingConfig().build(NUM_CLASSES, dim=8)
    first, second = module(targets, 1), module(targets, 1)
    assert first.num_queries == 600
    assert set(first.target_index[0].tolist()) != set(second.target_index[0].tolist())


def test_the_cap_draws_nothing_where_it_does_not_bite():
    targets = targets_of(5)
    torch.manual_seed(1)
    free = noised(targets, max_queries=10_000)
    torch.manual_seed(1)
    assert torch.equal(noised(targets, max_queries=200).reference_logits, free.reference_logits)


def test_a_batch_without_objects_is_one_group_of_padding_with_a_gradient_of_zero():
    module = DenoisingConfig().build(NUM_CLASSES, dim=8)
    batch = module(targets_of(0, 0), 4)
    assert batch.num_queries == 2
    assert batch.num_groups == 1
    assert not batch.is_positive.any()
    assert (batch.target_index == -1).all()
    batch.content.sum().backward()
    assert torch.equal(module.label_embedding.weight.grad, torch.zeros(NUM_CLASSES + 1, 8))


@pytest.mark.parametrize(
    "settings",
    [{"num_queries": 0}, {"max_queries": 1}, {"label_noise": 2.1}, {"box_noise": -0.1}],
)
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises(ConfigError, match="denoising"):
        DenoisingConfig(**settings)
