"""# Table: detections of a whole data set, in columns

Five thousand pictures with three hundred detections each are 1.5 million detections. As
dictionaries they fill a gigabyte, as columns 84 MB. Most of them never count: COCO evaluates at
most the hundred best of a class in a picture. So `best` may drop the others without changing a
number.

## Precision and recall from faster-coco-eval, a few classes at a time

Classes do not affect each other, and the library needs a dictionary per detection. So we pass it
a few classes at a time, with at most `AT_ONCE` detections together, unless one class alone has
more. The numbers stay the same, and the memory does not grow with the data set.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from rtdetr_lab.boxes import xywh_from_xyxy
from rtdetr_lab.data.rle import areas_of, encode_mask
from rtdetr_lab.errors import DataError, import_extra
from rtdetr_lab.images.postprocess import Found


@dataclass(frozen=True, eq=False)
class Table:
    """Detections, one per row; boxes are left, top, width, height in pixels.

    `masks` are compressed run lengths (`data/rle.py`), if all detections have masks.
    """

    image_ids: Int[np.ndarray, "n"]
    category_ids: Int[np.ndarray, "n"]
    boxes_xywh: Float[np.ndarray, "n 4"]
    scores: Float[np.ndarray, "n"]
    masks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def of(
        cls, detections: Sequence[Mapping[str, Any]], ground_truth: Mapping[str, Any]
    ) -> "Table":
        """Read COCO's result format. Raises `DataError` for a detection that could not count."""
        _check(detections, ground_truth)
        boxes = np.array([d["bbox"] for d in detections], dtype=np.float64).reshape(-1, 4)
        return cls(
            np.array([d["image_id"] for d in detections], dtype=np.int64),
            np.array([d["category_id"] for d in detections], dtype=np.int64),
            boxes,
            np.array([d["score"] for d in detections], dtype=np.float64),
        )

    @classmethod
    def of_found(cls, found: Iterable[tuple[int, Found]], category_ids: Sequence[int]) -> "Table":
        """Build a table from pairs of picture id and detections.

        Raises `DataError` for a label without a category, and for numbers that are not finite.
        """
        pairs = [(i, f) for i, f in found if len(f)]
        for image_id, one in pairs:
            _check_found(one, image_id, len(category_ids))
        if not pairs:
            return cls(np.zeros(0, int), np.zeros(0, int), np.zeros((0, 4)), np.zeros(0))
        ids = np.asarray(category_ids, dtype=np.int64)
        return cls(
            np.repeat([i for i, _ in pairs], [len(f) for _, f in pairs]).astype(np.int64),
            np.concatenate([ids[f.labels.cpu().numpy()] for _, f in pairs]),
            np.concatenate([xywh_from_xyxy(f.boxes_xyxy.cpu().double()).numpy() for _, f in pairs]),
            np.concatenate([f.scores.cpu().double().numpy() for _, f in pairs]),
            _encoded([f for _, f in pairs]),
        )

    @classmethod
    def joined(cls, tables: Sequence["Table"]) -> "Table":
        """Join tables, one after the other."""
        drawn = [t for t in tables if len(t)] or tables  # an empty table does not say
        masked = all(t.masks is not None for t in drawn)
        columns = zip(*(t.columns[: 4 + masked] for t in drawn), strict=True)
        return cls(*map(np.concatenate, columns))

    @property
    def columns(self) -> tuple[np.ndarray, ...]:
        """The columns, in order: four, or five with masks."""
        four = (self.image_ids, self.category_ids, self.boxes_xywh, self.scores)
        return four if self.masks is None else (*four, self.masks)

    def at(self, keep: Bool[np.ndarray, "n"] | Int[np.ndarray, "m"]) -> "Table":
        """Select rows."""
        return Table(*(column[keep] for column in self.columns))

    def best(self, most: int) -> "Table":
        """Keep the best `most` of every class in every picture, in their order."""
        order = np.lexsort((-self.scores, self.category_ids, self.image_ids))
        image, category = self.image_ids[order], self.category_ids[order]
        starts = np.ones(len(order), dtype=bool)
        starts[1:] = (image[1:] != image[:-1]) | (category[1:] != category[:-1])
        place = np.arange(len(order))
        rank = place - np.maximum.accumulate(np.where(starts, place, 0))
        return self.at(np.sort(order[rank < most]))

    def rows(self, kind: str = "bbox") -> list[dict[str, Any]]:
        """Convert to the library's dictionaries; ids start at 1, because 0 means "not matched".

        The area is that of the box, or for "segm" that of the mask.
        """
        listed = zip(*(column.tolist() for column in self.columns[:4]), strict=True)
        rows = [
            {
                "id": n,
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "score": score,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            for n, (image, category, box, score) in enumerate(listed, 1)
        ]
        if kind == "segm" and self.masks is not None:
            areas = areas_of(self.masks.tolist())
            for row, mask, area in zip(rows, self.masks, areas, strict=True):
                row |= {"segmentation": mask, "area": area}
        return rows


def _encoded(found: Sequence[Found]) -> np.ndarray | None:
    drawn = [one.masks for one in found if one.masks is not None]
    if len(drawn) < len(found):
        return None
    masks = [encode_mask(mask) for of_picture in drawn for mask in of_picture.cpu().numpy()]
    return np.array([*masks, None], dtype=object)[:-1]  # None: no array of the dictionaries' keys


def _check_found(found: Found, image_id: int, num_categories: int) -> None:
    where = f"picture {image_id}"
    if (highest := int(found.labels.max())) >= num_categories:
        what = f"label {highest}, but the data has {num_categories} classes"
        raise DataError(where, what, "evaluate on the classes of the model")
    if not bool(found.boxes_xyxy.isfinite().all() and found.scores.isfinite().all()):
        raise DataError(where, "has a box or score that is not finite", "check the weights")


def _check(detections: Sequence[Mapping[str, Any]], ground_truth: Mapping[str, Any]) -> None:
    images = {image["id"] for image in ground_truth["images"]}
    categories = {category["id"] for category in ground_truth["categories"]}
    for i, d in enumerate(detections):
        where = f"detections[{i}]"
        if d["image_id"] not in images:
            what = f"is on picture {d['image_id']!r}, which the ground truth does not list"
            raise DataError(where, what, "evaluate on the pictures that were detected on")
        if d["category_id"] not in categories:
            what = f"is of category {d['category_id']!r}, which the ground truth does not list"
            raise DataError(where, what, "map labels to category ids (dataset.category_ids)")
        if not all(map(math.isfinite, (*d["bbox"], d["score"]))):
            raise DataError(where, "has a box or score that is not finite", "check the weights")


MAX_DETECTIONS = (1, 10, 100)
AT_ONCE = 150_000


def accumulated(
    ground_truth: Mapping[str, Any], table: Table, at_once: int = AT_ONCE, kind: str = "bbox"
) -> tuple[np.ndarray, np.ndarray]:
    """Compute precision and recall.

    Precision is by (threshold, recall, class, size, count), recall by (threshold, class, size,
    count). Values are -1 where there is no object to find. Raises `MissingExtraError` without the
    library.
    """
    table = table.best(MAX_DETECTIONS[-1])
    groups = _groups(ground_truth, table, at_once)
    parts = [accumulated_of(ground_truth, table, ids, kind) for ids in groups]
    precision, recall = zip(*parts, strict=True)
    return np.concatenate(precision, axis=2), np.concatenate(recall, axis=1)


def _groups(ground_truth: Mapping[str, Any], table: Table, at_once: int) -> Iterator[list[int]]:
    ids, counts = np.unique(table.category_ids, return_counts=True)
    count_of = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    group, size = list[int](), 0
    for category in sorted(c["id"] for c in ground_truth["categories"]):
        if group and size + count_of.get(category, 0) > at_once:
            yield group
            group, size = [], 0
        group.append(category)
        size += count_of.get(category, 0)
    yield group


def accumulated_of(
    ground_truth: Mapping[str, Any], table: Table, category_ids: Sequence[int], kind: str = "bbox"
) -> tuple[np.ndarray, np.ndarray]:
    """Compute precision and recall of some classes; `table` may contain other classes."""
    library = import_extra("faster_coco_eval", "eval")
    wanted = set(category_ids)
    # Objects without "iscrowd" or "area" are common in small data sets; the library needs both.
    annotations = [
        {"iscrowd": 0, "area": a["bbox"][2] * a["bbox"][3], **a}
        for a in ground_truth["annotations"]
        if a["category_id"] in wanted
    ]
    listed = [c for c in ground_truth["categories"] if c["id"] in wanted]
    truth, found = library.COCO(), library.COCO()
    truth.dataset = {"images": ground_truth["images"], "categories": listed}
    found.dataset = dict(truth.dataset)
    truth.dataset["annotations"] = annotations
    found.dataset["annotations"] = table.at(np.isin(table.category_ids, category_ids)).rows(kind)
    for data in (truth, found):
        data.createIndex()
    evaluation = library.COCOeval_faster(truth, found, kind)
    evaluation.params.maxDets = list(MAX_DETECTIONS)
    evaluation.evaluate()
    evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"]), np.asarray(evaluation.eval["recall"])
