"""Masks of queries, drawn by hand, and what every pixel becomes."""

from dataclasses import replace

import pytest
import torch

from rtdetr_lab.errors import ImageError
from rtdetr_lab.images.panoptic import ByArea, ByOverlap, instance, panoptic, semantic
from rtdetr_lab.structures import LayerPrediction, Prediction

CAT, DOG, SKY = 0, 1, 2
NOTHING = 3
SURE = 0.97


def answer(*queries):
    """One picture of queries (label, score, rows of a mask: the digits are tenths of belief)."""
    logits, masks = [], []
    for label, score, drawing in queries:
        share = torch.full((4,), (1 - score) / 3)
        share[label] = score
        logits.append(share.log())
        rows = [[(int(c) + 0.5) / 10 for c in row] for row in drawing.split()]
        masks.append(torch.tensor(rows).logit())
    logits, masks = torch.stack(logits)[None], torch.stack(masks)[None]
    boxes = torch.full((1, len(queries), 4), 0.5)
    return Prediction(logits, boxes, (LayerPrediction(logits, boxes),), masks=masks)


def drawn(segments):
    return ["".join(map(str, row)) for row in segments.ids.tolist()]


LEFT, RIGHT, ALL = "9900 9900 9900", "0099 0099 0099", "9999 9999 9999"
SIZE = [(3, 4)]


def test_two_objects_side_by_side():
    (found,) = instance(answer((CAT, SURE, LEFT), (DOG, SURE, RIGHT)), SIZE)
    assert drawn(found) == ["1122"] * 3
    assert [(s.id, s.label, s.query) for s in found.segments] == [(1, CAT, 0), (2, DOG, 1)]
    assert found.segments[0].score == pytest.approx(SURE)


def test_an_rtdetr_judges_every_class_alone_so_its_last_one_is_an_object_too():
    out = answer((CAT, SURE, LEFT), (NOTHING, SURE, RIGHT))
    out = replace(out, logits=out.logits + 5)
    (found,) = panoptic(out, SIZE, alone=True)
    assert drawn(found) == ["1122"] * 3
    assert [s.label for s in found.segments] == [CAT, 3]
    best = out.logits[0].amax(-1).sigmoid().tolist()
    assert [s.score for s in found.segments] == pytest.approx(best)
    (same,) = instance(out, SIZE, alone=True)
    assert drawn(same) == drawn(found)


def test_the_strongest_has_a_pixel_however_weak_it_is():
    (found,) = instance(answer((CAT, SURE, LEFT)), SIZE)
    assert drawn(found) == ["1111"] * 3


def test_who_says_nothing_or_is_unsure_has_no_pixel():
    out = answer((NOTHING, SURE, ALL), (DOG, 0.4, ALL), (CAT, 0.6, ALL))
    (found,) = panoptic(out, SIZE)
    assert drawn(found) == ["1111"] * 3
    assert [(s.label, s.query) for s in found.segments] == [(CAT, 2)]
    (nobody,) = panoptic(answer((NOTHING, SURE, ALL)), SIZE)
    assert drawn(nobody) == ["0000"] * 3
    assert nobody.segments == ()


def test_who_keeps_too_little_of_its_own_mask_is_out_and_its_pixels_are_nobodys():
    most, all_of_it = "8888 8888 8880", "9999 0000 0009"
    out = answer((CAT, SURE, most), (DOG, SURE, all_of_it))
    (found,) = instance(out, SIZE)
    assert drawn(found) == ["1111", "0000", "0001"]
    (found,) = instance(out, SIZE, ByOverlap(min_kept=0.5))
    assert drawn(found) == ["2222", "1111", "1112"]


def test_who_keeps_just_the_least_of_its_own_mask_is_out():
    out = answer((CAT, SURE, "7777 7777 7777"), (DOG, SURE, LEFT))
    for least, wanted in ((0.5, "1100"), (0.49, "2211")):
        (found,) = panoptic(out, SIZE, rule=ByOverlap(min_kept=least))
        assert drawn(found) == [wanted] * 3


def test_the_mask_threshold_decides_what_a_mask_is():
    faint = "4444 4444 4444"
    assert instance(answer((CAT, SURE, faint)), SIZE)[0].segments == ()
    assert len(
        instance(answer((CAT, SURE, faint)), SIZE, ByOverlap(mask_threshold=0.4))[0].segments
    )
    sharp = ByOverlap(threshold=0.98)
    assert instance(answer((CAT, SURE, ALL)), SIZE, sharp)[0].segments == ()


def test_equal_stuff_is_one_segment_and_numbers_stay_unique():
    """Sky, cat, sky again, dog: transformers would give the dog the number of the cat."""
    out = answer(
        (SKY, SURE, "9000 9000 9000"),
        (CAT, SURE, "0900 0900 0900"),
        (SKY, SURE, "0090 0090 0090"),
        (DOG, SURE, "0009 0009 0009"),
    )
    (found,) = panoptic(out, SIZE, stuff={SKY})
    assert drawn(found) == ["1213"] * 3
    assert [(s.id, s.label) for s in found.segments] == [(1, SKY), (2, CAT), (3, DOG)]
    (every,) = instance(out, SIZE)
    assert drawn(every) == ["1234"] * 3


