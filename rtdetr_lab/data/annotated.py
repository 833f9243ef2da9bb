"""# Annotated: what an annotation file says, once its ids have become labels"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtdetr_lab.data.findings import CROWD, NEGATIVE, NO_AREA, OUTSIDE, Finding, Rule
from rtdetr_lab.notation import Size


@dataclass(frozen=True, eq=False)
class Annotated:
    """One annotation whose box has an area."""

    id: int
    label: int
    box_xywh: tuple[float, float, float, float]
    area: float
    is_crowd: bool
    segmentation: Any = None


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture of the list, with its annotations."""

    id: int
    file_name: str
    size: Size
    annotations: tuple[Annotated, ...]


@dataclass(frozen=True, eq=False)
class Annotations:
    """A whole file: labels are places in `names` and `category_ids`."""

    path: Path
    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    pictures: tuple[Picture, ...]
    findings: tuple[Finding, ...] = ()


def reason_to_drop(box_xywh: tuple[float, ...], is_crowd: bool, size: Size) -> Rule | None:
    """Why training does not see a box, if it does not."""
    x, y, w, h = box_xywh
    height, width = size
    if w < 0 or h < 0:
        return NEGATIVE
    if w == 0 or h == 0:
        return NO_AREA
    if min(x + w, width) <= max(x, 0) or min(y + h, height) <= max(y, 0):
        return OUTSIDE
    return CROWD if is_crowd else None
