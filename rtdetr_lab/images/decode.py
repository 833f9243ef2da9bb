r"""# Decode: one picture, whatever it comes in, as a viewer shows it

    decode("photo.jpg")  →  uint8, (H, W, 3), RGB

A path, bytes, an open binary file, a PIL picture, an array or a tensor; `arrays.py` and `modes.py`
say how each is read. Everything that is not a picture raises `ImageError` with its name and what to
do, and nothing else: a folder of ten thousand files must not end at the one that is broken.

A file is read whole and only with the formats below. Pillow knows forty more; some of them start
another program (EPS), some recognise almost anything (TGA), and none of them is how photographs are
kept. The size written in a file's header is checked *before* its pixels are unpacked: a few
kilobytes can claim to be gigapixels.
"""

import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from rtdetr_lab.errors import ImageError
from rtdetr_lab.images.arrays import RGB, rgb_from_array
from rtdetr_lab.images.modes import rgb_from_pil

FORMATS = ("JPEG", "MPO", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")
"""What we let Pillow recognise."""

SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".bmp", ".dib"}
SUFFIXES |= {".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".avif"}
SUFFIXES |= {".jp2", ".j2k", ".jpx"}
"""How files of these formats are called; used to find pictures in a folder."""

FOREIGN = {
    b"%PDF": "a PDF",
    b"%!PS": "PostScript",
    b"<svg": "an SVG drawing",
    b"<?xml": "XML, perhaps an SVG drawing",
    b"<!DOCTYPE": "a web page, perhaps a failed download",
    b"<html": "a web page, perhaps a failed download",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "gzip",
    b"version https://git-lfs": "a Git LFS pointer, not the picture itself",
}
"""First bytes of what people hand over by mistake."""


@dataclass(frozen=True)
class Limits:
    """The largest file and the largest picture that are read."""

    max_bytes: int = 256 * 2**20
    max_pixels: int = 89_478_485  # also where Pillow starts to warn: 256 MiB of RGB


DEFAULT_LIMITS = Limits()


def decode(source: object, limits: Limits = DEFAULT_LIMITS, where: str | None = None) -> RGB:
    """uint8 RGB of `source`, or `ImageError`. `where` names it in messages (default: its path).

    A file object is read from where it stands and left open. Arrays are already in memory, so that
    the limits do not concern them.
    """
    where = where or describe(source)
    if isinstance(source, np.ndarray | Tensor):
        return rgb_from_array(source, where)
    if isinstance(source, Image.Image):
        return _rgb(source, limits, where)
    with _open(_read(source, limits, where), where) as image:
        return _rgb(image, limits, where)


def describe(source: object) -> str:
    """A short name for a message: the path, or what kind of thing it is."""
    if isinstance(source, str | os.PathLike):
        return os.fsdecode(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return f"{len(source)} bytes"
    if isinstance(source, np.ndarray | Tensor):
        return f"{'tensor' if isinstance(source, Tensor) else 'array'} {tuple(source.shape)}"
    name = getattr(source, "filename", None) or getattr(source, "name", None)
    return str(name) if name else type(source).__name__


def _read(source: object, limits: Limits, where: str) -> bytes:
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source[: limits.max_bytes + 1])
    elif isinstance(source, str | os.PathLike):
        data = _read_path(os.fsdecode(source), limits, where)
    elif callable(getattr(source, "read", None)):
        data = source.read(limits.max_bytes + 1)  # type: ignore[attr-defined]
    else:
        remedy = "pass a path, bytes, a file, a PIL picture, an array or a tensor"
        raise ImageError(where, f"{type(source).__name__} is not a picture", remedy)
    if not isinstance(data, bytes):
        raise ImageError(where, "gives text, not bytes", 'open it with mode "rb"')
    if len(data) > limits.max_bytes:
        what = f"is larger than {limits.max_bytes:,} bytes"
        raise ImageError(where, what, "shrink it, or raise Limits.max_bytes")
    if not data:
        raise ImageError(where, "is empty (0 bytes)", "fetch it again")
    return data


def _read_path(path: str, limits: Limits, where: str) -> bytes:
    if "://" in path:
        raise ImageError(where, "is a web address", "download it and give the file")
    if not os.path.exists(path):
        raise ImageError(where, "does not exist", _similar(Path(path)))
    if not os.path.isfile(path):  # a folder, or a pipe that would keep us waiting for ever
        raise ImageError(where, "is not a file", "give files, or a folder to `rtdetr-lab detect`")
    try:
        with open(path, "rb") as file:
            return file.read(limits.max_bytes + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ImageError(where, f"cannot be read: {reason}", "check its permissions") from error


def _similar(path: Path) -> str:
    from difflib import get_close_matches

    folder = path.parent
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    near = get_close_matches(path.name, names, n=3)
    return f"the nearest names there: {', '.join(near)}" if near else "check the path"


def _open(data: bytes, where: str) -> Image.Image:
    Image.init()  # AVIF and JPEG 2000 are missing from some builds of Pillow
    formats = [name for name in FORMATS if name in Image.OPEN]
    try:
        return Image.open(BytesIO(data), formats=formats)
    except UnidentifiedImageError as error:
        what = f"is {_guess(data)}"
        remedy = f"convert it to one of {', '.join(FORMATS)}"
        raise ImageError(where, what, remedy) from error
    except Image.DecompressionBombError as error:
        remedy = "shrink it, or raise PIL.Image.MAX_IMAGE_PIXELS and Limits.max_pixels"
        raise ImageError(where, f"claims to be far too large ({error})", remedy) from error
    except Exception as error:  # every other failure inside Pillow is about this file
        raise ImageError(where, f"has a damaged header ({error})", "fetch it again") from error


def _guess(data: bytes) -> str:
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"mif1", b"hevc", b"msf1"):
        return "an HEIC photo"
    start = data[:64].lstrip()
    for magic, name in FOREIGN.items():
        if start.lower().startswith(magic.lower()):
            return name
    return "no picture in a format we read, or its first bytes are damaged"


def _rgb(image: Image.Image, limits: Limits, where: str) -> RGB:
    width, height = image.size
    if not (width and height):
        raise ImageError(where, f"has no pixels ({width} × {height})", "pass a picture")
    if width * height > limits.max_pixels:
        what = f"{width} × {height} is more than {limits.max_pixels:,} pixels"
        raise ImageError(where, what, "shrink it, or raise Limits.max_pixels")
    try:
        return rgb_from_pil(image, where)
    except ImageError:
        raise
    except Exception as error:  # truncated or corrupt data: Pillow raises a dozen types for it
        what = f"is truncated or damaged ({error or type(error).__name__})"
        raise ImageError(where, what, "fetch it again") from error
