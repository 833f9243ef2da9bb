"""Structures: bad batches are named, moves lose nothing, and assignments index what they say."""

from dataclasses import replace

import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory

from rtdetr_lab import structures
from rtdetr_lab.errors import ImageError, TargetError
from rtdetr_lab.structures import (
    Assignment,
    Batch,
    CDNBatch,
    LayerPrediction,
    Prediction,
    Proposals,
    Targets,
    check_batch,
)
from rtdetr_lab.structures.target_checks import check_pictures

GOOD = {"labels": [0, 1], "boxes": [[0.5, 0.5, 0.2, 0.3], [0.1, 0.2, 0.1, 0.2]]}
NONE = {"labels": [], "boxes": []}


def targets_with(box, **more):
    return Targets.of(
        [NONE, GOOD, {"labels": [2, 0], "boxes": [[0.5, 0.5, 0.1, 0.1], box], **more}]
    )


# --- targets ------------------------------------------------------------------------------------


def test_targets_are_made_from_lists_arrays_or_tensors():
    import numpy as np

    for kind in (list, np.array, torch.tensor):
        targets = Targets.of([{k: kind(v) for k, v in GOOD.items()}, NONE])
        assert targets.counts == [2, 0]
        assert targets.num_boxes == 2
        assert len(targets) == 2
        assert targets.labels[0].tolist() == [0, 1]
        assert targets.labels[0].dtype == torch.long
        assert targets.boxes[0].is_floating_point()
        assert targets.boxes[1].shape == (0, 4)
        assert targets.masks is None


@pytest.mark.parametrize(
    ("box", "what"),
    [
        ([320.0, 240.0, 50.0, 40.0], "divide pixels"),
        ([0.9, 0.5, 0.1, 1.2], "divide pixels"),
        ([-0.2, 0.5, 0.1, 0.2], "divide pixels"),
        ([0.5, 0.5, 0.0, 0.2], "no width or no height"),
        ([0.5, 0.5, 0.2, -0.0005], "no width or no height"),
        ([float("nan"), 0.5, 0.1, 0.2], "not finite"),
        ([0.5, 0.5, 0.1, float("inf")], "not finite"),
    ],
)
def test_a_bad_box_is_refused_by_picture_and_number(box, what):
    with pytest.raises(TargetError, match=what) as caught:
        targets_with(box)
    assert caught.value.where == "targets.boxes[2][1]"


def test_rounding_may_put_a_box_a_little_outside():
    assert targets_with([0.5, 0.5, 1.0005, 1.0]).num_boxes == 4


@pytest.mark.parametrize(
    ("labels", "boxes", "masks", "where", "what"),
    [
        ((2,), (2, 1), None, "targets", "1 pictures have labels and 2 have boxes"),
        ((2, 1), (2, 1), (2,), "targets", "2 pictures have labels and 1 have masks"),
        ((2, 1), (2, 3), None, "targets.boxes[1]", "3 boxes and 1 labels"),
        ((2, 1), (2, 1), (2, 2), "targets.boxes[1]", "1 boxes and 1 labels and 2 masks"),
    ],
)
def test_counts_that_disagree_are_refused(labels, boxes, masks, where, what):
    with pytest.raises(TargetError, match=what) as caught:
        Targets(
            tuple(torch.zeros(n, dtype=torch.long) for n in labels),
            tuple(torch.full((n, 4), 0.5) for n in boxes),
            masks and tuple(torch.zeros(n, 2, 2, dtype=torch.bool) for n in masks),
        )
    assert caught.value.where == where


def test_boxes_of_another_shape_are_refused():
    """Asked of the check itself: the shape in the signature would stop it first, but only here."""
    for boxes in (torch.rand(2, 5), torch.rand(8)):
        with pytest.raises(TargetError, match="has shape"):
            check_pictures((torch.zeros(2, dtype=torch.long),), (boxes,), None)


@pytest.mark.parametrize("label", [-1, 3, 91])
def test_a_label_without_a_class_is_named(label):
    targets = Targets.of([NONE, GOOD, {**GOOD, "labels": [2, label]}])
    with pytest.raises(TargetError, match=f"label {label} is outside 0 … 2") as caught:
        targets.check_labels(3)
    assert caught.value.where == "targets.labels[2][1]"
    Targets.of([GOOD, NONE]).check_labels(2)
    Targets.of([]).check_labels(2)


def test_a_move_takes_everything_along_and_a_dtype_changes_boxes_only():
    targets = Targets.of([{**GOOD, "masks": torch.ones(2, 3, 3)}])
    moved = targets.to("meta", torch.float64)
    assert isinstance(moved, Targets)
    tensors = (*moved.labels, *moved.boxes, *moved.masks)
    assert {t.device.type for t in tensors} == {"meta"}
    assert [t.dtype for t in tensors] == [torch.long, torch.float64, torch.bool]
    assert torch.equal(targets.to(torch.float64).boxes[0].float(), targets.boxes[0])


def test_a_batch_is_looked_at_when_it_is_made_and_not_again_on_a_move(monkeypatch):
    targets = Targets.of([GOOD])
    twice = lambda *_: pytest.fail("checked twice")  # noqa: E731
    monkeypatch.setattr(structures.targets, "check_pictures", twice)
    targets.to(torch.float64)
    with pytest.raises(pytest.fail.Exception):
        Targets.of([GOOD])


