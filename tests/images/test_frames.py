"""A box and the pixels it is drawn around go from one frame to the other together."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from rtdetr_lab.errors import ImageError
from rtdetr_lab.images.decode import frame_in, read_photo
from rtdetr_lab.images.frames import Frame

SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))
FRAMES = st.builds(Frame, SIZES, st.integers(1, 8))


def pixels_of(size):
    """A picture in which no two pixels are alike."""
    height, width = size
    numbers = np.arange(height * width, dtype=np.uint8).reshape(size)
    return np.stack([numbers, 255 - numbers, numbers // 2], axis=-1)


def as_pillow_turns(pixels, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    lying = Image.fromarray(pixels)
    lying.getexif().update(exif)
    return np.asarray(ImageOps.exif_transpose(lying))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(4, 7), (7, 4), (5, 5), (1, 6)])
def test_the_upright_picture_is_the_one_pillow_shows(size, orientation):
    frame, stored = Frame(size, orientation), pixels_of(size)
    shown = as_pillow_turns(stored, orientation)
    assert np.array_equal(frame.pixels_upright(stored), shown)
    assert frame.upright == shown.shape[:2]
    assert np.array_equal(frame.pixels_as_stored(shown), stored)


@given(FRAMES, st.data())
@settings(max_examples=200, deadline=None)
def test_a_box_is_where_its_pixels_are_in_either_frame(frame, data):
    height, width = frame.stored
    y0, x0 = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    y1, x1 = data.draw(st.integers(y0 + 1, height)), data.draw(st.integers(x0 + 1, width))
    mask = np.zeros(frame.stored, bool)
    mask[y0:y1, x0:x1] = True
    box = torch.tensor([[x0, y0, x1, y1]], dtype=torch.float32)
    upright = frame.boxes_upright(box)
    left, top, right, bottom = upright[0].int().tolist()
    drawn = np.zeros(frame.upright, bool)
    drawn[top:bottom, left:right] = True
    assert np.array_equal(drawn, frame.pixels_upright(mask))
    assert torch.equal(frame.boxes_as_stored(upright), box)


@given(FRAMES, st.lists(st.floats(-20, 20, width=16), min_size=4, max_size=4))
def test_boxes_between_pixels_and_over_the_edge_come_back_too(frame, corners):
    boxes = torch.tensor([corners, [1.5, 2.25, 3.0, 4.75]], dtype=torch.float64)
    there = frame.boxes_upright(boxes)
    assert torch.equal(frame.boxes_as_stored(there), boxes)
    sides = there[:, 2:] - there[:, :2]
    assert torch.equal(sides.sort(-1).values, (boxes[:, 2:] - boxes[:, :2]).sort(-1).values)


def test_no_box_stays_no_box():
    frame = Frame((3, 8), 6)
    assert frame.boxes_upright(torch.zeros(0, 4)).shape == (0, 4)
    assert frame.boxes_as_stored(torch.zeros(0, 4)).shape == (0, 4)


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_header_says_how_a_picture_lies_and_decoding_agrees(tmp_path, ending, orientation):
    """Pillow turns a TIFF by itself, and gives its size turned before it has."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"lying.{ending}"
    Image.fromarray(pixels_of((5, 9))).save(path, exif=exif)
    assert frame_in(path) == Frame((5, 9), orientation)
    photo = read_photo(path)
    assert photo.frame == Frame((5, 9), orientation)
    assert photo.raster.shape == (5, 9, 3)
    assert photo.source == str(path)


@pytest.mark.parametrize("orientation", [0, 9, 300])
def test_an_orientation_that_does_not_exist_turns_nothing(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels_of((5, 9))).save(tmp_path / "a.png", exif=exif)
    photo = read_photo(tmp_path / "a.png")
    assert photo.frame == Frame((5, 9), 1)
    assert np.array_equal(photo.rgb, pixels_of((5, 9)))


def test_what_was_turned_in_memory_lies_as_it_is(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for ending in ("jpg", "tif"):
        path = tmp_path / f"a.{ending}"
        Image.fromarray(pixels_of((5, 9))).save(path, exif=exif)
        turned = ImageOps.exif_transpose(Image.open(path))
        assert read_photo(turned).frame == Frame((9, 5), 1), ending
    assert read_photo(pixels_of((5, 9))).frame == Frame((5, 9), 1)


def test_annotations_are_of_the_file_unless_their_size_fits_only_the_upright_picture():
    turned = Frame((30, 40), 6)
    assert turned.of_annotations(None, "a.jpg") == turned
    assert turned.of_annotations((30, 40), "a.jpg") == turned
    assert turned.of_annotations((40, 30), "a.jpg") == Frame((40, 30))
    assert Frame((30, 30), 6).of_annotations((30, 30), "a.jpg") == Frame((30, 30), 6)
    with pytest.raises(ImageError, match=r"a\.jpg.*annotations have \(31, 40\)"):
        turned.of_annotations((31, 40), "a.jpg")
