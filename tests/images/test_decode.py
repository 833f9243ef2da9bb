"""Any file becomes the RGB a viewer shows, or an `ImageError` that says what to do."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageCms

from rtdetr_lab.errors import ImageError
from rtdetr_lab.images.decode import FORMATS, SUFFIXES, Limits, decode, read_photo
from rtdetr_lab.images.frames import Frame

UNDO = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""EXIF orientation → how a picture comes to lie so that it asks for it."""

RED, GREEN, WHITE = [255, 0, 0], [0, 255, 0], [255, 255, 255]


@pytest.fixture(scope="module")
def photo():
    from skimage.data import chelsea

    return chelsea()[::3, ::3].copy()


def encoded(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


# --- where a picture may come from ---------------------------------------------------------------


def test_path_bytes_file_pil_array_and_tensor_are_the_same_picture(tmp_path, photo):
    data = encoded(Image.fromarray(photo))
    path = tmp_path / "ä photo.png"
    path.write_bytes(data)
    ways = [path, str(path), data, bytearray(data), io.BytesIO(data), Image.open(path)]
    ways += [photo, torch.from_numpy(photo), torch.from_numpy(photo).permute(2, 0, 1)]
    ways += [photo / 255, torch.from_numpy(photo).permute(2, 0, 1).float() / 255]
    for way in ways:
        rgb = decode(way)
        assert rgb.dtype == np.uint8
        assert np.array_equal(rgb, photo)
    assert read_photo(photo).frame == Frame(photo.shape[:2])


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "I;16"])
def test_what_was_read_may_be_written_into(mode):
    read = decode(Image.new(mode, (5, 4)), Limits(bits=16))
    assert read.shape == (4, 5, 3)
    assert read.flags.writeable, "torch warns of arrays that are not"


def test_an_open_file_stays_open_and_is_read_from_where_it_stands(photo):
    file = io.BytesIO(b"header" + encoded(Image.fromarray(photo)))
    file.seek(6)
    assert np.array_equal(decode(file), photo)
    assert not file.closed


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM", "GIF", "WEBP", "JPEG2000", "AVIF"])
def test_every_lossless_format_gives_the_same_picture(format, photo):
    options = {"WEBP": {"lossless": True}, "GIF": {}, "AVIF": {"quality": 100}}.get(format, {})
    decoded = decode(encoded(Image.fromarray(photo), format, **options)).astype(int)
    tolerance = {"GIF": 40, "AVIF": 12}.get(format, 0)  # 256 colours; chroma of its own
    assert np.abs(decoded - photo).mean() <= tolerance / 4
    assert format in FORMATS


def test_every_file_ending_we_look_for_belongs_to_a_format_we_read():
    Image.init()
    known = Image.registered_extensions()
    assert {known[s] for s in SUFFIXES if s in known} <= set(FORMATS) | {"DIB"}


