"""# Opened: a picture's pixels in the frame of its boxes, compared with what the annotations say"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from rtdetr_lab.data import findings as rules
from rtdetr_lab.data.annotated import Picture
from rtdetr_lab.data.findings import Finding, Rule
from rtdetr_lab.data.places import Places
from rtdetr_lab.errors import ImageError
from rtdetr_lab.images.decode import decode
from rtdetr_lab.images.modes import ORIENTATION, UPRIGHT
from rtdetr_lab.notation import Size

AS_STORED = {
    **UPRIGHT,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}
"""EXIF orientation → what undoes the turn a viewer makes."""


@dataclass(frozen=True, eq=False)
class Opened:
    """A picture's pixels as stored, if they can be had, and what is wrong with it."""

    path: Path | None = None
    raster: UInt8[np.ndarray, "H W 3"] | None = None
    findings: tuple[Finding, ...] = ()


def open_picture(picture: Picture, places: Places) -> Opened:
    """Find and decode a picture, and compare it with what the annotations say."""
    path = places.find(picture)
    if isinstance(path, Finding):
        return Opened(findings=(path,))

    def found(rule: Rule, what: str, advice: str = "") -> tuple[Finding]:
        return (Finding(rule, str(path), what, "picture", picture.id, advice),)

    try:
        raster, orientation = (decode(path), 1) if picture.upright else read_raster(path)
    except ImageError as error:
        return Opened(path, None, found(rules.UNDECODABLE, error.what, error.remedy))
    (height, width), (h, w) = raster.shape[:2], picture.size
    if (height, width) == (h, w):
        what = f"has the EXIF orientation {orientation}: a viewer turns it, its boxes are not"
        return Opened(path, raster, found(rules.TURNED, what) if orientation != 1 else ())
    what = f"is {width}×{height}, {places.annotations} says {w}×{h}"
    if orientation in SIDEWAYS and (width, height) == (h, w):
        what += f", as a viewer shows it (EXIF orientation {orientation})"
        return Opened(path, raster, found(rules.TURNED_SIZE, what))
    return Opened(path, raster, found(rules.WRONG_SIZE, what))


SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that exchange width and height."""


def read_raster(path: Path) -> tuple[UInt8[np.ndarray, "H W 3"], int]:
    """The pixels in the order they are stored in, and the turn that the EXIF asks a viewer for."""
    upright, orientation = decode(path), orientation_of(path)
    turn = AS_STORED.get(orientation)
    raster = upright if turn is None else np.array(Image.fromarray(upright).transpose(turn))
    return raster, orientation


def orientation_of(path: Path) -> int:
    """The EXIF orientation of a picture that can be decoded; 1 is upright."""
    with Image.open(path) as image:
        try:
            orientation = int(image.getexif().get(ORIENTATION, 1))
        except Exception:  # broken EXIF is common, and `decode` turns nothing then either
            return 1
    return orientation if orientation in UPRIGHT else 1


def sizes_of(path: Path) -> tuple[Size, Size]:
    """(height, width) of a picture as stored, and as a viewer shows it; raises `ImageError`."""
    try:
        with Image.open(path) as image:
            width, height = image.size
        turned = orientation_of(path) in SIDEWAYS
    except Exception as error:  # whatever Pillow stumbles over is about this file
        what = f"cannot be decoded ({error})"
        raise ImageError(str(path), what, "fetch it again, or remove it") from error
    return (height, width), (width, height) if turned else (height, width)
