"""# COCO: photographs, and a JSON that says what is on them

COCO's format has three lists: pictures, annotations and categories. Ids connect them. Ids are
names, not numbers: the 80 categories of COCO run to 90 with gaps, others start at 0. A model needs
labels 0 … C - 1. So we sort the categories by id, and the index in that order is the label.
`category_ids[label]` returns the id.

| annotation says                | training sees           | evaluation sees                     |
|--------------------------------|-------------------------|-------------------------------------|
| an object                      | its box, clipped        | its box as annotated                |
| a box without area, or outside | nothing (`dropped`)     | nothing                             |
| a crowd (`iscrowd`)            | nothing (`dropped`)     | a region where nothing is wrong     |

The rules of `findings.py` decide what is wrong and what is dropped. `preflight.py` applies them to
a whole data set before training.

Boxes refer to the raster as stored. So we do *not* rotate a photo here, even if its EXIF tells a
viewer to rotate it. One exception: if the annotations give the (height, width) of the rotated
photo, we rotate the pixels, because the boxes refer to them (`images/frames.py` decides).
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from rtdetr_lab.boxes import xyxy_from_xywh
from rtdetr_lab.data import findings as rules
from rtdetr_lab.data.annotated import Annotations, Picture
from rtdetr_lab.data.batch import Sample, Truth
from rtdetr_lab.data.findings import Finding, Rule, count_dropped, raise_first_error
from rtdetr_lab.data.layout import find_layout
from rtdetr_lab.data.places import Places
from rtdetr_lab.data.rle import decode_mask
from rtdetr_lab.data.transforms import image_of
from rtdetr_lab.errors import DataError, ImageError
from rtdetr_lab.images.decode import DEFAULT_LIMITS, Limits, read_photo
from rtdetr_lab.images.frames import Frame


@dataclass(frozen=True, eq=False)
class CocoDataset:
    """The pictures of one annotation file, at the size in which they are stored."""

    annotations: Annotations
    folder: Path
    with_masks: bool = False
    limits: Limits = DEFAULT_LIMITS

    @classmethod
    def from_folder(
        cls, folder: str | Path, split: str = "train", with_masks: bool = False
    ) -> "CocoDataset":
        """Read a split of a folder, in any format that `layout.py` supports."""
        layout = find_layout(folder)
        return cls(layout[split].load(), layout.folder, with_masks)

    @classmethod
    def from_json(
        cls, annotations: str | Path, folder: str | Path | None = None, with_masks: bool = False
    ) -> "CocoDataset":
        """Read an annotation file. Give the folder of its pictures if they lie elsewhere."""
        layout = find_layout(annotations)
        (split,) = (split for splits in layout.splits.values() for split in splits)
        return cls(split.load(), Path(folder or layout.folder), with_masks)

    @property
    def names(self) -> tuple[str, ...]:
        """Class names by label."""
        return self.annotations.names

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The annotation's ids by label."""
        return self.annotations.category_ids

    @property
    def dropped(self) -> dict[str, int]:
        """The number of annotations that training does not see, per rule of `findings.py`."""
        return count_dropped(self.annotations.findings)

    @cached_property
    def places(self) -> Places:
        """The lookup of picture files on disk."""
        return Places(self.folder, self.annotations.path)

    def __len__(self) -> int:
        return len(self.annotations.pictures)

    def __getitem__(self, index: int) -> Sample:
        picture = self.annotations.pictures[index]
        opened = open_picture(picture, self.places, self.limits)
        raise_first_error(opened.findings)
        assert opened.raster is not None
        masks = self._masks(picture) if self.with_masks else None
        truth = _truth_of(picture)
        if self.with_masks:
            truth = replace(truth, segmentations=tuple(a.segmentation for a in picture.annotations))
        return Sample.of(image_of(opened.raster), truth, masks)

    def _masks(self, picture: Picture) -> Tensor:
        masks = []
        for a in picture.objects:
            where = f"{self.annotations.path}: annotation {a.id}"
            if not a.segmentation:
                remedy = "give it one, or use a model without masks"
                raise DataError(where, "has no segmentation", remedy)
            masks.append(decode_mask(a.segmentation, picture.size, where))
        return torch.from_numpy(np.array(masks, dtype=bool).reshape(-1, *picture.size))


def _truth_of(picture: Picture) -> Truth:
    annotated = picture.annotations
    boxes = torch.tensor([a.box_xywh for a in annotated], dtype=torch.float32).reshape(-1, 4)
    return Truth(
        image_id=picture.id,
        size=picture.size,
        labels=torch.tensor([a.label for a in annotated], dtype=torch.int64),
        boxes_xyxy=xyxy_from_xywh(boxes),
        areas=torch.tensor([a.area for a in annotated], dtype=torch.float32),
        is_crowd=torch.tensor([a.is_crowd for a in annotated], dtype=torch.bool),
        file_name=picture.file_name,
    )


@dataclass(frozen=True, eq=False)
class Opened:
    """The pixels of a picture in the frame of its boxes, if it can be decoded, and its findings."""

    path: Path | None = None
    raster: UInt8[np.ndarray, "H W 3"] | None = None
    findings: tuple[Finding, ...] = ()


def open_picture(picture: Picture, places: Places, limits: Limits = DEFAULT_LIMITS) -> Opened:
    """Find and decode a picture, and compare it with its annotations."""
    path = places.find(picture)
    if isinstance(path, Finding):
        return Opened(findings=(path,))

    def found(rule: Rule, what: str, advice: str = "") -> tuple[Finding]:
        return (Finding(rule, str(path), what, "picture", picture.id, advice),)

    try:
        photo = read_photo(path, limits)
    except ImageError as error:
        return Opened(path, None, found(rules.UNDECODABLE, error.what, error.remedy))
    stored = Frame(photo.frame.upright) if picture.upright else photo.frame
    try:
        frame = stored.of_annotations(picture.size, str(path))
    except ImageError:
        (height, width), (h, w) = stored.stored, picture.size
        what = f"is {width}×{height}, but {places.annotations} says {w}×{h}"
        return Opened(path, photo.raster, found(rules.WRONG_SIZE, what))
    what = f"has the EXIF orientation {frame.orientation}: a viewer rotates it, but not its boxes"
    turned = found(rules.TURNED, what) if frame.orientation != 1 else ()
    return Opened(path, frame.pixels_as_stored(photo.rgb), turned)
