"""# COCO: photographs, and a JSON that says what is on them

COCO's format is a list of pictures, one of annotations and one of categories, tied by ids. Ids are
names, not numbers: the 80 categories of COCO run to 90 with gaps, others start at 0. A model wants
labels 0 … C - 1, so categories are sorted by id, and the place in that order is the label;
`category_ids[label]` leads back.

| annotation says                | training sees           | evaluation sees                     |
|--------------------------------|-------------------------|-------------------------------------|
| an object                      | its box, clipped        | its box as annotated                |
| a box without area, or outside | nothing (`dropped`)     | nothing                             |
| a crowd (`iscrowd`)            | nothing (`dropped`)     | a region where nothing is wrong     |

What is wrong or dropped follows from the rules of `findings.py`, which `preflight.py` applies to a
whole data set before training.

Boxes refer to the raster as stored. A photo whose EXIF says that a viewer should turn it is
therefore *not* turned here.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rtdetr_lab.boxes import cxcywh_from_xyxy, xyxy_from_xywh
from rtdetr_lab.data.annotated import Annotations
from rtdetr_lab.data.batch import Sample, Truth
from rtdetr_lab.data.coco_files import open_picture
from rtdetr_lab.data.findings import count_dropped, raise_first_error
from rtdetr_lab.data.layout import find_layout
from rtdetr_lab.data.places import Places
from rtdetr_lab.data.rle import decode_mask
from rtdetr_lab.data.transforms import image_of
from rtdetr_lab.errors import DataError
from rtdetr_lab.images.decode import DEFAULT_LIMITS, Limits


@dataclass(frozen=True, eq=False)
class CocoDataset:
    """The pictures of one annotation file, at the size they are stored in."""

    annotations: Annotations
    folder: Path
    with_masks: bool = False
    limits: Limits = DEFAULT_LIMITS

    @classmethod
    def from_folder(
        cls, folder: str | Path, split: str = "train", with_masks: bool = False
    ) -> "CocoDataset":
        """The annotations of a split of a folder, in any format that `layout.py` knows."""
        layout = find_layout(folder)
        return cls(layout[split].load(), layout.folder, with_masks)

    @classmethod
    def from_json(
        cls, annotations: str | Path, folder: str | Path | None = None, with_masks: bool = False
    ) -> "CocoDataset":
        """An annotation file, and the folder of its pictures if they lie elsewhere."""
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
        """How many annotations training does not see, by the rule of `findings.py`."""
        return count_dropped(self.annotations.findings)

    @cached_property
    def places(self) -> Places:
        """Where the pictures lie."""
        return Places(self.folder, self.annotations.path)

    def __len__(self) -> int:
        return len(self.annotations.pictures)

    def __getitem__(self, index: int) -> Sample:
        picture = self.annotations.pictures[index]
        opened = open_picture(picture, self.places, self.limits)
        raise_first_error(opened.findings)
        assert opened.raster is not None
        truth = self._truth(index)
        objects = ~truth.is_crowd
        boxes_xyxy = clip(truth.boxes_xyxy[objects], picture.size)
        height, width = picture.size
        return Sample(
            image=image_of(opened.raster),
            labels=truth.labels[objects],
            boxes=cxcywh_from_xyxy(boxes_xyxy) / torch.tensor([width, height, width, height]),
            truth=truth,
            masks=self._masks(index) if self.with_masks else None,
        )

    def _truth(self, index: int) -> Truth:
        picture = self.annotations.pictures[index]
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

    def _masks(self, index: int) -> Tensor:
        picture = self.annotations.pictures[index]
        masks = np.zeros((0, *picture.size), dtype=bool)
        for a in picture.annotations:
            if a.is_crowd:
                continue
            where = f"{self.annotations.path}: annotation {a.id}"
            if not a.segmentation:
                raise DataError(where, "has no segmentation", "load without with_masks=True")
            mask = decode_mask(a.segmentation, picture.size, where)
            masks = np.concatenate([masks, mask[None]])
        return torch.from_numpy(masks)


def clip(boxes_xyxy: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes cut off at the borders of a picture of (height, width)."""
    height, width = size
    edge = boxes_xyxy.new_tensor([width, height, width, height])
    return boxes_xyxy.clamp(min=0).minimum(edge)
