"""Oracle: transformers' PIL image processor. Before and after the model, bit for bit."""

import numpy as np
import pytest
import torch
from PIL import Image

from rtdetr_lab.images.decode import decode
from rtdetr_lab.images.postprocess import postprocess
from rtdetr_lab.images.preprocess import Preprocess
from rtdetr_lab.structures import Prediction

transformers = pytest.importorskip("transformers")


def theirs(image, size):
    processor = transformers.RTDetrImageProcessorPil(size={"height": size[0], "width": size[1]})
    return processor(image, return_tensors="pt")["pixel_values"][0]


def random_picture(seed, height, width):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("name", ["chelsea", "coffee", "astronaut"])
@pytest.mark.parametrize("size", [(640, 640), (256, 384)])
def test_photos_give_the_same_bits(name, size):
    import skimage.data

    rgb = getattr(skimage.data, name)()
    assert torch.equal(Preprocess(size)(decode(rgb)), theirs(Image.fromarray(rgb), size))


@pytest.mark.parametrize(("seed", "shape"), enumerate([(1, 1), (7, 1200), (640, 640), (1300, 900)]))
def test_small_large_and_odd_pictures_give_the_same_bits(seed, shape):
    rgb = random_picture(seed, *shape)
    assert torch.equal(Preprocess()(rgb), theirs(Image.fromarray(rgb), (640, 640)))


def test_all_256_values_give_the_same_bits():
    rgb = np.arange(256, dtype=np.uint8).reshape(16, 16)[..., None].repeat(3, -1)
    assert torch.equal(Preprocess((16, 16))(rgb), theirs(Image.fromarray(rgb), (16, 16)))


def test_shared_photos_give_the_same_bits(shared):
    paths = sorted(shared("data/coco_ccby/images").rglob("*.jpg"))[:6]
    assert paths
    for path in paths:
        image = Image.open(path).convert("RGB")
        assert torch.equal(Preprocess()(decode(path)), theirs(image, (640, 640)))


def test_the_comparison_would_notice_another_filter_or_scale():
    rgb = random_picture(0, 50, 70)
    expected = theirs(Image.fromarray(rgb), (64, 64))
    bicubic = np.asarray(Image.fromarray(rgb).resize((64, 64), Image.Resampling.BICUBIC))
    assert not torch.equal(torch.from_numpy(bicubic.copy()).permute(2, 0, 1) / 255, expected)
    assert not torch.equal(Preprocess((64, 64))(rgb) * (255 / 256), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("as_tensor", [True, False])
def test_detections_are_the_same_bits(dtype, as_tensor):
    logits = torch.randn(3, 40, 7, dtype=dtype) * 3
    boxes = torch.rand(3, 40, 4, dtype=dtype)
    sizes = [(480, 640), (333, 500), (1, 9999)]
    outputs = transformers.models.rt_detr.modeling_rt_detr.RTDetrObjectDetectionOutput(
        logits=logits, pred_boxes=boxes
    )
    processor = transformers.RTDetrImageProcessorPil()
    for threshold in (0.0, 0.5, 0.99):
        expected = processor.post_process_object_detection(
            outputs, threshold, torch.tensor(sizes) if as_tensor else sizes
        )
        found = postprocess(Prediction(logits, boxes, layers=()), sizes, threshold)
        for ours, hers in zip(found, expected, strict=True):
            assert torch.equal(ours.scores, hers["scores"])
            assert torch.equal(ours.labels, hers["labels"])
            assert torch.equal(ours.boxes_xyxy, hers["boxes"])


# What follows is listed in docs/differences.md: their processor shows these pictures otherwise.


def test_transparency_and_orientation_differ_on_purpose():
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert decode(clear)[0, 0].tolist() == [255, 255, 255]
    assert np.array(clear.convert("RGB"))[0, 0].tolist() == [255, 0, 0], "what they are given"
    lying = Image.new("RGB", (6, 4))
    lying.getexif()[0x0112] = 6
    assert decode(lying).shape[:2] == (6, 4)
    assert np.asarray(lying).shape[:2] == (4, 6)
