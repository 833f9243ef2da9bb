"""# Library: precision and recall from faster-coco-eval, a few classes at a time

Classes do not affect each other, and the library needs a dictionary per detection. So we pass it
a few classes at a time, with at most `AT_ONCE` detections together, unless one class alone has
more. The numbers stay the same, and the memory does not grow with the data set.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rtdetr_lab.errors import import_extra
from rtdetr_lab.evaluation.table import Table

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
