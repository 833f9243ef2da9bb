"""What DETR's numbers become: boxes and segments as transformers' image processor makes them."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from detr_oracle import transformers

from rtdetr_lab.images.panoptic import ByOverlap, instance, panoptic, semantic
from rtdetr_lab.images.postprocess import postprocess
from rtdetr_lab.model import by_softmax
from rtdetr_lab.structures import LayerPrediction, Prediction

postprocess_softmax = partial(postprocess, rank=by_softmax)

SIZES = [(57, 41), (30, 80), (24, 24)]
CLASSES = 4


@pytest.fixture(scope="module")
def processor():
    return transformers.DetrImageProcessorPil()


@pytest.fixture(params=range(5))
def both(request):
    """The same answer as our record and as theirs: smooth masks, some queries sure."""
    rng = torch.Generator().manual_seed(request.param)
    logits = 3 * torch.randn(3, 9, CLASSES + 1, generator=rng)
    boxes = torch.rand(3, 9, 4, generator=rng)
    masks = torch.randn(3, 9, 3, 3, generator=rng)
    masks = 8 * torch.nn.functional.interpolate(masks, (14, 17), mode="bicubic")
    ours = Prediction(logits, boxes, (LayerPrediction(logits, boxes),), masks=masks)
    return ours, SimpleNamespace(logits=logits, pred_boxes=boxes, pred_masks=masks)


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_boxes_scores_and_labels_are_theirs(both, processor, threshold):
    ours, theirs = both
    expected = processor.post_process_object_detection(theirs, threshold, SIZES)
    for found, wanted in zip(postprocess_softmax(ours, SIZES, threshold), expected, strict=True):
        back = found.at(found.queries.argsort())  # theirs come in the order of queries
        assert torch.equal(back.scores, wanted["scores"])
        assert torch.equal(back.labels, wanted["labels"])
        torch.testing.assert_close(back.boxes_xyxy, wanted["boxes"])


def test_semantic_maps_are_theirs(both, processor):
    ours, theirs = both
    expected = processor.post_process_semantic_segmentation(theirs, SIZES)
    for labels, wanted in zip(semantic(ours, SIZES), expected, strict=True):
        assert torch.equal(labels, wanted)
        assert len(labels.unique()) > 1


RULES = {"theirs": {}, "others": {"threshold": 0.3, "mask_threshold": 0.2, "min_kept": 0.4}}


def their_names(rule):
    names = {"min_kept": "overlap_mask_area_threshold"}
    return {names.get(n, n): v for n, v in rule.items()}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_instances_are_theirs(both, processor, rule):
    ours, theirs = both
    expected = processor.post_process_instance_segmentation(
        theirs, target_sizes=SIZES, **their_names(rule)
    )
    for found, wanted in zip(instance(ours, SIZES, ByOverlap(**rule)), expected, strict=True):
        # Theirs says -1 instead of 0 where a whole picture has nothing.
        assert torch.equal(found.ids, wanted["segmentation"].long().clamp(min=0))
        listed = [(s["id"], s["label_id"], s["score"]) for s in wanted["segments_info"]]
        assert [(s.id, s.label, round(s.score, 6)) for s in found.segments] == listed


@pytest.mark.parametrize("seed", range(3))
def test_masks_of_boxes_are_their_instances_where_no_pixel_is_wanted_twice(seed, processor):
    drawn = 5 * torch.randn(6, 9, generator=torch.Generator().manual_seed(seed))
    logits = torch.tensor([[[4.0, 0, 0], [0, 4.0, 0]]])
    boxes, masks = torch.full((1, 2, 4), 0.5), torch.stack([drawn, -drawn])[None]
    ours = Prediction(logits, boxes, (), masks=masks)
    theirs = SimpleNamespace(logits=logits, pred_boxes=boxes, pred_masks=masks)
    (found,) = postprocess_softmax(ours, [(57, 41)], with_masks=True)
    (wanted,) = processor.post_process_instance_segmentation(theirs, target_sizes=[(57, 41)])
    numbers = {s["label_id"]: s["id"] for s in wanted["segments_info"]}
    assert len(found) == len(numbers) == 2
    for label, mask in zip(found.labels.tolist(), found.masks, strict=True):
        assert torch.equal(mask, wanted["segmentation"] == numbers[label])


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_panoptic_pictures_are_theirs_up_to_numbers_they_use_twice(both, processor, rule):
    ours, theirs = both
    stuff = {0, 1}
    expected = processor.post_process_panoptic_segmentation(
        theirs, target_sizes=SIZES, label_ids_to_fuse=stuff, **their_names(rule)
    )
    for found, wanted in zip(
        panoptic(ours, SIZES, stuff, ByOverlap(**rule)), expected, strict=True
    ):
        # After joining stuff they count on from its number, so that two segments may share one:
        # compare classes, which they still say, and where there is nothing.
        same = wanted["segmentation"].long().clamp(min=0)
        assert torch.equal(found.ids == 0, same == 0)
        classes = {}
        for s in wanted["segments_info"]:
            classes.setdefault(s["id"], set()).add(s["label_id"])
        for segment in found.segments:
            numbers = same[found.ids == segment.id].unique().tolist()
            assert len(numbers) == 1
            assert segment.label in classes[numbers[0]]
        if all(len(labels) == 1 for labels in classes.values()):
            assert len(found.segments) == len(classes)


def test_their_number_for_two_segments(processor):
    """Sky, cat, sky, dog: the dog gets the cat's number. Ours are unique."""
    labels = torch.tensor([0, 1, 0, 2])
    logits = 8 * torch.nn.functional.one_hot(labels, CLASSES + 1).float()[None]
    masks = (16 * torch.eye(4)[None] - 8).unsqueeze(2).expand(-1, -1, 3, -1)
    boxes = torch.full((1, 4, 4), 0.5)
    theirs = SimpleNamespace(logits=logits, pred_boxes=boxes, pred_masks=masks)
    (wanted,) = processor.post_process_panoptic_segmentation(
        theirs, target_sizes=[(3, 4)], label_ids_to_fuse={0}
    )
    assert wanted["segmentation"][0].tolist() == [1, 2, 1, 2]
    ours = Prediction(logits, boxes, (LayerPrediction(logits, boxes),), masks=masks)
    (found,) = panoptic(ours, [(3, 4)], {0})
    assert found.ids[0].tolist() == [1, 2, 1, 3]