# --- a batch of a training step -----------------------------------------------------------------


def batch_of_three():
    """Three pictures on one canvas, with masks and names; the second holds no object."""
    masks = torch.rand(2, 8, 12) < 0.5
    drawn = [{**GOOD, "masks": masks}, {**NONE, "masks": masks[:0]}, {**GOOD, "masks": ~masks}]
    targets = replace(Targets.of(drawn), pictures=("a", "b", "c"))
    return Batch(torch.rand(3, 3, 8, 12), targets, torch.rand(3, 8, 12) < 0.5)


def tensors_of(batch):
    targets = batch.targets
    return [batch.images, batch.padding, *targets.labels, *targets.boxes, *targets.masks]


def test_some_pictures_of_a_batch_keep_all_that_belongs_to_them():
    batch = batch_of_three()
    part = batch[1:3]
    assert (len(batch), len(part)) == (3, 2)
    assert torch.equal(part.images, batch.images[1:])
    assert torch.equal(part.padding, batch.padding[1:])
    assert part.targets.pictures == ("b", "c")
    assert part.targets.counts == [0, 2]
    assert torch.equal(part.targets.masks[1], batch.targets.masks[2])
    assert Batch(batch.images, Targets.of([GOOD, NONE, GOOD]))[:2].padding is None


def test_a_batch_moves_as_a_whole_and_pictures_arrive_channels_last():
    batch = batch_of_three()
    moved = batch.to("meta", non_blocking=True)
    assert {t.device.type for t in tensors_of(moved)} == {"meta"}
    here = batch.to("cpu")
    assert here.images.is_contiguous(memory_format=torch.channels_last)
    assert all(map(torch.equal, tensors_of(here), tensors_of(batch)))


def test_all_of_a_batch_is_pinned_by_the_loader(monkeypatch):
    batch, pinned = batch_of_three(), []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda t: pinned.append(t) or t.clone())
    copy = pin_memory(batch)
    assert {id(t) for t in pinned} == {id(t) for t in tensors_of(batch)}
    assert all(map(torch.equal, tensors_of(copy), tensors_of(batch)))
    assert copy.targets.pictures == batch.targets.pictures


def test_a_batch_is_no_tuple():
    for record in (batch_of_three(), batch_of_three().targets):
        with pytest.raises(TypeError):
            _, _, _ = record


# --- a batch for a model ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "images",
    [
        torch.rand(2, 1, 8, 8),
        torch.rand(3, 8, 8),
        torch.zeros(2, 3, 8, 8, dtype=torch.uint8),
    ],
    ids=["one channel", "no batch", "whole numbers"],
)
def test_images_that_are_no_batch_of_rgb_floats_are_refused(images):
    with pytest.raises(ImageError, match="images"):
        check_batch(images, None, 3)


def test_images_and_targets_must_be_as_many():
    with pytest.raises(ImageError, match="2 pictures and 1 targets"):
        check_batch(torch.rand(2, 3, 8, 8), Targets.of([GOOD]), 3)
    check_batch(torch.rand(2, 3, 8, 8), Targets.of([GOOD, NONE]), 3)


# --- records ------------------------------------------------------------------------------------


def test_an_assignment_indexes_predictions_and_gathers_targets():
    assignment = Assignment(
        (torch.tensor([1, 3]), torch.tensor([], dtype=torch.long), torch.tensor([0])),
        (torch.tensor([1, 0]), torch.tensor([], dtype=torch.long), torch.tensor([2])),
    )
    assert len(assignment) == 3
    logits = torch.arange(3 * 4).view(3, 4)
    assert logits[assignment.flat].tolist() == [1, 3, 8]
    labels = [torch.tensor([10, 11]), torch.tensor([]).long(), torch.tensor([20, 21, 22])]
    assert assignment.gather(labels).tolist() == [11, 10, 22]


def test_proposals_can_be_judged_as_a_layer():
    index = torch.zeros(1, 2, dtype=torch.long)
    proposals = Proposals(index, torch.rand(1, 2, 3), torch.rand(1, 2, 4))
    assert proposals.layer.logits is proposals.logits
    assert proposals.layer.boxes is proposals.boxes


def test_records_are_compared_by_identity():
    """Comparing tensors by value has no single truth value, and would raise."""
    layer = LayerPrediction(torch.rand(1, 2, 3), torch.rand(1, 2, 4))
    twin = LayerPrediction(layer.logits, layer.boxes)
    assert layer == layer
    assert layer != twin
    assert len({layer, twin}) == 2


@pytest.mark.parametrize("record", [LayerPrediction, Proposals, CDNBatch, Prediction])
def test_records_are_trees_of_tensors_to_torch(record):
    """What lets `torch.export` carry them in and out of a graph."""
    assert record in torch.utils._pytree.SUPPORTED_NODES


def test_a_prediction_is_taken_apart_and_put_together_again():
    layer = LayerPrediction(torch.rand(1, 2, 3), torch.rand(1, 2, 4))
    prediction = Prediction(layer.logits, layer.boxes, (layer,))
    flat, tree = torch.utils._pytree.tree_flatten(prediction)
    again = torch.utils._pytree.tree_unflatten(flat, tree)
    assert [t.shape for t in flat if t is not None] == [(1, 2, 3), (1, 2, 4)] * 2
    assert again.layers[0].boxes is layer.boxes
