"""# The JSON of COCO: read strictly, with the file and the id in every complaint

Three lists that refer to each other are easy to get wrong by hand, and a wrong reference that is
skipped in silence becomes a model that never learns one class. So each is checked when it is read.

`inspect_annotations` reads what can be read and reports everything it finds (`findings.py`);
`read_annotations`, which training uses, is the same and refuses the first error.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rtdetr_lab.data.annotated import Annotated, Annotations, Picture, reason_to_drop
from rtdetr_lab.data.findings import (
    BAD_BOX,
    BAD_ID,
    BAD_SIZE,
    CROWD,
    DUPLICATE_ID,
    NOT_COCO,
    UNKNOWN_CATEGORY,
    UNLISTED_PICTURE,
    Finding,
    Rule,
    raise_first_error,
)
from rtdetr_lab.notation import Size


def read_annotations(path: Path) -> Annotations:
    """Read and check a file; raises `DataError` naming the file and the id of what is wrong."""
    found = inspect_annotations(path)
    raise_first_error(found.findings)
    return found


def inspect_annotations(path: Path) -> Annotations:
    """What can be read of a file, with everything that is wrong in its `findings`."""
    reader = _Reader(path)
    tree = reader.parse()
    if not all(reader.has_list(tree, key) for key in KINDS):
        return Annotations(path, (), (), (), tuple(reader.findings))
    names = {i: str(c.get("name", "")) for i, c in reader.by_id(tree, "categories").items()}
    category_ids = tuple(sorted(names))
    images = reader.by_id(tree, "images")
    sizes = {i: size for i, image in images.items() if (size := reader.size(image, i))}
    on_picture: dict[int, list[Annotated]] = {i: [] for i in sizes}
    labels = {category: label for label, category in enumerate(category_ids)}
    for picture, annotated in reader.annotated(tree, images, sizes, labels):
        on_picture[picture].append(annotated)
    pictures = tuple(
        Picture(i, str(images[i].get("file_name", "")), size, tuple(on_picture[i]))
        for i, size in sizes.items()
    )
    by_label = tuple(names[c] for c in category_ids)
    return Annotations(path, by_label, category_ids, pictures, tuple(reader.findings))


KINDS = {"categories": "category", "images": "picture", "annotations": "annotation"}


class _Reader:
    """Goes through one file and keeps what it finds."""

    def __init__(self, path: Path) -> None:
        self.path, self.findings = path, list[Finding]()

    def find(
        self, rule: Rule, what: str, kind: str = "", number: Any = None, advice: str = ""
    ) -> None:
        self.findings.append(Finding(rule, str(self.path), what, kind, number, advice))

    def parse(self) -> Mapping[str, Any]:
        try:
            tree = json.loads(self.path.read_bytes())
        except OSError as error:
            self.find(NOT_COCO, f"cannot be read ({error.strerror})", advice="check the path")
        except (ValueError, RecursionError) as error:
            self.find(NOT_COCO, f"is not JSON ({error})", advice="write it again")
        else:
            if isinstance(tree, dict):
                return tree
            self.find(NOT_COCO, "is not COCO's format")
        return {}

    def has_list(self, tree: Mapping[str, Any], key: str) -> bool:
        entries = tree.get(key)
        well = isinstance(entries, list) and all(isinstance(e, dict) for e in entries)
        if well and any("segments_info" in e for e in tree[key]):
            advice = "read it with rtdetr_lab.data.coco_panoptic.PanopticDataset"
            self.find(
                NOT_COCO, "is COCO's panoptic format, not its detection format", advice=advice
            )
            return False
        if not well and not self.findings:  # one missing list, or a file that is none, is enough
            advice = "write images, annotations and categories, each a list of objects"
            self.find(NOT_COCO, f"has no list of {key}", advice=advice)
        return well

    def by_id(self, tree: Mapping[str, Any], key: str) -> dict[int, dict[str, Any]]:
        kind, by_id = KINDS[key], dict[int, dict[str, Any]]()
        for entry in tree[key]:
            number = entry.get("id")
            if type(number) is not int:
                self.find(BAD_ID, f"has the id {number!r}", kind)
            elif number in by_id:
                self.find(DUPLICATE_ID, "occurs twice", kind, number)
            else:
                by_id[number] = entry
        return by_id

    def size(self, entry: Mapping[str, Any], number: int) -> Size | None:
        height, width = entry.get("height"), entry.get("width")
        if type(height) is int and type(width) is int and min(height, width) >= 1:
            return height, width
        self.find(BAD_SIZE, f"has width {width!r} and height {height!r}", "picture", number)
        return None

    def annotated(
        self,
        tree: Mapping[str, Any],
        images: Mapping[int, Any],
        sizes: Mapping[int, Size],
        labels: Mapping[int, int],
    ) -> Iterator[tuple[int, Annotated]]:
        """(picture id, annotation) of all that evaluation sees."""
        for number, entry in self.by_id(tree, "annotations").items():
            picture = entry.get("image_id")
            if type(picture) is not int or picture not in images:
                what = f"is on picture {picture!r}, which is not listed"
                self.find(UNLISTED_PICTURE, what, "annotation", number)
                continue
            one = self._annotated(entry, labels)
            if one is None or picture not in sizes:
                continue
            rule = reason_to_drop(one.box_xywh, one.is_crowd, sizes[picture])
            if rule is not None:
                box, (height, width) = list(one.box_xywh), sizes[picture]
                what = f"has the bbox {box} on picture {picture} of {width}×{height}"
                self.find(rule, what, "annotation", number)
            if rule in (None, CROWD):
                yield picture, one

    def _annotated(self, entry: Mapping[str, Any], labels: Mapping[int, int]) -> Annotated | None:
        category, box, number = entry.get("category_id"), entry.get("bbox"), entry["id"]
        if type(category) is not int or category not in labels:
            what = f"is of category {category!r}, which is not listed"
            self.find(UNKNOWN_CATEGORY, what, "annotation", number)
            return None
        if not (isinstance(box, list) and len(box) == 4 and all(_is_finite(n) for n in box)):
            self.find(BAD_BOX, f"has the bbox {box!r}", "annotation", number)
            return None
        x, y, w, h = (float(n) for n in box)
        area = entry.get("area", w * h)
        return Annotated(
            id=number,
            label=labels[category],
            box_xywh=(x, y, w, h),
            area=float(area) if _is_finite(area) else w * h,
            is_crowd=bool(entry.get("iscrowd", 0)),
            segmentation=entry.get("segmentation"),
        )


def _is_finite(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