# --- as a viewer shows it ------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_photo_lying_on_its_side_is_put_upright(orientation, format):
    upright = Image.new("RGB", (48, 32), "red")
    upright.paste("green", (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    lying = upright.transpose(UNDO[orientation]) if orientation > 1 else upright
    photo = read_photo(encoded(lying, format, exif=exif))
    assert photo.frame == Frame((lying.height, lying.width), orientation)
    assert photo.frame.upright == (32, 48)
    assert np.abs(photo.raster.astype(int) - np.asarray(lying)).mean() < 8
    rgb = photo.rgb
    assert rgb.shape == (32, 48, 3)
    assert rgb[4, 4].argmax() == 1, "the green corner is top left"
    assert rgb[28, 44].argmax() == 0


def test_broken_exif_does_not_hide_the_picture(photo):
    data = encoded(Image.fromarray(photo), "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert np.array_equal(decode(data), photo)


def test_what_is_transparent_is_white():
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[..., 0] = 255
    rgba[0, :, 3] = 255  # the row above is opaque red, the one below only looks so to convert()
    for source in (encoded(Image.fromarray(rgba)), rgba, Image.fromarray(rgba)):
        assert decode(source)[:, 0].tolist() == [RED, WHITE]


def test_half_transparent_is_half_way_to_white():
    half = Image.new("RGBA", (1, 1), (0, 0, 0, 128))
    assert decode(half)[0, 0].tolist() == [127] * 3


@pytest.mark.parametrize("mode", ["P", "LA", "PA", "La", "RGBa"])
def test_every_kind_of_transparency_is_seen(mode):
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((0, 0), (0, 0, 0, 255))
    if mode == "P":
        image = Image.new("P", (2, 1), 0)
        image.putpalette([0, 0, 0, 9, 9, 9])
        image.putpixel((1, 0), 1)
        image.info["transparency"] = 1
    elif mode == "PA":
        image = Image.new("PA", (2, 1), (0, 255))
        image.putpixel((1, 0), (0, 0))
    elif mode == "La":
        image = image.convert("LA").convert("La")
    else:
        image = image.convert(mode)
    assert image.mode == mode
    assert decode(image)[0].tolist() == [[0, 0, 0], WHITE]


def test_the_transparent_colour_of_a_png_without_alpha_is_white():
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((0, 0), (9, 9, 9))
    data = encoded(image, transparency=(1, 2, 3))
    assert decode(data)[0].tolist() == [[9, 9, 9], WHITE]


def test_grey_one_bit_and_palette_become_three_equal_or_looked_up_channels(photo):
    grey = Image.fromarray(photo).convert("L")
    assert np.array_equal(decode(encoded(grey)), np.repeat(np.asarray(grey)[..., None], 3, -1))
    bits = grey.convert("1")
    assert set(np.unique(decode(encoded(bits)))) == {0, 255}
    palette = Image.fromarray(photo).quantize(16)
    assert np.array_equal(decode(encoded(palette)), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_keeps_its_greys(format):
    ramp = np.linspace(0, 65535, 256, dtype=np.uint16)[None].repeat(4, 0)
    rgb = decode(encoded(Image.fromarray(ramp), format))
    assert np.array_equal(rgb[..., 0], (ramp >> 8).astype(np.uint8))
    assert len(np.unique(rgb)) == 256, "Image.convert would clip nearly all of them to white"


def test_cmyk_jpegs_of_photoshop_are_not_negatives():
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    data = encoded(red, "JPEG", quality=95)
    assert b"Adobe" in data, "Pillow writes them inverted, as Photoshop does"
    assert decode(data)[4, 4].tolist() == pytest.approx(RED, abs=6)


def profile_that_turns_ink_green():
    """The smallest CMYK profile there is: no ink is white, any ink is green (ICC.1, lut8Type)."""
    lab = {True: (255, 128, 128), False: (137, 42, 199)}  # L*, a*, b* as bytes
    grid = b"".join(bytes(lab[i == 0]) for i in range(16))  # 2⁴ corners, 3 outputs
    unity = b"".join(struct.pack(">i", 65536 * (i % 4 == 0)) for i in range(9))
    ramp = bytes(range(256))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + unity + ramp * 4 + grid + ramp * 3
    text = b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(4 + 4 + 2 + 1 + 67)
    white = b"XYZ " + bytes(4) + struct.pack(">iii", 63190, 65536, 54061)
    body, table = b"", b""
    for name, data in ((b"A2B0", lut), (b"desc", text), (b"wtpt", white)):
        table += name + struct.pack(">II", 128 + 4 + 3 * 12 + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = bytes(8) + struct.pack(">I", 0x02400000) + b"prtrCMYKLab " + bytes(12) + b"acsp"
    head = head.ljust(68, b"\0") + struct.pack(">iii", 63190, 65536, 54061)
    profile = head.ljust(128, b"\0") + struct.pack(">I", 3) + table + body
    return struct.pack(">I", len(profile)) + profile[4:]


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_has_the_colours_its_profile_says(format):
    inks = Image.new("CMYK", (32, 32), (0, 0, 0, 0))
    inks.paste((0, 255, 255, 0), (16, 0, 32, 32))
    rgb = decode(encoded(inks, format, icc_profile=profile_that_turns_ink_green()))
    assert rgb[8, 4].min() >= 250
    assert rgb[8, 28].argmax() == 1
    assert rgb[8, 28].tolist() != RED


def test_a_broken_cmyk_profile_falls_back_to_the_plain_formula():
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    data = encoded(red, "TIFF", icc_profile=b"not a profile")
    assert decode(data)[4, 4].tolist() == RED


def test_a_profile_of_another_colour_space_is_not_applied_to_cmyk():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert decode(encoded(red, "TIFF", icc_profile=srgb))[4, 4].tolist() == RED


def test_lab_pictures_have_their_colours():
    lab = Image.new("LAB", (4, 4), (255, 128, 128))  # L=100, a and b in the middle
    assert decode(lab)[0, 0].min() >= 250


def test_of_an_animation_the_first_frame_is_shown():
    frames = [Image.new("RGB", (8, 8), c) for c in ("red", "lime", "blue")]
    for format, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})):
        data = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
        assert decode(data)[0, 0].tolist() == RED, format
    moved = Image.open(io.BytesIO(encoded(frames[0], "GIF", save_all=True, append_images=frames)))
    moved.seek(2)
    assert decode(moved)[0, 0].tolist() == RED


# --- arrays --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "pixel"),
    [
        (np.ones((2, 2), bool), 255),
        (np.full((2, 2, 1), 7, np.int64), 7),
        (np.full((1, 2, 2), 0.2, np.float16), 51),
        (np.full((2, 2, 3), 200.0), 200),
        (np.full((3, 2, 2), 51.0, np.float32), 51),
        (np.full((2, 2), 256 * 99 + 3, np.uint16), 99),
        (np.zeros((2, 2), np.uint16), 0),
        (torch.full((3, 2, 2), 1.0, dtype=torch.bfloat16), 255),
        (torch.full((2, 2), 0.5, requires_grad=True), 128),
    ],
)
def test_arrays_are_understood_by_type_and_range(array, pixel):
    rgb = decode(array)
    assert rgb.shape == (2, 2, 3)
    assert (rgb == pixel).all()


def test_where_both_ends_could_be_channels_the_library_decides():
    array = np.arange(3 * 5 * 3, dtype=np.uint8).reshape(3, 5, 3)
    assert decode(array).shape == (3, 5, 3)
    assert decode(torch.from_numpy(array)).shape == (5, 3, 3)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.full((4, 4, 3), np.nan), "NaN"),
        (np.full((4, 4, 3), np.inf), "NaN or infinite"),
        (np.linspace(-2, 2, 48).reshape(4, 4, 3), "undo a normalisation"),
        (np.linspace(0, 1.5, 48).reshape(4, 4, 3), "neither"),
        (np.linspace(0, 300, 48).reshape(4, 4, 3), "neither"),
        (np.full((4, 4), 200, np.uint16), "scale to 8 bits and cast to uint8"),
        (np.full((4, 4), 300, np.int32), "uint16"),
        (np.full((4, 4), -1, np.int8), "not [0, 255]"),
        (np.zeros((4, 4), complex), "complex128"),
        (np.array([["a", "b"]]), "type <U1"),
        (np.zeros((7, 5, 6), np.uint8), "no axis of 1, 3 or 4"),
        (np.zeros((2, 4, 4, 3), np.uint8), "pass a list"),
        (np.zeros(4, np.uint8), "not one picture"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (torch.zeros(0), "no pixels"),
    ],
)
def test_ambiguous_and_impossible_arrays_are_refused_with_the_reason(array, says):
    with pytest.raises(ImageError) as error:
        decode(array, where="batch[3]")
    assert says in str(error.value)
    assert error.value.where == "batch[3]"


