"""Pictures that keep their shape: sizes, canvases, and boxes that come back where they were."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import shaken

from rtdetr_lab.checkpoints.metadata import Metadata
from rtdetr_lab.config import replace_at
from rtdetr_lab.data.batch import Augmented, Mapped
from rtdetr_lab.data.canvas import RandomEdges, ResizeEdges, collate_on_canvas, edges_of
from rtdetr_lab.data.shapes import ShapesConfig, ShapesDataset
from rtdetr_lab.detector import Detector
from rtdetr_lab.detr.model import detr_nano
from rtdetr_lab.errors import ConfigError, DataError, ImageError
from rtdetr_lab.images.postprocess import of_the_canvas
from rtdetr_lab.images.predict import predict
from rtdetr_lab.images.preprocess import KeepAspect, Preprocess, padded, resized
from rtdetr_lab.model import DetectionModel, by_softmax
from rtdetr_lab.rtdetr import rtdetr_nano
from rtdetr_lab.structures import Prediction
from rtdetr_lab.training import from_scratch, train

SIDES = st.integers(1, 3000)


def test_sizes_are_those_of_the_paper():
    assert resized((480, 640), (800, 1333)) == (800, 1066)
    assert resized((640, 480), (800, 1333)) == (1066, 800)
    assert resized((480, 1280), (800, 1333)) == (500, 1333)
    assert resized((800, 800), (800, 1333)) == (800, 800)


@given(SIDES, SIDES, st.integers(1, 1000), st.integers(0, 1000))
def test_a_side_is_never_longer_than_allowed_and_the_shape_is_kept(height, width, shortest, more):
    edges = (shortest, shortest + more)
    new = resized((height, width), edges)
    assert 1 <= min(new) <= shortest
    assert max(new) <= max(edges[1] + max(height, width) / min(height, width), 1)
    assert (new[0] >= new[1]) or height < width


def test_edges_that_are_none_are_refused():
    for edges in ((0, 10), (20, 10)):
        with pytest.raises(ConfigError, match="shortest and longest"):
            KeepAspect(edges)
    with pytest.raises(ConfigError, match="holds no size"):
        RandomEdges((10, 30), 20)


def test_a_canvas_holds_every_picture_in_its_upper_left_corner():
    pictures = [torch.rand(3, 4, 7), torch.rand(3, 6, 5)]
    canvas, padding = padded(pictures)
    assert canvas.shape == (2, 3, 6, 7)
    for picture, shown, hidden in zip(pictures, canvas, padding, strict=True):
        h, w = picture.shape[1:]
        assert torch.equal(shown[:, :h, :w], picture)
        assert not hidden[:h, :w].any()
        assert hidden[h:].all()
        assert hidden[:, w:].all()
        assert shown[:, hidden].abs().sum() == 0


class OneBox(DetectionModel):
    """Says of every picture that its one object covers the same fractions."""

    rank, takes_padding, num_queries = staticmethod(by_softmax), True, 1

    def __init__(self):
        super().__init__(detr_nano(2))
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, images, padding=None):
        boxes = torch.tensor([[[0.5, 0.5, 0.5, 0.25]]]).expand(len(images), 1, 4)
        logits = torch.tensor([[[9.0, 0.0, 0.0]]]).expand(len(images), 1, 3)
        return Prediction(logits, boxes, ())


def test_without_a_size_pictures_keep_their_shape_if_the_model_takes_a_canvas():
    assert Detector(OneBox().eval()).preprocess == KeepAspect((800, 1333))
    assert Detector(rtdetr_nano(3).build().eval()).preprocess == Preprocess((640, 640))


def test_boxes_come_back_in_pixels_of_each_stored_picture():
    detector = Detector(OneBox().eval(), edges=(32, 64))
    pictures = [np.zeros((40, 80, 3), np.uint8), np.zeros((90, 30, 3), np.uint8)]
    wide, high = detector(pictures)
    assert wide.boxes_xyxy.tolist() == [[20.0, 15.0, 60.0, 25.0]]
    assert high.boxes_xyxy[0].tolist() == pytest.approx([7.5, 33.75, 22.5, 56.25])


def test_boxes_of_the_canvas_are_a_switch_that_a_checkpoint_can_turn():
    model = OneBox().eval()
    model.metadata = Metadata(("a", "b"), (0, 1), edges=(32, 64), canvas_boxes=True)
    detector = Detector(model)
    # 40 × 80 becomes 32 × 64, 80 × 40 becomes 64 × 32: each fills half of a canvas of 64 × 64.
    pictures = [np.zeros((40, 80, 3), np.uint8), np.zeros((80, 40, 3), np.uint8)]
    wide, high = detector(pictures)
    assert wide.boxes_xyxy.tolist() == [[20.0, 30.0, 60.0, 50.0]]
    assert high.boxes_xyxy.tolist() == [[20.0, 30.0, 60.0, 50.0]]
    model.metadata = replace(model.metadata, canvas_boxes=False)
    by_hand = Detector(model, fractions=of_the_canvas)(pictures)
    assert torch.equal(by_hand[0].boxes_xyxy, wide.boxes_xyxy)


def test_a_model_for_one_size_refuses_several():
    model = rtdetr_nano(3).build().eval()
    with pytest.raises(ConfigError, match="one size"):
        Detector(model, edges=(32, 64))
    with pytest.raises(ImageError, match="several sizes"):
        predict(model, [torch.rand(3, 32, 32), torch.rand(3, 32, 64)], [(1, 1)] * 2)
    with pytest.raises(ConfigError, match="fixed size"):
        Detector(OneBox().eval(), edges=(32, 64), size=(32, 32))


@torch.no_grad()
def test_what_is_beyond_a_picture_is_not_there():
    """The answer for a picture on a larger canvas depends on the canvas, not on what lies there."""
    model = shaken(detr_nano(3).build()).eval()
    canvas, padding = padded([torch.rand(3, 64, 96), torch.rand(3, 96, 64)])
    other = torch.where(padding[:, None], torch.rand_like(canvas), canvas)
    assert torch.equal(model(canvas, padding=padding).boxes, model(other, padding=padding).boxes)


WORLD = ShapesDataset(ShapesConfig(size=64, max_side=40.0), 0, 8, with_masks=True)


@pytest.fixture
def two_sizes():
    samples = [WORLD[0], WORLD[1]]
    wide = replace(samples[1], image=samples[1].image[:, :40], masks=samples[1].masks[:, :40])
    return [samples[0], wide]


def test_masks_are_padded_with_their_picture_and_boxes_stay_its_fractions(two_sizes):
    batch = collate_on_canvas(two_sizes)
    targets = batch.targets
    assert batch.images.shape[-2:] == (64, 64)
    assert torch.equal(targets.boxes[1], two_sizes[1].boxes)
    assert torch.equal(targets.masks[1][:, :40], two_sizes[1].masks)
    assert not (targets.masks[1] & batch.padding[1]).any()
    assert targets.pictures == ("picture 0", "picture 1"), "errors name them"
    of_canvas = collate_on_canvas(two_sizes, of_canvas=True).targets
    assert torch.equal(of_canvas.boxes[0], two_sizes[0].boxes)
    assert torch.allclose(
        of_canvas.boxes[1], two_sizes[1].boxes * torch.tensor([1, 40 / 64, 1, 40 / 64])
    )
    with pytest.raises(DataError, match="no samples"):
        collate_on_canvas([])


def test_a_detr_learns_from_pictures_of_several_sizes_and_remembers_their_edges(tmp_path):
    data = Augmented(WORLD, RandomEdges((32, 48), 64), rounds=4)
    assert edges_of(Mapped(WORLD, ResizeEdges((32, 64)))) == (32, 64)
    assert edges_of(data) == (48, 64)
    assert edges_of(WORLD) is None
    assert len({data[i].image.shape for i in range(6)}) == 2
    cfg = replace_at(detr_nano(len(WORLD.names)), "decoder.num_queries", 8)
    run = train(cfg, data, tmp_path, from_scratch(8, batch_size=4), progress=False)
    assert run.finished
    assert run.history[-1]["cardinality_error"] >= 0
    detector = Detector.from_pretrained(tmp_path / "model", device="cpu")
    assert detector.preprocess == KeepAspect((48, 64))
