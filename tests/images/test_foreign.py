"""What is no picture is called by its name, with what to do about it."""

import pytest

from rtdetr_lab.errors import ImageError
from rtdetr_lab.images.decode import decode


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "0 bytes"),
        (b"%PDF-1.7 ...", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "PostScript"),
        (b'  <svg xmlns="">', "SVG"),
        (b"\n<!doctype html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer.*git lfs pull"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC.*save it as JPEG"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0", "HEIC"),
        (b"\x93NUMPY\x01\0", "numpy.load"),
        (b"\x89PNG\r\n\x1a\nrubbish", "first bytes are damaged"),
        (b"\0\0\0\x18ftypavif\0\0\0\0", "damaged"),
        (b"hello", "not a picture"),
    ],
)
def test_a_foreign_file_is_called_by_its_name(data, says):
    with pytest.raises(ImageError, match=says):
        decode(data, where="upload")


VIDEOS = {
    "clip.mp4": b"\0\0\0\x18ftypisom\0\0\2\0isomiso2",
    "phone.mov": b"\0\0\0\x14ftypqt  \0\0\0\0qt  ",
    "old.mov": b"\0\0\0\x08wide\0\0\x10\0mdat",
    "clip.avi": b"RIFF\x10\x27\0\0AVI LIST",
    "clip.mkv": b"\x1aE\xdf\xa3\x9fB\x86\x81\x01",
    "clip.webm": b"\x1aE\xdf\xa3\x01\0\0\0\0\0\0\x1fB\x86",
    "clip.wmv": b"0&\xb2u\x8ef\xcf\x11\xa6\xd9\0\xaa",
    "clip.mpg": b"\0\0\x01\xba\x44\0\x04",
    "clip.flv": b"FLV\x01\x05",
    "clip.ogv": b"OggS\0\x02",
}


@pytest.mark.parametrize("name", VIDEOS)
def test_a_video_is_called_a_video_and_the_command_for_it_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(VIDEOS[name])
    with pytest.raises(ImageError, match=r"is a video; give it alone: .rtdetr-lab detect"):
        decode(tmp_path / name)
    with pytest.raises(ImageError, match="is a video"):
        decode(VIDEOS[name])


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("m.onnx", b"\x08\n\x12\x07pytorch", "an ONNX model; .*this file after --model"),
        (
            "m.xml",
            b'<?xml version="1.0"?><net name="m">',
            "OpenVINO.*original checkpoint after --model",
        ),
        ("m.pt2", b"PK\x03\x04", "exported model"),
        ("model.safetensors", b"\x10\0\0\0\0\0\0\0{}", "weights of a model.*--model"),
        ("best.pth", b"PK\x03\x04", "weights of a model"),
        ("val.json", b'{"images": []}', "--annotations"),
        ("photos.zip", b"PK\x03\x04", "unpack it"),
    ],
)
def test_a_model_given_as_a_picture_is_called_a_model(tmp_path, name, data, says):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ImageError, match=says):
        decode(tmp_path / name)
