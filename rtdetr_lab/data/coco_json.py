"""# The JSON of COCO: read strictly, with the file and the id in each error

Three lists refer to each other, and mistakes by hand are easy. If we skipped a wrong reference in
silence, a model might never learn one class. So we check each reference when we read it.

`inspect_annotations` reads as much as possible and reports everything it finds (`findings.py`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtdetr_lab.data import findings as rules
from rtdetr_lab.data.annotated import Annotated, Annotations, Listed, Picture, Reading
from rtdetr_lab.data.findings import raise_first_error
from rtdetr_lab.data.text import is_finite, json_of, whole
from rtdetr_lab.errors import DataError
from rtdetr_lab.notation import Size

KINDS = {"categories": "category", "images": "picture", "annotations": "annotation"}
"""The three lists, and the word for one entry of them in a finding."""

CROWDS = {0: False, 1: True, "0": False, "1": True, None: False}
"""The values that `iscrowd` may have."""


def inspect_annotations(path: Path) -> Annotations:
    """Read as much of a file as possible, and collect everything wrong in its `findings`."""
    reader = CocoReader(path)
    tree = reader.parse()
    if not all(reader.has_list(tree, key) for key in KINDS) or reader.is_panoptic(tree):
        return reader.annotations({}, ())
    categories = sorted(reader.by_id(tree, "categories").items())
    names = {i: str(category.get("name", "")) for i, category in categories}
    pictures = reader.pictures(tree, {category: label for label, category in enumerate(names)})
    reader.tell_points()
    return reader.annotations(names, pictures)


def listed_pictures(path: Path) -> list[Listed]:
    """Return the pictures that a file lists; it needs no annotations. Raises `DataError`."""
    reader = CocoReader(path)
    tree = reader.parse()
    if not reader.has_list(tree, "images"):
        what = f"is no COCO annotation file ({reader.findings[0].what})"
        raise DataError(str(path), what, "give the COCO JSON that lists these pictures")
    images = reader.by_id(tree, "images")
    raise_first_error(reader.findings)
    return [
        Listed(number, str(image.get("file_name", "")), reader.size(image, number))
        for number, image in images.items()
    ]


class CocoReader(Reading):
    """Reads one file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.files.append(path)
        self.points: list[float] = []

    def parse(self) -> Mapping[str, Any]:
        tree = self.attempt(json_of, self.path, rules.NOT_COCO)
        if not isinstance(tree, dict) and not self.findings:
            self.find(rules.NOT_COCO, "is not COCO's format")
        return tree if isinstance(tree, dict) else {}

    def has_list(self, tree: Mapping[str, Any], key: str) -> bool:
        entries = tree.get(key)
        well = isinstance(entries, list) and all(isinstance(e, dict) for e in entries)
        if not well and not self.findings:  # report the first fault only
            advice = "write images, annotations and categories, each a list of objects"
            self.find(rules.NOT_COCO, f"has no list of {key}", advice=advice)
        return well

    def is_panoptic(self, tree: Mapping[str, Any]) -> bool:
        panoptic = any("segments_info" in entry for entry in tree["annotations"])
        if panoptic:
            advice = "read it with rtdetr_lab.data.coco_panoptic.PanopticDataset"
            what = "is COCO's panoptic format, not its detection format"
            self.find(rules.NOT_COCO, what, advice=advice)
        return panoptic

    def number(self, value: object) -> int | None:
        """Return a whole number or None; remember a number that has a decimal point."""
        number = whole(value)
        if number is not None and isinstance(value, float):
            self.points.append(value)
        return number

    def tell_points(self) -> None:
        if self.points:
            what = f"has {len(self.points)} numbers such as {self.points[0]}, read as whole numbers"
            self.find(rules.POINTS, what)

    def by_id(self, tree: Mapping[str, Any], key: str) -> dict[int, dict[str, Any]]:
        kind, by_id = KINDS[key], dict[int, dict[str, Any]]()
        for entry in tree[key]:
            number = self.number(entry.get("id"))
            if number is None:
                self.find(rules.BAD_ID, f"has the id {entry.get('id')!r}", kind)
            elif number in by_id:
                self.find(rules.DUPLICATE_ID, "occurs twice", kind, number)
            else:
                by_id[number] = entry
        return by_id

    def size(self, entry: Mapping[str, Any], number: int) -> Size | None:
        height, width = self.number(entry.get("height")), self.number(entry.get("width"))
        if height and width and min(height, width) >= 1:
            return height, width
        what = f"has width {entry.get('width')!r} and height {entry.get('height')!r}"
        self.find(rules.BAD_SIZE, what, "picture", number)
        return None

    def pictures(self, tree: Mapping[str, Any], labels: Mapping[int, int]) -> tuple[Picture, ...]:
        """Return the pictures that have a size, with all annotations that evaluation sees."""
        images = self.by_id(tree, "images")
        sizes = {i: size for i, image in images.items() if (size := self.size(image, i))}
        for number, entry in self.by_id(tree, "annotations").items():
            picture = self.number(entry.get("image_id"))
            if picture is None or picture not in images:
                what = f"is on picture {entry.get('image_id')!r}, which is not listed"
                self.find(rules.UNLISTED_PICTURE, what, "annotation", number)
                continue
            one = self.annotated(entry, number, labels, picture)
            if one is not None and picture in sizes:
                self.keep(one, picture, sizes[picture])
        return tuple(
            Picture(i, str(images[i].get("file_name", "")), size, tuple(self.kept.get(i, ())))
            for i, size in sizes.items()
        )

    def annotated(
        self, entry: Mapping[str, Any], number: int, labels: Mapping[int, int], picture: int
    ) -> Annotated | None:
        place: dict[str, Any] = {"kind": "annotation", "number": number, "picture": picture}
        category, box = self.number(entry.get("category_id")), entry.get("bbox")
        crowd = entry.get("iscrowd", 0)
        if category is None or category not in labels:
            what = f"is of category {entry.get('category_id')!r}, which is not listed"
            self.find(rules.UNKNOWN_CATEGORY, what, **place)
            return None
        if not (isinstance(box, list) and len(box) == 4 and all(map(is_finite, box))):
            self.find(rules.BAD_BOX, f"has the bbox {box!r}", **place)
            return None
        if isinstance(crowd, list | dict) or crowd not in CROWDS:
            self.find(rules.BAD_CROWD, f"has iscrowd {crowd!r}", **place)
            return None
        x, y, w, h = (float(n) for n in box)
        area: Any = entry.get("area")
        return Annotated(
            id=number,
            label=labels[category],
            box_xywh=(x, y, w, h),
            area=float(area) if is_finite(area) and area > 0 else w * h,
            is_crowd=CROWDS[crowd],
            segmentation=entry.get("segmentation"),
        )
