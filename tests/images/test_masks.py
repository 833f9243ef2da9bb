"""Masks of what was found: in the picture's own pixels, through every step to a file."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small import shaken
from small_detr import SEGMENTER as SMALL

from rtdetr_lab.data.rle import decode_mask, run_lengths
from rtdetr_lab.detections import Classes, Detections
from rtdetr_lab.detector import Detector
from rtdetr_lab.errors import ConfigError, ImageError
from rtdetr_lab.images import masks as chapter
from rtdetr_lab.images.decode import read_photo
from rtdetr_lab.images.frames import Frame
from rtdetr_lab.images.masks import masks_of
from rtdetr_lab.images.panoptic import ByOverlap, instance
from rtdetr_lab.images.postprocess import Found, postprocess, suppress
from rtdetr_lab.images.tiling import Tiling
from rtdetr_lab.model import by_softmax
from rtdetr_lab.structures import Prediction
from rtdetr_lab.viz.masks import TINT, paint_masks
from rtdetr_lab.viz.palette import rgb

postprocess_softmax = partial(postprocess, rank=by_softmax)


def answer(masks, scores=None):
    """One picture; queries of class 0 with these scores and mask logits."""
    scores = [0.9] * len(masks) if scores is None else scores
    logits = torch.tensor([[[s, 1 - s]] for s in scores]).log().transpose(0, 1)
    return Prediction(logits, torch.full((1, len(scores), 4), 0.5), (), masks=masks[None])


@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=30)
def test_where_no_two_queries_want_one_pixel_masks_are_the_instances(seed, height, width):
    """The rule that gives every pixel to one has nothing to decide then."""
    drawn = 4 * torch.randn(5, 7, generator=torch.Generator().manual_seed(seed))
    out = answer(torch.stack([drawn, -drawn]))
    (found,) = postprocess_softmax(out, [(height, width)], with_masks=True)
    # The rule weighs its mask with the score, so that half a mask is 0.45 there.
    (owners,) = instance(out, [(height, width)], ByOverlap(mask_threshold=0.45))
    assert found.masks.shape == (2, height, width)
    for query, mask in zip(found.queries.tolist(), found.masks, strict=True):
        numbers = [s.id for s in owners.segments if s.query == query]
        assert torch.equal(mask, owners.ids == (numbers[0] if numbers else -1))


def test_masks_may_share_pixels_and_leave_some_to_nobody():
    left, all_but_right = torch.full((2, 4), -9.0), torch.full((2, 4), -9.0)
    left[:, :2], all_but_right[:, :3] = 9, 9
    found = masks_of(torch.stack([left, all_but_right]), (2, 4))
    assert found.int().tolist() == [[[1, 1, 0, 0]] * 2, [[1, 1, 1, 0]] * 2]


def test_of_a_padded_picture_the_mask_is_cut_to_the_picture():
    """The picture fills the left half of its canvas: what is drawn beside it is not shown."""
    drawn = torch.full((1, 3, 4), -9.0)
    drawn[:, :, 1:] = 9
    padding = torch.zeros(1, 12, 16, dtype=torch.bool)
    padding[:, :, 8:] = True
    (found,) = postprocess_softmax(answer(drawn), [(6, 4)], padding=padding, with_masks=True)
    assert found.masks.int().tolist() == [[[0, 0, 1, 1]] * 6]


def test_in_a_batch_every_mask_is_cut_by_the_padding_of_its_own_picture():
    drawn = torch.full((2, 1, 3, 4), -9.0)
    drawn[..., 2:] = 9
    padding = torch.zeros(2, 12, 16, dtype=torch.bool)
    padding[0, :, 8:] = padding[1, 4:] = True
    one = answer(drawn[0])
    both = Prediction(one.logits.repeat(2, 1, 1), one.boxes.repeat(2, 1, 1), (), masks=drawn)
    left, upper = postprocess_softmax(both, [(3, 2), (1, 4)], padding=padding, with_masks=True)
    assert left.masks.int().tolist() == [[[0, 0]] * 3]
    assert upper.masks.int().tolist() == [[[0, 0, 1, 1]]]


def test_only_what_is_kept_is_enlarged_and_one_at_a_time(monkeypatch):
    seen, enlarge = [], chapter.resized
    monkeypatch.setattr(chapter, "resized", lambda m, s: seen.append(len(m)) or enlarge(m, s))
    out = answer(torch.randn(50, 4, 4), [0.9, *[0.2] * 48, 0.8])
    (found,) = postprocess_softmax(out, [(9, 9)], with_masks=True)
    assert seen == [1, 1]
    assert found.queries.tolist() == [0, 49]
    assert found.masks.dtype == torch.bool
    (found,) = postprocess_softmax(out, [(9, 9)])
    assert found.masks is None
    assert len(seen) == 2


def test_a_mask_that_is_not_finite_is_an_error_and_not_an_empty_mask():
    drawn = torch.zeros(2, 4, 4)
    drawn[0, 1, 1] = float("nan")
    with pytest.raises(ImageError, match=r"pictures\[0\].*NaN"):
        postprocess_softmax(answer(drawn), [(4, 4)], with_masks=True)
    postprocess_softmax(answer(drawn, [0.1, 0.9]), [(4, 4)], with_masks=True)  # nobody asks it


def test_masks_go_with_their_rows():
    masks = torch.rand(3, 5, 6) > 0.5
    boxes = torch.tensor([[0.0, 0, 5, 5], [0, 0, 5, 5.1], [3, 3, 6, 5]])
    found = Found(
        boxes, torch.tensor([0.5, 0.9, 0.7]), torch.zeros(3).long(), torch.arange(3), masks
    )
    kept = suppress(found.to("cpu"), 0.5)
    assert kept.queries.tolist() == [1, 2]
    assert torch.equal(kept.masks, masks[[1, 2]])


# --- tiling --------------------------------------------------------------------------------------


def seen_by(window, masks):
    """A perfect detector that draws: box and mask of what is visible of every object."""
    top, left, bottom, right = window
    part = masks[:, top:bottom, left:right]
    see = part.flatten(1).sum(1) > 0.1 * masks.flatten(1).sum(1)
    boxes = torch.zeros(0, 4)
    if see.any():
        extents = [m.nonzero() for m in part[see]]
        corners = [(*e.amin(0).flip(0), *(e.amax(0).flip(0) + 1)) for e in extents]
        boxes = torch.tensor(corners).float()
    share = part[see].flatten(1).sum(1) / masks[see].flatten(1).sum(1)
    numbers = torch.arange(len(masks))[see]
    return Found(boxes, 0.5 + share / 2, numbers, numbers, part[see])


def test_masks_of_windows_are_put_where_the_windows_were():
    size, tiling = (100, 150), Tiling(64, 0.5)
    masks = torch.zeros(4, *size, dtype=torch.bool)
    masks[0, 5:20, 5:15] = masks[1, 40:70, 60:75] = masks[2, 90:, 140:] = True
    masks[2, 92, 141] = False  # not a box
    masks[3, 10:95, 20:130] = True  # larger than a window: only the look at the whole has it
    windows = tiling.windows(size)
    found = [seen_by(window, masks) for window in windows]
    found[0] = found[0].at(found[0].labels == 3)  # from afar the others are too small
    merged = tiling.merge(found, windows, size)
    assert sorted(merged.queries.tolist()) == [0, 1, 2, 3]
    assert torch.equal(merged.masks, masks[merged.queries])
    without = tiling.merge([replace(f, masks=None) for f in found], windows, size)
    assert without.masks is None
    assert torch.equal(without.boxes_xyxy, merged.boxes_xyxy)


# --- the front door ------------------------------------------------------------------------------

RGB = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
NAMES = ("cat", "dog", "cup", "sky", "grass")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return shaken(SMALL.build()).double().eval()


@pytest.fixture(scope="module")
def found(model):
    return Detector(model, NAMES, edges=(64, 106), threshold=0.0)(RGB)


def test_a_model_that_draws_gives_masks_in_the_pixels_of_the_picture(model, found):
    assert found.masks.shape == (6, 50, 70)
    assert found.masks.any()
    assert not found.masks.all()
    with torch.no_grad():
        image = Detector(model, NAMES, edges=(64, 106)).preprocess(RGB)[None]
        drawn = model(image.double()).masks[0, found.queries]
    enlarged = torch.nn.functional.interpolate(drawn.sigmoid()[None], (50, 70), mode="bilinear")
    assert torch.equal(found.masks, enlarged[0] > 0.5)


def test_a_picture_on_a_shared_canvas_gets_masks_of_its_own_size(model):
    wide = np.ascontiguousarray(RGB[:30])
    for one, size in zip(
        Detector(model, NAMES, edges=(64, 106), threshold=0.0)([RGB, wide]),
        ((50, 70), (30, 70)),
        strict=True,
    ):
        assert one.masks.shape == (6, *size)


def test_windows_of_a_large_picture_are_drawn_too(model):
    detector = Detector(model, NAMES, size=(64, 64), threshold=0.0, tiling=Tiling(32))
    found = detector(RGB)
    assert len(found) > 6
    assert found.masks.shape == (len(found), 50, 70)


def test_picking_rows_picks_their_masks(found):
    assert torch.equal(found[[3, 1]].masks, found.masks[[3, 1]])
    middle = float(found.scores[2])
    assert torch.equal(found.above(middle).masks, found.masks[found.scores > middle])
    name = found.names[0]
    rows = torch.tensor([n == name for n in found.names])
    assert torch.equal(found.only(name).masks, found.masks[rows])
    assert found[:0].masks.shape == (0, 50, 70)


def test_masks_leave_as_run_lengths_that_coco_reads(found):
    pytest.importorskip("faster_coco_eval", reason="no [eval] extra; runs where it is installed")
    rows = json.loads(json.dumps(found.to_coco(7)))
    plain = json.loads(json.dumps(found.to_json()))["detections"]
    for mask, row, told in zip(found.masks.numpy(), rows, plain, strict=True):
        assert row["segmentation"]["size"] == [50, 70]
        assert isinstance(row["segmentation"]["counts"], str)
        assert isinstance(told["segmentation"]["counts"], list)
        for where in (row, told):
            assert np.array_equal(decode_mask(where["segmentation"], (50, 70), "row"), mask)


def test_run_lengths_begin_with_what_is_outside():
    """An upper left corner that is inside has 0 pixels before it."""
    mask = np.array([[1, 0, 1], [1, 1, 0]], bool)
    assert run_lengths(mask) == {"size": [2, 3], "counts": [0, 2, 1, 2, 1]}
    assert run_lengths(~mask) == {"size": [2, 3], "counts": [2, 1, 2, 1]}
    assert run_lengths(mask[:0]) == {"size": [0, 3], "counts": [0]}


def test_masks_of_a_turned_photo_leave_in_the_frame_of_its_file():
    """A viewer turns it clockwise: what is at the upper left lies at the lower left in the file."""
    pytest.importorskip("faster_coco_eval", reason="no [eval] extra; runs where it is installed")
    mask = torch.zeros(1, 40, 30, dtype=torch.bool)
    mask[0, :3, :7] = True
    numbers = torch.zeros(1).long()
    parts = {"scores": torch.ones(1), "labels": numbers, "queries": numbers, "masks": mask}
    boxes = torch.tensor([[0.0, 0, 7, 3]])
    turned = Detections(
        boxes_xyxy=boxes, frame=Frame((30, 40), 6), classes=Classes(("a",)), **parts
    )
    (row,) = turned.to_coco(1)
    stored = decode_mask(row["segmentation"], (30, 40), "row")
    assert row["bbox"] == [0, 23, 3, 7]
    assert stored[23:, :3].all()
    assert stored.sum() == 21


def test_a_model_that_does_not_draw_gives_none():
    boxes = torch.full((1, 2, 4), 0.5)
    out = Prediction(torch.zeros(1, 2, 3), boxes, ())
    (found,) = postprocess(out, [(4, 4)], 0.1)
    assert found.masks is None
    photo = read_photo(np.zeros((4, 4, 3), np.uint8))
    rows = Detections.of(found, photo, Classes(("a", "b", "c")))
    assert rows.masks is None
    assert rows[:1].masks is None
    assert "segmentation" not in rows.to_coco(1)[0]
    assert "segmentation" not in rows.to_json()["detections"][0]


def test_the_drawn_picture_shows_the_masks_under_the_boxes(found, tmp_path):
    import matplotlib.pyplot as plt

    few = found[:2]
    plain = replace(few, masks=None)
    with_masks, without = (
        np.asarray(Image.open(one.save(tmp_path / f"{i}.png")))
        for i, one in enumerate((few, plain))
    )
    changed = (with_masks != without).any(-1)
    assert changed.any()
    assert not (changed & ~few.masks.any(0).numpy()).any()
    shown = few.plot().images[0].get_array()
    assert not np.array_equal(shown, RGB)
    plt.close("all")


# --- paint ---------------------------------------------------------------------------------------

GREY = np.full((40, 60, 3), 100, np.uint8)
RED, BLUE = "#FF0000", "#0000FF"


def test_inside_is_tinted_the_border_is_a_line_and_the_rest_stays():
    masks = torch.zeros(1, 40, 60, dtype=torch.bool)
    masks[0, 10:30, 20:50] = True
    painted = paint_masks(GREY, masks, [RED])
    inside = (1 - TINT) * 100 + TINT * np.array(rgb(RED))
    assert np.abs(painted[20, 35] - inside).max() <= 0.51
    assert painted[10, 35].tolist() == [255, 0, 0]
    assert painted[20, 49].tolist() == [255, 0, 0]
    assert (painted[~masks[0].numpy()] == 100).all()
    assert (GREY == 100).all()


def test_the_best_lies_on_top():
    both = torch.ones(2, 40, 60, dtype=torch.bool)
    painted = paint_masks(GREY, both, [RED, BLUE])
    assert painted[0, 0].tolist() == [255, 0, 0]
    assert painted[20, 30, 0] > painted[20, 30, 2]


def test_nothing_and_an_empty_mask_change_nothing_and_another_size_is_refused():
    empty = torch.zeros(1, 40, 60, dtype=torch.bool)
    assert np.array_equal(paint_masks(GREY, empty, [RED]), GREY)
    assert np.array_equal(paint_masks(GREY, empty[:0], []), GREY)
    with pytest.raises(ConfigError, match="40, 50"):
        paint_masks(GREY, empty[:, :, :50], [RED])
