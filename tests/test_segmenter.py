"""The front door of a model that draws: a picture in, the owner of its every pixel out."""

import numpy as np
import pytest
import torch
from PIL import Image
from small import SMALL as SMALL_RTDETR
from small import shaken
from small_detr import DETECTOR
from small_detr import SEGMENTER as SMALL

import rtdetr_lab as lab
from rtdetr_lab.config import replace_at
from rtdetr_lab.errors import ConfigError, ImageError
from rtdetr_lab.images.frames import Frame
from rtdetr_lab.images.panoptic import ByOverlap
from rtdetr_lab.images.predict import predict_segments
from rtdetr_lab.images.preprocess import Preprocess
from rtdetr_lab.masks.query_masks import with_masks
from rtdetr_lab.model import Metadata

NAMES = ("cat", "dog", "cup", "sky", "grass")
ANYTHING = ByOverlap(threshold=0.0, mask_threshold=0.0, min_kept=0.0)
RGB = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return shaken(SMALL.build()).eval()


def test_every_pixel_gets_an_owner_in_the_pictures_own_size(model):
    found = lab.panoptic(model, RGB, rule=ANYTHING, edges=(64, 106), names=NAMES)
    assert found.ids.shape == (50, 70)
    assert set(found.ids.unique().tolist()) - {0} <= {s.id for s in found.segments}
    assert found.segments
    assert set(found.names) <= set(NAMES)
    assert torch.equal(found.masks.sum(0), (found.ids != 0).long())
    assert "".join(t.get_text() for t in found.plot().texts)


def test_an_rtdetr_segments_a_picture_at_its_own_size_too():
    model = shaken(with_masks(replace_at(SMALL_RTDETR, "num_classes", 5)).build()).eval()
    model.metadata = Metadata(NAMES, (3, 7, 9, 11, 13), image_size=(64, 96))
    found = lab.panoptic(model, RGB, rule=ANYTHING)
    assert found.ids.shape == (50, 70)
    assert found.segments
    (answer,) = predict_segments(model, [RGB], Preprocess((64, 96)), (), ANYTHING)
    assert torch.equal(found.ids, answer.ids)
    scores = model(Preprocess((64, 96)).batch([RGB])).logits[0].sigmoid().max(-1)
    for s in found.segments:
        assert s.score == pytest.approx(scores.values[s.query].item(), rel=1e-5)
        assert s.label == scores.indices[s.query]


def test_equal_stuff_is_one_segment(model):
    found = lab.panoptic(model, RGB, stuff=NAMES, rule=ANYTHING, edges=(64, 106), names=NAMES)
    assert len(set(found.names)) == len(found.names)


def test_what_cannot_be_segmented_is_refused_by_name(model):
    with pytest.raises(ConfigError, match="DETR draws no masks"):
        lab.panoptic(DETECTOR.build().eval(), RGB)
    with pytest.raises(ConfigError, match="training mode"):
        lab.panoptic(SMALL.build(), RGB)
    with pytest.raises(ConfigError, match="grass"):
        lab.panoptic(model, RGB, stuff=("gras",), names=NAMES)
    with pytest.raises(ImageError):
        lab.panoptic(model, "nowhere.png", names=NAMES)


def test_a_lying_picture_is_segmented_upright_and_can_be_turned_back(model, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 8
    lying = Frame((70, 50), 8).pixels_as_stored(RGB)
    Image.fromarray(lying).save(tmp_path / "a.png", exif=exif)
    found = lab.panoptic(model, tmp_path / "a.png", rule=ANYTHING, edges=(64, 106), names=NAMES)
    same = lab.panoptic(model, RGB, rule=ANYTHING, edges=(64, 106), names=NAMES)
    assert found.ids.shape == (50, 70)
    assert torch.equal(found.ids, same.ids)
    assert found.frame == Frame((70, 50), 8)
    stored = found.frame.pixels_as_stored(found.ids.numpy())
    assert np.array_equal(stored, np.rot90(found.ids.numpy(), -1))
