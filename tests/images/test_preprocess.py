"""Pictures become floats in [0, 1] of exactly the model's size."""

import numpy as np
import pytest
import torch

from rtdetr_lab.errors import ConfigError
from rtdetr_lab.images.preprocess import Preprocess


def test_the_picture_is_stretched_to_height_and_width_and_divided_by_255():
    rgb = np.full((30, 70, 3), [0, 51, 255], np.uint8)
    pixels = Preprocess((64, 96))(rgb)
    assert pixels.shape == (3, 64, 96)
    assert pixels.dtype == torch.float32
    assert torch.allclose(pixels.amax((1, 2)), torch.tensor([0.0, 0.2, 1.0]))
    assert torch.equal(pixels.amin((1, 2)), pixels.amax((1, 2)))


def test_shrinking_averages_instead_of_picking_pixels():
    stripes = np.zeros((8, 640, 3), np.uint8)
    stripes[:, ::2] = 255
    assert (Preprocess((8, 64))(stripes) - 0.5).abs().max() < 0.02
    picked = torch.from_numpy(stripes[:, ::10]) / 255
    assert (picked - 0.5).abs().max() == 0.5


def test_the_same_size_changes_no_pixel_and_the_source_is_not_written_to():
    rgb = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    before = rgb.copy()
    pixels = Preprocess((32, 48))(rgb)
    pixels.add_(1)
    assert np.array_equal(rgb, before)
    again = Preprocess((32, 48))(rgb).permute(1, 2, 0).mul(255).round().byte().numpy()
    assert np.array_equal(again, rgb)


def test_a_batch_is_its_pictures_one_by_one():
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((9, 20), (40, 5), (1, 1))]
    preprocess = Preprocess((32, 64))
    batch = preprocess.batch(pictures)
    for one, rgb in zip(batch, pictures, strict=True):
        assert torch.equal(one, preprocess(rgb))


@pytest.mark.parametrize("size", [(0, 640), (640, -1)])
def test_an_impossible_size_is_refused(size):
    with pytest.raises(ConfigError, match="height and a width"):
        Preprocess(size)
