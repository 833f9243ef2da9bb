"""# COCO's twelve numbers

Average precision is the area under the precision–recall curve, averaged over ten thresholds of IoU
from 0.5 to 0.95 and over classes. The definition has a dozen details on which a tenth of a point
hangs (crowds, ignored sizes, 101 points of recall), so that the numbers come from a library that
agrees with COCO's own to the last digit.

| name                | IoU          | objects                       | detections a picture |
|---------------------|--------------|-------------------------------|----------------------|
| `AP`                | 0.5 … 0.95   | all                           | 100                  |
| `AP50`, `AP75`      | 0.5, 0.75    | all                           | 100                  |
| `APs`, `APm`, `APl` | 0.5 … 0.95   | area < 32², < 96², the others | 100                  |
| `AR1`, `AR10`, `AR100` | 0.5 … 0.95 | all; best recall reached     | 1, 10, 100           |
| `ARs`, `ARm`, `ARl` | 0.5 … 0.95   | as `APs` …                    | 100                  |

A number is -1, as COCO has it, where there is no object to find.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rtdetr_lab.boxes import xywh_from_xyxy
from rtdetr_lab.data.batch import Truth
from rtdetr_lab.errors import DataError, MissingExtraError

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


@dataclass(frozen=True)
class ClassMetrics:
    """One row of the table per class."""

    name: str
    AP: float
    AP50: float
    AP75: float
    AR100: float


@dataclass(frozen=True)
class Metrics(Mapping[str, float]):
    """The twelve numbers, as attributes and as a mapping; `str()` is the table by class."""

    AP: float
    AP50: float
    AP75: float
    APs: float
    APm: float
    APl: float
    AR1: float
    AR10: float
    AR100: float
    ARs: float
    ARm: float
    ARl: float
    classes: tuple[ClassMetrics, ...] = ()

    def __getitem__(self, name: str) -> float:
        if name not in NAMES:
            raise KeyError(name)
        return float(getattr(self, name))

    def __iter__(self) -> Iterator[str]:
        return iter(NAMES)

    def __len__(self) -> int:
        return len(NAMES)

    def __str__(self) -> str:
        rows = (ClassMetrics("all", self.AP, self.AP50, self.AP75, self.AR100), *self.classes)
        width = max(len(row.name) for row in rows)
        lines = [f"{'class':{width}}     AP   AP50   AP75  AR100"]
        for row in rows:
            cells = [f"{n:6.3f}" if n >= 0 else "     –" for n in (row.AP, row.AP50, row.AP75)]
            lines.append(f"{row.name:{width}} {' '.join(cells)} {row.AR100:6.3f}")
        return "\n".join(lines)


def coco_truth(
    truths: Iterable[Truth], names: Sequence[str], category_ids: Sequence[int]
) -> dict[str, Any]:
    """Pictures, annotations and categories as COCO's JSON has them."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for truth in truths:
        height, width = truth.size
        images.append({"id": truth.image_id, "height": height, "width": width})
        boxes = xywh_from_xyxy(truth.boxes_xyxy.double()).tolist()
        columns = (truth.labels.tolist(), boxes, truth.areas.tolist(), truth.is_crowd.tolist())
        for label, box, area, is_crowd in zip(*columns, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,  # 0 would read as "not matched"
                    "image_id": truth.image_id,
                    "category_id": category_ids[label],
                    "bbox": box,
                    "area": area,
                    "iscrowd": int(is_crowd),
                }
            )
    categories = [{"id": i, "name": n} for i, n in zip(category_ids, names, strict=True)]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco_metrics(
    ground_truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]]
) -> Metrics:
    """The numbers of `detections` (image_id, category_id, bbox as left, top, width, height, score).

    Raises `MissingExtraError` without faster-coco-eval, `DataError` for detections on pictures or
    of categories the ground truth does not list, or with boxes and scores that are not finite.
    """
    precision, recall = _accumulated(ground_truth, _checked(detections, ground_truth))
    names = [str(c["name"]) for c in sorted(ground_truth["categories"], key=lambda c: c["id"])]
    last = len(MAX_DETECTIONS) - 1
    ap = {size: _mean(precision[..., i, last]) for i, size in enumerate(SIZES)}
    ar = {size: _mean(recall[..., i, last]) for i, size in enumerate(SIZES)}
    return Metrics(
        AP=ap["all"],
        AP50=_mean(precision[IOU_50, ..., 0, last]),
        AP75=_mean(precision[IOU_75, ..., 0, last]),
        APs=ap["small"],
        APm=ap["medium"],
        APl=ap["large"],
        AR1=_mean(recall[..., 0, 0]),
        AR10=_mean(recall[..., 0, 1]),
        AR100=ar["all"],
        ARs=ar["small"],
        ARm=ar["medium"],
        ARl=ar["large"],
        classes=tuple(
            ClassMetrics(
                name,
                AP=_mean(precision[:, :, k, 0, last]),
                AP50=_mean(precision[IOU_50, :, k, 0, last]),
                AP75=_mean(precision[IOU_75, :, k, 0, last]),
                AR100=_mean(recall[:, k, 0, last]),
            )
            for k, name in enumerate(names)
        ),
    )


IOU_50, IOU_75 = 0, 5
"""Places of 0.5 and 0.75 among the ten thresholds."""

SIZES = ("all", "small", "medium", "large")
MAX_DETECTIONS = (1, 10, 100)


def _accumulated(
    ground_truth: Mapping[str, Any], detections: list[dict[str, Any]]
) -> tuple[np.ndarray, np.ndarray]:
    """Precision by (threshold, recall, class, size, count); recall by the same without recall."""
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        what = "COCO's numbers need faster-coco-eval"
        remedy = "pip install 'rtdetr_lab[eval]'"
        raise MissingExtraError("evaluation", what, remedy) from error
    # Objects without "iscrowd" or "area" are common in small data sets; the library wants both.
    annotations = [{"iscrowd": 0, "area": _area(a), **a} for a in ground_truth["annotations"]]
    truth, found = COCO(), COCO()
    truth.dataset = {**ground_truth, "annotations": annotations}
    found.dataset = {**truth.dataset, "annotations": detections}
    for data in (truth, found):
        data.createIndex()
    evaluation = COCOeval_faster(truth, found, "bbox")
    evaluation.params.maxDets = list(MAX_DETECTIONS)
    evaluation.evaluate()
    evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"]), np.asarray(evaluation.eval["recall"])


def _checked(
    detections: Sequence[Mapping[str, Any]], ground_truth: Mapping[str, Any]
) -> list[dict[str, Any]]:
    images = {image["id"] for image in ground_truth["images"]}
    categories = {category["id"] for category in ground_truth["categories"]}
    checked = []
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
        checked.append({**d, "id": i + 1, "area": _area(d), "iscrowd": 0})
    return checked


def _area(entry: Mapping[str, Any]) -> float:
    return float(entry["bbox"][2] * entry["bbox"][3])


def _mean(values: np.ndarray) -> float:
    """Over what exists: the library marks classes without objects by -1."""
    known = values[values > -1]
    return float(known.mean()) if known.size else -1.0