def test_the_authors_rule_wants_surer_queries_and_gives_every_pixel_away():
    out = answer((CAT, 0.9, LEFT), (DOG, 0.8, RIGHT))
    (found,) = panoptic(out, SIZE, rule=ByArea())
    assert drawn(found) == ["1111"] * 3
    (found,) = panoptic(out, SIZE, rule=ByArea(threshold=0.5))
    assert drawn(found) == ["1122"] * 3
    assert panoptic(out, SIZE, rule=ByArea(threshold=0.95))[0].segments == ()


def test_the_authors_rule_drops_what_is_too_small_until_nobody_is():
    dot = "0000 0090 0000"
    out = answer((CAT, SURE, "8888 8888 8888"), (DOG, SURE, dot))
    (found,) = panoptic(out, SIZE, rule=ByArea())
    assert drawn(found) == ["1111"] * 3
    (found,) = panoptic(out, SIZE, rule=ByArea(max_small=0))
    assert drawn(found) == ["1111", "1121", "1111"]


def test_by_the_authors_rule_four_pixels_are_too_few_and_five_are_enough():
    for dog, wanted in (("9900 9900 0000", {CAT}), ("9900 9900 9000", {CAT, DOG})):
        (found,) = panoptic(
            answer((CAT, SURE, "5555 5555 5555"), (DOG, SURE, dog)), SIZE, rule=ByArea()
        )
        assert {s.label for s in found.segments} == wanted


def test_the_authors_join_equal_stuff_in_the_first_pass_only():
    """Two skies: the second is joined to the first, is empty then and dropped, and what was its
    goes to the cat behind it."""
    out = answer(
        (SKY, SURE, "990000 990000 990000"),
        (SKY, SURE, "009900 009900 009900"),
        (CAT, SURE, "005599 005599 005599"),
    )
    (found,) = panoptic(out, [(3, 6)], stuff={SKY}, rule=ByArea())
    assert drawn(found) == ["112222"] * 3
    assert [s.label for s in found.segments] == [SKY, CAT]
    # The other rule never looks a second time: they stay joined.
    (ours,) = panoptic(out, [(3, 6)], stuff={SKY}, rule=ByOverlap(min_kept=0.4))
    assert drawn(ours) == ["111122"] * 3


def test_semantic_never_answers_that_there_is_nothing():
    out = answer((NOTHING, SURE, ALL), (CAT, 0.5, "6666 6666 6666"))
    assert semantic(out, SIZE)[0].tolist() == [[CAT] * 4] * 3


def test_semantic_lets_all_queries_vote():
    """Two half-sure cats outvote a surer dog."""
    out = answer((CAT, 0.5, ALL), (CAT, 0.5, ALL), (DOG, 0.7, LEFT))
    (labels,) = semantic(out, SIZE)
    assert labels.tolist() == [[CAT] * 4] * 3
    (labels,) = semantic(answer((CAT, 0.5, ALL), (DOG, 0.7, LEFT)), SIZE)
    assert labels.tolist() == [[DOG, DOG, CAT, CAT]] * 3


@pytest.mark.parametrize("rule", [ByOverlap(), ByArea(max_small=0)], ids=["overlap", "area"])
def test_masks_grow_to_the_size_of_the_picture(rule):
    out = answer((CAT, SURE, LEFT), (DOG, SURE, RIGHT))
    (found,) = panoptic(out, [(6, 8)], rule=rule)
    assert drawn(found) == ["11112222"] * 6


@pytest.mark.parametrize("rule", [ByOverlap(), ByArea(max_small=0)], ids=["overlap", "area"])
def test_of_a_padded_picture_only_the_picture_is_drawn(rule):
    """A canvas of 12 × 16 with a picture of 12 × 8: what the masks say beside it is not shown."""
    out = answer((CAT, SURE, "9000 9000 9000"), (DOG, SURE, "0900 0900 0900"))
    padding = torch.zeros(1, 12, 16, dtype=torch.bool)
    padding[:, :, 8:] = True
    (found,) = panoptic(out, [(3, 4)], rule=rule, padding=padding)
    (same,) = instance(out, [(3, 4)], rule, padding=padding)
    assert drawn(same) == drawn(found)
    assert drawn(found) == ["1122"] * 3
    (labels,) = semantic(out, [(3, 4)], padding=padding)
    assert labels.tolist() == [[CAT, CAT, DOG, DOG]] * 3


def test_an_answer_without_masks_is_refused():
    out = answer((CAT, SURE, ALL))
    without = Prediction(out.logits, out.boxes, out.layers)
    with pytest.raises(ImageError, match=r"prediction.masks"):
        panoptic(without, SIZE)
    with pytest.raises(ImageError, match="2 sizes"):
        semantic(out, SIZE * 2)