@given(hnp.arrays(np.uint8, st.tuples(st.integers(5, 9), st.integers(5, 9), st.just(3))))
@settings(max_examples=50)
def test_bytes_fractions_and_channel_order_never_change_a_pixel(array):
    variants = [array / 255, (array / 255).astype(np.float32), np.moveaxis(array, -1, 0)]
    variants += [torch.from_numpy(array), array.astype(np.int16)]
    for variant in variants:
        assert np.array_equal(decode(variant), array)


# --- what is not a picture -----------------------------------------------------------------------


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM"])
@pytest.mark.parametrize("keep", [0.02, 0.3, 0.8])
def test_a_truncated_file_is_named(tmp_path, photo, format, keep):
    data = encoded(Image.fromarray(photo), format)
    path = tmp_path / "half"
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(ImageError) as error:
        decode(path)
    assert error.value.where == str(path)
    assert error.value.remedy


def test_postscript_is_not_handed_to_ghostscript():
    eps = encoded(Image.new("RGB", (8, 8)), "EPS")
    with pytest.raises(ImageError, match="PostScript"):
        decode(eps)


def test_missing_files_folders_addresses_and_text_are_told_apart(tmp_path):
    (tmp_path / "cat.jpg").touch()
    cases = {
        tmp_path / "cta.jpg": "nearest names there: cat.jpg",
        tmp_path / "no" / "x.jpg": "does not exist",
        tmp_path: "not a file",
        tmp_path / "cat.jpg": "empty",
        "https://example.org/cat.jpg": "web address",
        "nul\0.png": "does not exist",
        io.StringIO("text"): 'mode "rb"',
        3.5: "float is not a picture",
        None: "NoneType is not a picture",
    }
    for source, says in cases.items():
        with pytest.raises(ImageError, match=says):
            decode(source)


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match="not a file"):
        decode(tmp_path / "pipe")


def test_files_and_pictures_have_a_largest_size(photo):
    data = encoded(Image.fromarray(photo))
    with pytest.raises(ImageError, match="max_bytes"):
        decode(data, Limits(max_bytes=len(data) - 1))
    height, width, _ = photo.shape
    for source in (data, Image.fromarray(photo)):
        with pytest.raises(ImageError, match="max_pixels"):
            decode(source, Limits(max_pixels=height * width - 1))
    assert decode(data, Limits(len(data), height * width)).shape == photo.shape


def test_a_bomb_is_refused_by_its_header_alone():
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + ihdr + struct.pack(">I", zlib.crc32(ihdr))
    bomb += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    with pytest.raises(ImageError, match="far too large"):
        decode(bomb)


def test_thirty_two_bit_grey_has_no_agreed_white():
    deep = Image.fromarray(np.full((4, 4), 10_000_000, np.int32))
    with pytest.raises(ImageError, match="no defined white"):
        decode(encoded(deep, "TIFF"))


@given(st.binary(max_size=300), st.sampled_from([b"", b"\xff\xd8\xff", b"GIF89a", b"BM", b"II*\0"]))
@settings(max_examples=150)
def test_no_bytes_raise_anything_but_image_error(data, start):
    try:
        decode(start + data)
    except ImageError as error:
        assert error.remedy  # noqa: PT017 - most bytes are refused, a few are pictures
