"""A DETR that draws: jointly, or on a detector that is done."""

import pytest
import torch
from small import pictures, shaken
from small_detr import DETECTOR, corner, objects
from small_detr import SEGMENTER as SMALL

from rtdetr_lab.config import replace_at
from rtdetr_lab.config_json import from_json, to_json
from rtdetr_lab.detr.model import DETR
from rtdetr_lab.detr.segmentation import (
    detr_r50_panoptic,
)
from rtdetr_lab.errors import ConfigError, TargetError
from rtdetr_lab.structures import Targets


def built(cfg=SMALL):
    return shaken(cfg.build()).double().eval()


@torch.no_grad()
def test_it_says_what_its_detector_says_and_draws_besides():
    model, images = built(), pictures().double()
    detector = replace_at(DETECTOR, "backbone", SMALL.backbone).build().double().eval()
    own = {n: t for n, t in model.state_dict().items() if not n.startswith("mask_")}
    detector.load_state_dict(own)
    with_masks, without = model(images), detector(images)
    assert torch.equal(with_masks.logits, without.logits)
    assert torch.equal(with_masks.boxes, without.boxes)
    assert without.masks is None
    assert with_masks.masks.shape == (2, 6, 24, 16)
    assert isinstance(model, DETR)


@torch.no_grad()
def test_what_padded_pixels_hold_changes_no_mask():
    model, images, padding = built(), pictures().double(), corner()
    noise = torch.where(padding[:, None], 50 * torch.randn_like(images), images)
    masks = model(images, padding=padding).masks
    assert torch.equal(masks, model(noise, padding=padding).masks)
    assert not torch.allclose(masks, model(images).masks)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_frozen_detector_has_no_gradients_and_a_joint_one_has(frozen):
    model = replace_at(SMALL, "frozen_detector", frozen).build().train()
    wanted = objects(2, 1)
    terms = model.cfg.criterion.build()(model(pictures(), wanted), wanted)
    sum(terms.values()).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) is (name.startswith("mask_") or not frozen), name


def test_other_numbers_of_heads_run_and_matter():
    images = pictures().double()
    shapes = set()
    for heads in (1, 2, 16):
        model = built(replace_at(SMALL, "num_mask_heads", heads))
        assert torch.isfinite(model(images).masks).all()
        shapes.add(tuple(model.mask_head.blend.conv.weight.shape))
    assert shapes == {(16 + h, 16 + h, 3, 3) for h in (1, 2, 16)}


def test_it_learns_to_draw_one_batch():
    model, images, wanted = SMALL.build().train(), pictures(), objects(2, 1)
    masks = torch.zeros(3, 96, 64, dtype=torch.bool)
    masks[0, :48], masks[1, :, :32], masks[2, 40:90, 20:] = True, True, True
    wanted = Targets(wanted.labels, wanted.boxes, (masks[:2], masks[2:]))
    criterion, found = model.cfg.criterion.build(), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(40):
        terms = criterion(model(images, wanted), wanted)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
        found.append(terms["dice"].item())
    assert found[-1] < 0.85 * found[0]


def test_the_preset_draws_with_resnet_50():
    cfg = detr_r50_panoptic()
    with torch.device("meta"):
        model = cfg.build()
    assert model.backbone.strides == (4, 8, 16, 32)
    assert model.class_head.out_features == 250 + 1
    assert model.mask_head.blend.conv.weight.shape[0] == 256 + 8
    assert from_json(to_json(cfg)) == cfg


@torch.no_grad()
def test_masks_of_another_size_than_the_canvas_are_refused_by_picture():
    model = built()
    with pytest.raises(TargetError, match=r"targets.masks\[0\].*50×40 for pictures of 96×64"):
        model(pictures().double(), objects(1, 2, size=(50, 40)))


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [("num_mask_heads", 3, "num_mask_heads"), ("backbone.outputs", (4,), "backbone.outputs")],
)
def test_what_cannot_draw_is_refused(path, value, where):
    with pytest.raises(ConfigError, match=where):
        replace_at(SMALL, path, value).build()
