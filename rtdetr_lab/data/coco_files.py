"""# Opened: a picture's pixels in the frame of its boxes, compared with what the annotations say"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from rtdetr_lab.data import findings as rules
from rtdetr_lab.data.annotated import Picture
from rtdetr_lab.data.findings import Finding, Rule
from rtdetr_lab.data.places import Places
from rtdetr_lab.errors import ImageError
from rtdetr_lab.images.decode import DEFAULT_LIMITS, Limits, read_photo


@dataclass(frozen=True, eq=False)
class Opened:
    """A picture's pixels as stored, if they can be had, and what is wrong with it."""

    path: Path | None = None
    raster: UInt8[np.ndarray, "H W 3"] | None = None
    findings: tuple[Finding, ...] = ()


def open_picture(picture: Picture, places: Places, limits: Limits = DEFAULT_LIMITS) -> Opened:
    """Find and decode a picture, and compare it with what the annotations say."""
    path = places.find(picture)
    if isinstance(path, Finding):
        return Opened(findings=(path,))

    def found(rule: Rule, what: str, advice: str = "") -> tuple[Finding]:
        return (Finding(rule, str(path), what, "picture", picture.id, advice),)

    try:
        photo = read_photo(path, limits)
    except ImageError as error:
        return Opened(path, None, found(rules.UNDECODABLE, error.what, error.remedy))
    frame, turned = photo.frame, photo.frame.orientation != 1
    if picture.upright:
        size, raster = frame.upright, photo.rgb
    else:
        size, raster = frame.stored, photo.raster
    if size == picture.size:
        what = f"has the EXIF orientation {frame.orientation}: a viewer turns it, its boxes are not"
        wrong = found(rules.TURNED, what) if turned and not picture.upright else ()
        return Opened(path, raster, wrong)
    (height, width), (h, w) = size, picture.size
    what = f"is {width}×{height}, {places.annotations} says {w}×{h}"
    if frame.upright == picture.size:
        what += f", as a viewer shows it (EXIF orientation {frame.orientation})"
        return Opened(path, raster, found(rules.TURNED_SIZE, what))
    return Opened(path, raster, found(rules.WRONG_SIZE, what))
