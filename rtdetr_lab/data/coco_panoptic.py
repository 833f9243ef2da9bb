r"""# COCO panoptic: every pixel belongs to one segment

A JSON lists the segments of each picture (id, category, crowd or not). A PNG beside it gives the
segment of each pixel as a colour (`segment_map.py`).

    panoptic_val2017.json    panoptic_val2017/000000000139.png    val2017/000000000139.jpg

Categories are things or stuff (`isthing`). The JSON and the PNG describe the same pixels, so they
can contradict each other. We check each picture when we read it, and raise an error with the
numbers for a colour without an entry, an entry without a pixel, a PNG of another size, or a
category that is not listed.

Boxes are the boxes around the masks. A `SegmentMap` is the truth that panoptic quality measures
against. A `DETRSegmentation` learns from a `Sample`, which has no crowds.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, UInt8

from rtdetr_lab.data.annotated import Annotated, Annotations, Picture
from rtdetr_lab.data.batch import Sample, Truth
from rtdetr_lab.data.coco_json import KINDS, CocoReader
from rtdetr_lab.data.findings import raise_first_error
from rtdetr_lab.data.places import inside, slashed
from rtdetr_lab.data.rle import run_lengths
from rtdetr_lab.data.segment_map import SegmentMap, TrueSegment, boxes_of, check_listed, rgb_to_id
from rtdetr_lab.data.transforms import image_of
from rtdetr_lab.errors import DataError
from rtdetr_lab.images.decode import read_photo

PICTURES = ("{}2017", "{}", "images/{}2017", "images/{}", "images", "")
"""Where the pictures of a split may lie."""


@dataclass(frozen=True, eq=False)
class PanopticDataset:
    """The pictures of one panoptic annotation file, at the size in which they are stored."""

    path: Path
    png_folder: Path
    picture_folder: Path
    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    stuff_ids: frozenset[int]
    entries: tuple[Mapping[str, Any], ...]

    @classmethod
    def from_folder(cls, folder: str | Path, split: str = "val") -> "PanopticDataset":
        """Read a split from one of the usual places; raises `DataError` if it is in none."""
        root, found = Path(folder), find_panoptic(Path(folder), split)
        if found is None:
            what = f"has no panoptic annotations for {split!r}"
            raise DataError(str(root), what, f"put annotations/panoptic_{split}2017.json there")
        return cls.from_json(found, found.with_suffix(""), _pictures_of(root, split))

    @classmethod
    def from_json(
        cls, annotations: str | Path, png_folder: str | Path, picture_folder: str | Path
    ) -> "PanopticDataset":
        """Read an annotation file, with the folder of its PNGs and the folder of its pictures."""
        path = Path(annotations)
        reader = CocoReader(path)
        tree = reader.parse()
        for key in KINDS:
            reader.has_list(tree, key)
        raise_first_error(reader.findings)
        if any("bbox" in one and "segments_info" not in one for one in tree["annotations"]):
            what = "is COCO's detection format, not its panoptic format"
            raise DataError(str(path), what, "read it with rtdetr_lab.data.coco.CocoDataset")
        try:
            categories = sorted(tree["categories"], key=lambda c: int(c["id"]))
            ids = tuple(int(c["id"]) for c in categories)
            stuff = frozenset(int(c["id"]) for c in categories if not c.get("isthing", 1))
            entries = _entries(tree, path)
        except (KeyError, TypeError, ValueError) as error:
            what = f"has an incomplete or wrong entry ({error!r})"
            raise DataError(str(path), what, "give COCO's panoptic format") from error
        names = tuple(str(c.get("name", "")) for c in categories)
        return cls(path, Path(png_folder), Path(picture_folder), names, ids, stuff, entries)

    def __len__(self) -> int:
        return len(self.entries)

    def picture(self, index: int) -> UInt8[np.ndarray, "H W 3"]:
        """Return the pixels as stored."""
        return self._raster(self.picture_folder, "picture", self.entries[index])

    def truth(self, index: int) -> SegmentMap:
        """Return the segment of each pixel. Raises `DataError` if map and list contradict each
        other."""
        entry = self.entries[index]
        where = f"{self.path}: picture {entry['image_id']}"
        ids = rgb_to_id(self._raster(self.png_folder, "png", entry))
        segments = entry["segments"]
        remedy = f"correct {entry['png']} or its segments_info"
        check_listed(ids, {s.id for s in segments}, where, remedy)
        for s in segments:
            if s.category_id not in self.category_ids:
                what = f"segment {s.id} is of category {s.category_id}, which is not listed"
                raise DataError(where, what, "add it to categories")
        return SegmentMap(torch.from_numpy(ids), segments)

    def annotations(self) -> Annotations:
        """Return each segment, of a thing or of stuff, as an annotation with its mask.

        All PNGs are read. Raises `DataError` for the first that contradicts the list.
        """
        numbers = count(1)
        pictures = tuple(self._annotated(index, numbers) for index in range(len(self)))
        files = (self.path, *sorted(self.png_folder.glob("*.png")))
        return Annotations(self.path, self.names, self.category_ids, pictures, files=files)

    def _annotated(self, index: int, numbers: Iterator[int]) -> Picture:
        entry, found, kept = self.entries[index], self.truth(index), []
        masks = _masks(found)
        for one, mask, box in zip(found.segments, masks, boxes_of(masks).tolist(), strict=True):
            x0, y0, x1, y1 = box
            place, label = (x0, y0, x1 - x0, y1 - y0), self.category_ids.index(one.category_id)
            runs, area = run_lengths(mask.numpy()), int(mask.sum())
            kept.append(Annotated(next(numbers), label, place, area, one.is_crowd, runs))
        path = self.picture_folder / slashed(entry["picture"])
        return Picture(entry["image_id"], entry["picture"], entry["size"], tuple(kept), path=path)

    def __getitem__(self, index: int) -> Sample:
        entry, found, ids = self.entries[index], self.truth(index), self.category_ids
        masks = _masks(found)
        truth = Truth(
            image_id=entry["image_id"],
            size=entry["size"],
            labels=torch.tensor([ids.index(s.category_id) for s in found.segments]).long(),
            boxes_xyxy=boxes_of(masks),
            areas=masks.flatten(1).sum(1).float(),
            is_crowd=torch.tensor([s.is_crowd for s in found.segments], dtype=torch.bool),
        )
        return Sample.of(image_of(self.picture(index)), truth, masks[~truth.is_crowd])

    def _raster(self, folder: Path, key: str, entry: Mapping[str, Any]) -> np.ndarray:
        """Read the pixels of a file as stored, and check that they have the size in the JSON."""
        path = inside(folder, folder / slashed(entry[key]))
        if path is None:
            what = f"the file_name {entry[key]!r} leaves the folder"
            raise DataError(str(self.path), what, "do not trust this file")
        raster, (height, width) = read_photo(path).raster, entry["size"]
        if raster.shape[:2] != (height, width):
            found = f"{raster.shape[0]}×{raster.shape[1]}"
            what = f"is {found} on disk, but the annotations say {height}×{width} (height × width)"
            where = f"{self.path}: picture {entry['image_id']}"
            raise DataError(where, what, "export the data set again")
        return raster


def _masks(found: SegmentMap) -> Bool[torch.Tensor, "S H W"]:
    """Return the pixels of each segment."""
    return found.ids == torch.tensor([s.id for s in found.segments]).long()[:, None, None]


def find_panoptic(folder: Path, split: str) -> Path | None:
    """Return the annotation file of a split, from one of the usual places; None if in none."""
    names = [f"panoptic_{split}{year}.json" for year in ("2017", "")]
    paths = [folder / place / name for name in names for place in ("annotations", "")]
    return next((path for path in paths if path.is_file()), None)


def _pictures_of(root: Path, split: str) -> Path:
    return next(p for pattern in PICTURES if (p := root / pattern.format(split)).is_dir())


def _entries(tree: Mapping[str, Any], path: Path) -> tuple[Mapping[str, Any], ...]:
    images = {int(image["id"]): image for image in tree["images"]}
    annotated = [int(a["image_id"]) for a in tree["annotations"]]
    if sorted(annotated) != sorted(images):
        odd = sorted(set(annotated) ^ set(images)) or sorted(annotated)
        what = f"has {len(images)} images and {len(annotated)} annotations of other ids: {odd[:3]}"
        raise DataError(str(path), what, "give every image one annotation")
    return tuple(
        {
            "image_id": int(a["image_id"]),
            "picture": str(images[int(a["image_id"])]["file_name"]),
            "png": str(a["file_name"]),
            "size": tuple(int(images[int(a["image_id"])][side]) for side in ("height", "width")),
            "segments": tuple(
                TrueSegment(int(s["id"]), int(s["category_id"]), bool(s.get("iscrowd", 0)))
                for s in a["segments_info"]
            ),
        }
        for a in tree["annotations"]
    )
