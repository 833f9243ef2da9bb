r"""# Average precision, from scratch

Sort the detections from the most to the least confident and walk down the list. After every step
there is a *precision* (the share of the detections so far that are right) and a *recall* (the share
of the objects that are found so far). Precision falls as recall grows; average precision is the
area under that curve. COCO's version has seven details, and each of them changes the number:

1. **Greedy matching.** Within a picture and a class, the detection with the best score chooses
   first. It takes the free object with the largest overlap, if the IoU is at least $t$. A later
   detection of a taken object is a false alarm, however well it fits.
2. **Ten thresholds**, $t = 0.5, 0.55 \dots 0.95$; AP is the mean over them and over classes.
3. **101 points.** Let $p(r)$ be the best precision at any recall of at least $r$ (the *envelope*,
   which removes the zigzag). Then $AP = \frac{1}{101} \sum_{r = 0, 0.01 \dots 1} p(r)$. Beyond the
   recall that was reached, $p$ is 0.
4. **Ignored objects.** A crowd is ignored, and so is an object with an annotated area outside the
   range that we evaluate. A detection that takes an ignored object counts neither as right nor as
   wrong. A detection takes one only if no other object fits. Many detections may take one crowd.
5. **The overlap with a crowd** is the part of the *detection* that lies in it, not the IoU.
6. **Unmatched detections** of a size outside the range are ignored, too. A range includes both
   ends.
7. **At most 1, 10 or 100** detections of a class in a picture count: those with the best scores.
   Equal scores keep their order: first by picture id, then as they were given.

This file is written to be read. `coco.py` gives the same numbers a hundred times faster; a test
compares both on random sets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
AREAS = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}

Range = tuple[float, float]
Entries = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class Judged:
    """The detections of one class in one picture, best first, at one threshold."""

    scores: Float[np.ndarray, "n"]
    is_right: Bool[np.ndarray, "n"]
    is_ignored: Bool[np.ndarray, "n"]
    num_objects: int


def average_precision(
    ground_truth: Mapping[str, Any],
    detections: Entries,
    area: Range = AREAS["all"],
    most: int = 100,
    thresholds: Sequence[float] | np.ndarray = THRESHOLDS,
) -> float:
    """Compute the mean over classes and thresholds; -1 where there is no object to find."""
    classes = [c["id"] for c in ground_truth["categories"]]
    curves = [
        precision_curve(judge_all(ground_truth, detections, c, t, area, most))
        for c in classes
        for t in thresholds
    ]
    known = [curve.mean() for curve in curves if curve is not None]
    return float(np.mean(known)) if known else -1.0


def judge_all(
    ground_truth: Mapping[str, Any],
    detections: Entries,
    category_id: int,
    threshold: float,
    area: Range,
    most: int,
) -> list[Judged]:
    """Evaluate every picture, in the order of ids."""

    def of(entries: Entries, image_id: int) -> list[Mapping[str, Any]]:
        wanted = (image_id, category_id)
        return [e for e in entries if (e["image_id"], e["category_id"]) == wanted]

    return [
        judge(of(ground_truth["annotations"], i), of(detections, i), threshold, area, most)
        for i in sorted(image["id"] for image in ground_truth["images"])
    ]


def judge(objects: Entries, found: Entries, threshold: float, area: Range, most: int) -> Judged:
    """Mark each detection as right, wrong or ignored: details 1, 4, 5, 6 and 7."""
    best = np.argsort([-d["score"] for d in found], kind="stable")[:most]
    found = [found[i] for i in best]
    ignored = [bool(o.get("iscrowd", 0)) or not within(o["area"], area) for o in objects]
    taken = [False] * len(objects)
    is_right = np.zeros(len(found), dtype=bool)
    is_ignored = np.zeros(len(found), dtype=bool)
    for n, detection in enumerate(found):
        chosen = choose(detection, objects, ignored, taken, threshold)
        if chosen is None:
            is_ignored[n] = not within(detection["bbox"][2] * detection["bbox"][3], area)
            continue
        taken[chosen] = True
        is_right[n], is_ignored[n] = not ignored[chosen], ignored[chosen]
    scores = np.array([d["score"] for d in found], dtype=np.float64)
    return Judged(scores, is_right, is_ignored, ignored.count(False))


def choose(
    detection: Mapping[str, Any],
    objects: Entries,
    ignored: Sequence[bool],
    taken: Sequence[bool],
    threshold: float,
) -> int | None:
    """Return the index of the object that this detection takes; ignored objects come last."""
    for wanted in (False, True):
        chosen, best = None, min(threshold, 1 - 1e-10)
        for n, candidate in enumerate(objects):
            is_free = not taken[n] or bool(candidate.get("iscrowd", 0))
            if ignored[n] is not wanted or not is_free:
                continue
            shared = overlap(detection["bbox"], candidate)
            if shared >= best:  # the last one of equals
                chosen, best = n, shared
        if chosen is not None:
            return chosen
    return None


def overlap(box: Sequence[float | int], candidate: Mapping[str, Any]) -> float:
    """Compute the IoU; with a crowd, the part of the box that lies in it."""
    x, y, w, h = box
    left, top, width, height = candidate["bbox"]
    across = min(x + w, left + width) - max(x, left)
    down = min(y + h, top + height) - max(y, top)
    if across <= 0 or down <= 0:
        return 0.0
    shared = across * down
    union = w * h if candidate.get("iscrowd", 0) else w * h + width * height - shared
    return shared / union


def within(area: float, limits: Range) -> bool:
    """Return True if the area lies in the range; both ends belong to it."""
    return limits[0] <= area <= limits[1]


def precision_curve(pictures: Sequence[Judged]) -> Float[np.ndarray, "101"] | None:
    """Compute the precision at the 101 points of recall; None if there is no object to find."""
    objects = sum(p.num_objects for p in pictures)
    if not objects:
        return None
    scores = np.concatenate([p.scores for p in pictures])
    order = np.argsort(-scores, kind="stable")
    right = np.concatenate([p.is_right for p in pictures])[order]
    counts = ~np.concatenate([p.is_ignored for p in pictures])[order]
    hits, alarms = np.cumsum(right), np.cumsum(counts & ~right)
    recall = hits / objects
    precision = hits / np.maximum(hits + alarms, 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    place = np.searchsorted(recall, RECALLS, side="left")
    return np.append(envelope, 0.0)[place]
