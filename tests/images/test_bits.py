"""Ten or twelve bits in a type of sixteen are asked about: as sixteen they are nearly black."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from rtdetr_lab.errors import ConfigError, ImageError
from rtdetr_lab.images.decode import Limits, decode

GREYS = np.arange(256, dtype=np.uint16).reshape(8, 32)


def encoded(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png_of_16_bits(pixels):
    """A colour PNG of 16 bits, which Pillow cannot write."""
    height, width, _ = pixels.shape
    rows = pixels.astype(">u2").reshape(height, -1).view(np.uint8)
    rows = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1)

    def chunk(kind, body):
        crc = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + crc

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows.tobytes()))
    return b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b"")


def test_sixteen_bit_grey_and_sixteen_bit_colour_agree():
    ramp = np.linspace(0, 65535, 64, dtype=np.uint16)[None]
    colour = png_of_16_bits(np.repeat(ramp[..., None], 3, axis=-1))
    assert np.array_equal(decode(colour), decode(encoded(Image.fromarray(ramp))))


def as_big_endian(values):
    return Image.frombytes("I;16B", values.shape[::-1], values.astype(">u2").tobytes())


WAYS = {
    "TIFF": lambda values: encoded(Image.fromarray(values), "TIFF"),
    "PNG": lambda values: encoded(Image.fromarray(values), "PNG"),
    "I;16": Image.fromarray,
    "I;16B": as_big_endian,
    "mode I": lambda values: Image.fromarray(values.astype(np.int32)),
    "array": lambda values: values,
    "tensor": torch.from_numpy,
    "channels": lambda values: np.repeat(values[None], 3, axis=0),
}


@pytest.mark.parametrize("bits", [9, 10, 12, 14])
@pytest.mark.parametrize("way", WAYS)
def test_fewer_bits_are_not_nearly_black_but_asked_about(way, bits):
    given = WAYS[way](GREYS << (bits - 8))
    named = {9: 10}.get(bits, bits)  # there are cameras of ten bits, and none of nine
    with pytest.raises(ImageError, match=rf"{named} bits in a wider type.*--bits {named}"):
        decode(given)
    assert np.array_equal(decode(given, Limits(bits=bits))[..., 0], GREYS)


@pytest.mark.parametrize("way", WAYS)
def test_a_picture_in_which_16_bits_are_used_needs_no_word(way):
    values = GREYS * 64 + 37  # up to 16357, and one pixel beyond
    values[3, 5] = 16384
    assert np.array_equal(decode(WAYS[way](values))[..., 0], values >> 8)


def test_a_dark_frame_is_neither_stretched_nor_taken_for_another_type():
    night = np.full((4, 6), 900, np.uint16)
    with pytest.raises(ImageError, match="16 if it is dark"):
        decode(night)
    assert (decode(night, Limits(bits=16)) == 3).all()
    assert (decode(night, Limits(bits=12)) == 56).all(), "as its bright neighbours are read"
    assert not decode(np.zeros((4, 6), np.uint16)).any(), "black is black in any number of bits"


def test_more_bits_than_were_said_are_refused():
    with pytest.raises(ImageError, match="to 5000 are not 12 bits"):
        decode(np.full((4, 6), 5000, np.uint16), Limits(bits=12))
    for wrong in (7, 17, 0, -1):
        with pytest.raises(ConfigError, match="8 to 16"):
            Limits(bits=wrong)


@pytest.mark.parametrize(("largest", "bits"), [(1023, 10), (4095, 12), (16383, 14), (65535, 16)])
def test_a_tiff_that_names_its_white_is_read_by_it(largest, bits):
    values = GREYS << (bits - 8)
    assert np.array_equal(decode(tiff_with(values, largest))[..., 0], GREYS)
    dark = values // 16
    dark[0, 0] = 1
    assert np.array_equal(decode(tiff_with(dark, largest))[..., 0], dark >> (bits - 8))


def test_the_largest_sample_of_one_picture_says_nothing_about_white():
    with pytest.raises(ImageError, match="12 bits"):
        decode(tiff_with((GREYS << 4) - (GREYS > 200), 4079))


def tiff_with(values, largest):
    return encoded(Image.fromarray(values), "TIFF", tiffinfo={281: largest})


def test_a_tiff_packed_in_12_bits_has_12():
    values = (np.arange(64, dtype=np.uint16).reshape(4, 16) * 65)[:, ::-1]
    triples = values.reshape(-1, 2).astype(np.uint32)
    packed = (
        (triples[:, 0] << 12 | triples[:, 1]).astype(">u4").view(np.uint8).reshape(-1, 4)[:, 1:]
    )
    tags = {256: 16, 257: 4, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 4, 279: packed.size}
    entries = b"".join(
        struct.pack("<HHI", tag, 4 if tag in (273, 279) else 3, 1) + struct.pack("<I", value)
        for tag, value in tags.items()
    )
    start = struct.pack("<2sHI", b"II", 42, 8 + packed.size)
    data = start + packed.tobytes() + struct.pack("<H", len(tags)) + entries + bytes(4)
    assert Image.open(io.BytesIO(data)).mode == "I;16"
    assert np.array_equal(decode(data)[..., 0], values >> 4)


def test_a_pgm_names_its_white():
    header = b"P5 6 4 1023\n"
    values = np.arange(24) * 10
    dark = decode(header + values.astype(">u2").tobytes())[..., 0].ravel()
    assert np.abs(dark - values / 1023 * 255).max() < 1


def test_16_bit_colour_of_fewer_bits_is_asked_about():
    """Pillow keeps the upper byte of each channel; of 8 bits in 16 it keeps nothing."""
    for bits in (8, 10, 12, 14):
        colour = png_of_16_bits(np.repeat(GREYS[..., None] << (bits - 8), 3, axis=-1))
        with pytest.raises(ImageError, match="store it in 8 bits"):
            decode(colour)
        with pytest.raises(ImageError, match="16-bit colour"):
            decode(colour, Limits(bits=12))
        assert (decode(colour, Limits(bits=16)) == (GREYS << (bits - 8) >> 8)[..., None]).all()
