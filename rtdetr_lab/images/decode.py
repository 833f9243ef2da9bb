r"""# Decode: one picture from any source, as a viewer shows it

    decode("photo.jpg")  →  uint8, (H, W, 3), RGB

The source is a path, bytes, an open binary file, a PIL picture, an array or a tensor; `arrays.py`
and `modes.py` explain how each is read. Everything that is not a picture raises `ImageError`, with
its name and a remedy, and never another error: one broken file must not stop a run over a folder
of ten thousand.

A file is read whole, and only in the formats below. Pillow reads forty more. Some of them start
another program (EPS), some accept almost any file (TGA), and none of them is used for photographs.
The size in a file's header is checked *before* its pixels are unpacked: a few kilobytes can claim
to be gigapixels.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader, BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from rtdetr_lab.config import require
from rtdetr_lab.errors import ImageError, converting
from rtdetr_lab.images.arrays import RGB, rgb_from_array
from rtdetr_lab.images.foreign import recognise
from rtdetr_lab.images.frames import Frame
from rtdetr_lab.images.modes import frame_of, rgb_from_pil

FORMATS = ("JPEG", "MPO", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")
"""The formats that Pillow may recognise."""

SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".bmp", ".dib"}
SUFFIXES |= {".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".avif"}
SUFFIXES |= {".jp2", ".j2k", ".jpx"}
"""Suffixes of files in these formats; used to find pictures in a folder."""


@dataclass(frozen=True)
class Limits:
    """Limits on files and pictures, and the number of `bits` of 16-bit pixels.

    `bits` is used where the file does not give it (`arrays.py`).
    """

    max_bytes: int = 256 * 2**20
    max_pixels: int = 89_478_485  # also where Pillow starts to warn: 256 MiB of RGB
    bits: int | None = None

    def __post_init__(self) -> None:
        fine = self.bits is None or 8 <= self.bits <= 16
        require(fine, "bits", f"{self.bits} of 16", "give a number from 8 to 16")


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, eq=False)
class Photo:
    """Picture with upright pixels, the frame it is stored in, and its source."""

    rgb: RGB
    frame: Frame
    source: str = ""

    @property
    def raster(self) -> RGB:
        """Return the pixels in the order they are stored in."""
        return self.frame.pixels_as_stored(self.rgb)


def decode(source: object, limits: Limits = DEFAULT_LIMITS, where: str | None = None) -> RGB:
    """Decode `source` to uint8 RGB, or raise `ImageError`.

    `where` names the source in messages (default: its path). A file object is read from its current
    position and left open. Arrays are in memory already, so the limits do not apply to them.
    """
    return read_photo(source, limits, where).rgb


def read_photo(source: object, limits: Limits = DEFAULT_LIMITS, where: str | None = None) -> Photo:
    """Decode a picture, and keep its frame and its name."""
    where, name = where or describe(source), _name_of(source)
    if isinstance(source, np.ndarray | Tensor):
        rgb = rgb_from_array(source, where, limits.bits)
        return Photo(rgb, Frame((rgb.shape[0], rgb.shape[1])), name)
    if isinstance(source, Image.Image):
        return Photo(*_rgb(source, limits, where), name)
    with _open(BytesIO(_read(source, limits, where)), where) as image:
        return Photo(*_rgb(image, limits, where), name)


def photo_or_error(index: int, source: object, limits: Limits) -> Photo | ImageError:
    """Read one of many pictures, or return the error.

    `index` names a picture that has no name.
    """
    where = _name_of(source) or f"pictures[{index}] ({describe(source)})"
    try:
        return read_photo(source, limits, where)
    except ImageError as error:
        return error


def frame_in(path: Path) -> Frame:
    """Read the frame of the picture in a file from its header; raise `ImageError`."""
    where = str(path)
    with _opened(where, where) as file, _open(file, where) as image:
        return frame_of(image)


def describe(source: object) -> str:
    """Return a short name for a message: the path, or the kind of source."""
    if isinstance(source, str | os.PathLike):
        return os.fsdecode(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return f"{len(source)} bytes"
    if isinstance(source, np.ndarray | Tensor):
        return f"{'tensor' if isinstance(source, Tensor) else 'array'} {tuple(source.shape)}"
    name = getattr(source, "filename", None) or getattr(source, "name", None)
    return str(name) if name else type(source).__name__


def _name_of(source: object) -> str:
    named = isinstance(source, str | os.PathLike) or getattr(source, "filename", None)
    return describe(source) if named else ""


def _read(source: object, limits: Limits, where: str) -> bytes:
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source[: limits.max_bytes + 1])
    elif isinstance(source, str | os.PathLike):
        with _opened(os.fsdecode(source), where) as file:
            data = file.read(limits.max_bytes + 1)
    elif callable(getattr(source, "read", None)):
        data = source.read(limits.max_bytes + 1)  # type: ignore[attr-defined]
    else:
        remedy = "pass a path, bytes, a file, a PIL picture, an array or a tensor"
        raise ImageError(where, f"{type(source).__name__} is not a picture", remedy)
    if not isinstance(data, bytes):
        raise ImageError(where, "returns text, not bytes", 'open it with mode "rb"')
    if len(data) > limits.max_bytes:
        what = f"is larger than {limits.max_bytes:,} bytes"
        raise ImageError(where, what, "shrink it, or raise Limits.max_bytes")
    if not data:
        raise ImageError(where, "is empty (0 bytes)", "fetch it again")
    return data


@contextmanager
def _opened(path: str, where: str) -> Iterator[BufferedReader]:
    if "://" in path:
        raise ImageError(where, "is a web address", "download it and give the file")
    if not os.path.exists(path):
        raise ImageError(where, "does not exist", _similar(Path(path)))
    if not os.path.isfile(path):  # a folder, or a pipe, which could block forever
        raise ImageError(where, "is not a file", "give files, or a folder to `rtdetr-lab detect`")
    ours = converting(OSError, ImageError, where, "cannot be read: {}", "check its permissions")
    with ours, open(path, "rb") as file:
        yield file


def _similar(path: Path) -> str:
    from difflib import get_close_matches

    folder = path.parent
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    near = get_close_matches(path.name, names, n=3)
    return f"the nearest names there: {', '.join(near)}" if near else "check the path"


def _open(file: BufferedReader | BytesIO, where: str) -> Image.Image:
    Image.init()  # AVIF and JPEG 2000 are missing from some builds of Pillow
    formats = [name for name in FORMATS if name in Image.OPEN]
    try:
        return Image.open(file, formats=formats)
    except UnidentifiedImageError as error:
        file.seek(0)
        what, remedy = recognise(file.read(256), where)
        remedy = remedy or f"convert it to one of {', '.join(FORMATS)}"
        raise ImageError(where, f"is {what}", remedy) from error
    except Image.DecompressionBombError as error:
        remedy = "shrink it, or raise PIL.Image.MAX_IMAGE_PIXELS and Limits.max_pixels"
        raise ImageError(where, f"claims to be far too large ({error})", remedy) from error
    except Exception as error:  # every other failure inside Pillow is about this file
        raise ImageError(where, f"has a damaged header ({error})", "fetch it again") from error


def _rgb(image: Image.Image, limits: Limits, where: str) -> tuple[RGB, Frame]:
    width, height = image.size
    if not (width and height):
        raise ImageError(where, f"has no pixels ({width} × {height})", "pass a picture")
    if width * height > limits.max_pixels:
        what = f"{width} × {height} is more than {limits.max_pixels:,} pixels"
        raise ImageError(where, what, "shrink it, or raise Limits.max_pixels")
    what = "is truncated or damaged ({})"  # Pillow raises a dozen types for it
    with converting(Exception, ImageError, where, what, "fetch it again"):
        return rgb_from_pil(image, where, limits.bits)
