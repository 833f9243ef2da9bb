"""# COCO's twelve numbers

Average precision is the area under the precision–recall curve, averaged over ten thresholds of IoU
from 0.5 to 0.95 and over classes. The definition has many details (crowds, ignored sizes, 101
points of recall), and each can change a tenth of a point. So the numbers come from a library that
agrees with COCO's own to the last digit.

| name                | IoU          | objects                       | detections a picture |
|---------------------|--------------|-------------------------------|----------------------|
| `AP`                | 0.5 … 0.95   | all                           | 100                  |
| `AP50`, `AP75`      | 0.5, 0.75    | all                           | 100                  |
| `APs`, `APm`, `APl` | 0.5 … 0.95   | area < 32², < 96², the others | 100                  |
| `AR1`, `AR10`, `AR100` | 0.5 … 0.95 | all; best recall reached     | 1, 10, 100           |
| `ARs`, `ARm`, `ARl` | 0.5 … 0.95   | as `APs` …                    | 100                  |

Where there is no object to find, a number is -1, as in COCO.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from rtdetr_lab.boxes import xywh_from_xyxy
from rtdetr_lab.data.batch import Truth
from rtdetr_lab.evaluation.table import MAX_DETECTIONS, Table, accumulated

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


@dataclass(frozen=True)
class ClassMetrics:
    """Row of the table for one class."""

    name: str
    AP: float
    AP50: float
    AP75: float
    AR100: float
    num_objects: int = 0


@dataclass(frozen=True)
class Metrics(Mapping[str, float]):
    """The twelve numbers as attributes; a mapping that adds `AP_class/NAME`; `str()` is a table."""

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
    threshold: float | None = None
    """The recommended threshold of scores (`thresholds.py`); None if it was not measured."""
    masks: "Metrics | None" = None
    """The numbers with the IoU of masks, if the model draws and the truth has masks."""

    @property
    def by_name(self) -> dict[str, float]:
        """The twelve numbers, `AP_class/NAME` for every class, and all again with `mask_`."""
        twelve = {name: float(getattr(self, name)) for name in NAMES}
        by_name = twelve | {f"AP_class/{row.name}": row.AP for row in self.classes}
        masks = self.masks.by_name if self.masks else {}
        return by_name | {f"mask_{name}": number for name, number in masks.items()}

    @property
    def num_objects(self) -> int:
        """Number of objects to find. If it is 0, every number is -1."""
        return sum(row.num_objects for row in self.classes)

    def __getitem__(self, name: str) -> float:
        return self.by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.by_name)

    def __len__(self) -> int:
        return len(self.by_name)

    def __str__(self) -> str:
        of_all = (self.AP, self.AP50, self.AP75, self.AR100, self.num_objects)
        rows = (ClassMetrics("all", *of_all), *self.classes)
        width = max(len("class"), *(len(row.name) for row in rows))
        lines = [f"{'class':{width}}     AP   AP50   AP75  AR100 objects"]
        for row in rows:
            cells = [shown(n) for n in (row.AP, row.AP50, row.AP75, row.AR100)]
            lines.append(f"{row.name:{width}} {' '.join(cells)} {row.num_objects:7d}")
        if not self.num_objects:
            lines.append("There is no object to find in these pictures: AP is not defined.")
        if self.masks:
            lines += ["", "by the IoU of masks:", str(self.masks)]
        return "\n".join(lines)


def shown(number: float) -> str:
    """Format a number with three digits, or as a dash where there was no object to find."""
    return f"{number:6.3f}" if number >= 0 else "     –"


def coco_truth(
    truths: Iterable[Truth], names: Sequence[str], category_ids: Sequence[int]
) -> dict[str, Any]:
    """Convert pictures, annotations and categories to the form of COCO's JSON."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for truth in truths:
        height, width = truth.size
        images.append({"id": truth.image_id, "height": height, "width": width})
        boxes = xywh_from_xyxy(truth.boxes_xyxy.double()).tolist()
        columns = (truth.labels.tolist(), boxes, truth.areas.tolist(), truth.is_crowd.tolist())
        for i, (label, box, area, is_crowd) in enumerate(zip(*columns, strict=True)):
            drawn = truth.segmentations
            annotations.append(
                {
                    "id": len(annotations) + 1,  # 0 would read as "not matched"
                    "image_id": truth.image_id,
                    "category_id": category_ids[label],
                    "bbox": box,
                    "area": area,
                    "iscrowd": int(is_crowd),
                    **({} if drawn is None else {"segmentation": drawn[i]}),
                }
            )
    categories = [{"id": i, "name": n} for i, n in zip(category_ids, names, strict=True)]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco_metrics(
    ground_truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]]
) -> Metrics:
    """Compute the numbers of `detections`: rows with image_id, category_id, bbox and score.

    A bbox is left, top, width, height. Raises `MissingExtraError` without faster-coco-eval. Raises
    `DataError` if a picture or category is not in the ground truth, or if a box or score is not
    finite.
    """
    return scored(ground_truth, Table.of(detections, ground_truth)).metrics


@dataclass(frozen=True, eq=False)
class Scored:
    """The numbers, and the precision–recall curves behind them.

    `precision` is by (threshold, recall, class), for objects of all sizes and 100 detections a
    picture; -1 where there is no object to find.
    """

    metrics: Metrics
    precision: Float[np.ndarray, "10 101 K"]


def scored(ground_truth: Mapping[str, Any], table: Table, kind: str = "bbox") -> Scored:
    """Compute the numbers and curves of a table of detections; with masks, also those of masks.

    `kind` says what overlaps: "bbox", or "segm" for masks.
    """
    precision, recall = accumulated(ground_truth, table, kind=kind)
    last = len(MAX_DETECTIONS) - 1
    ap = {size: _mean(precision[..., i, last]) for i, size in enumerate(SIZES)}
    ar = {size: _mean(recall[..., i, last]) for i, size in enumerate(SIZES)}
    metrics = Metrics(
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
        classes=_by_class(ground_truth, precision[..., 0, last], recall[..., 0, last]),
    )
    if kind == "bbox" and table.masks is not None:
        metrics = replace(metrics, masks=scored(ground_truth, table, "segm").metrics)
    return Scored(metrics, precision[..., 0, last])


IOU_50, IOU_75 = 0, 5
"""Indices of 0.5 and 0.75 in the ten thresholds."""

SIZES = ("all", "small", "medium", "large")


def _by_class(
    ground_truth: Mapping[str, Any], precision: np.ndarray, recall: np.ndarray
) -> tuple[ClassMetrics, ...]:
    objects = Counter(a["category_id"] for a in ground_truth["annotations"] if not _is_crowd(a))
    categories = sorted(ground_truth["categories"], key=lambda c: c["id"])
    return tuple(
        ClassMetrics(
            str(category["name"]),
            AP=_mean(precision[:, :, k]),
            AP50=_mean(precision[IOU_50, :, k]),
            AP75=_mean(precision[IOU_75, :, k]),
            AR100=_mean(recall[:, k]),
            num_objects=objects[category["id"]],
        )
        for k, category in enumerate(categories)
    )


def _is_crowd(annotation: Mapping[str, Any]) -> bool:
    return bool(annotation.get("iscrowd", 0))


def _mean(values: np.ndarray) -> float:
    """Average the values that exist: the library marks classes without objects by -1."""
    known = values[values > -1]
    return float(known.mean()) if known.size else -1.0
