"""What a reader without the type-checking hook sees when the shape or type of a batch is wrong."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small import small
from small_api import SMALL, label, picture

import rtdetr_lab as lab
from rtdetr_lab.data.canvas import collate_on_canvas
from rtdetr_lab.errors import ConfigError, DataError, ImageError, TargetError
from rtdetr_lab.structures import Targets

BAD_IMAGES = {
    "one picture": torch.rand(3, 64, 64),
    "grey": torch.rand(1, 1, 64, 64),
    "channels last": torch.rand(1, 64, 64, 3),
    "bytes": torch.zeros(1, 3, 64, 64, dtype=torch.uint8),
}


@pytest.mark.parametrize("images", BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_what_is_no_batch_of_pictures_is_refused(images):
    with pytest.raises(
        ImageError, match=r"images: a tensor of shape .* pass \(B, 3, H, W\) floats"
    ):
        small().build()(images)


def test_what_is_no_tensor_is_refused_in_both_apis():
    documented = lab.RTDetrForObjectDetection(lab.RTDetrConfig(**SMALL))
    for model in (small().build(), documented):
        for images in (np.zeros((1, 3, 64, 64), np.float32), [[1.0]]):
            with pytest.raises(ImageError, match="images: is a "):
                model(images)


@pytest.mark.parametrize("shape", [(1, 5), (2, 2), (3,), (1, 1, 4)])
def test_boxes_of_another_shape_do_not_become_others(shape):
    """Two boxes of two numbers are not one box of four."""
    wrong = {"labels": [0], "boxes": torch.full(shape, 0.5)}
    with pytest.raises(TargetError, match=r"targets.boxes\[1\]: has shape"):
        Targets.of([{"labels": [], "boxes": []}, wrong])
    model = lab.RTDetrForObjectDetection(lab.RTDetrConfig(**SMALL))
    labels = [label(), {**label(), "boxes": torch.full(shape, 0.5)}]
    with pytest.raises(TargetError, match=r"targets.boxes\[1\]: has shape"):
        model(torch.rand(2, 3, 64, 64), labels=labels)


def test_masks_that_did_not_change_with_their_picture_are_refused_on_a_canvas():
    one = SimpleNamespace(
        image=torch.zeros(3, 40, 64),
        image_size=(40, 64),
        masks=torch.zeros(1, 39, 64).bool(),
        name="cat.png",
    )
    with pytest.raises(DataError, match=r"cat.png: has masks of \(39, 64\), but the pict"):
        collate_on_canvas([one])


@pytest.mark.parametrize("option", [{"rescale_factor": "x"}, {"size": "big"}, {"image_std": "x"}])
def test_options_of_another_kind_are_refused_by_name(option):
    (name,) = option
    for kind in (lab.RTDetrImageProcessor, lab.DetrImageProcessor):
        with pytest.raises(ConfigError, match=name):
            kind()(picture(), **option)
    outputs = SimpleNamespace(logits=torch.zeros(1, 2, 3), pred_boxes=torch.ones(1, 2, 4))
    outputs.pred_masks = torch.zeros(1, 2, 4, 4)
    with pytest.raises(ConfigError, match="label_ids_to_fuse"):
        lab.DetrImageProcessor().post_process_panoptic_segmentation(outputs, label_ids_to_fuse=3)
