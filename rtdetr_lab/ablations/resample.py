r"""# Resample: what would AP have been on other pictures?

A validation set is a sample. The bootstrap asks how much an AP owes to *these* pictures: draw as
many again, with repetition, and compute AP anew, some hundred times. Drawing a picture $w$ times is
the same as counting its objects and detections $w$ times, so pictures are matched once, and every
replicate is a weighted sum:

$$ \mathrm{precision}_k = \frac{\sum_{i \le k} w_i\,\mathrm{tp}_i}{\sum_{i \le k} w_i}, \qquad
   \mathrm{recall}_k = \frac{\sum_{i \le k} w_i\,\mathrm{tp}_i}{\sum_{\text{objects}} w} $$

over detections $i$ of a class by falling score. The weights depend on the number of pictures alone:
every run of a study is judged on the same replicates, so that differences between runs are paired.

With all weights 1 it is COCO's AP to the last digit (`evaluation/coco.py`), which a test checks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from rtdetr_lab.data.batch import Truth
from rtdetr_lab.images.postprocess import Found

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MOST = 100
"""Detections per picture that count."""


def picture_weights(num_pictures: int, replicates: int) -> Int[np.ndarray, "R I"]:
    """How often each picture is drawn in each replicate; always the same for these numbers."""
    rng = np.random.default_rng([num_pictures, replicates])
    even = np.full(num_pictures, 1 / max(num_pictures, 1))
    return rng.multinomial(num_pictures, even, size=replicates)


@dataclass(frozen=True, eq=False)
class Ranked:
    """Detections of one class by falling score, matched at every threshold."""

    picture: Int[np.ndarray, "n"]
    is_true: Bool[np.ndarray, "T n"]
    is_counted: Bool[np.ndarray, "T n"]
    objects: Int[np.ndarray, "I"]
    """Objects of this class per picture, crowds left out."""


def ranked_by_class(
    truths: Sequence[Truth], founds: Sequence[Found], num_classes: int
) -> list[Ranked]:
    """One entry per class. Detections that find nothing but lie in a crowd do not count, as COCO
    has it."""
    return [_ranked(truths, founds, label) for label in range(num_classes)]


def _ranked(truths: Sequence[Truth], founds: Sequence[Found], label: int) -> Ranked:
    pictures, scores, hits, counts = [], [], [], []
    objects = np.zeros(len(truths), dtype=np.int64)
    for i, (truth, found) in enumerate(zip(truths, founds, strict=True)):
        mine = (truth.labels == label).numpy()
        crowd = truth.is_crowd.numpy()[mine]
        objects[i] = (~crowd).sum()
        best = found.scores.argsort(descending=True, stable=True)
        best = best[found.labels[best] == label][:MOST]
        boxes = found.boxes_xyxy[best].double().numpy()
        hit, counted = _matched(boxes, truth.boxes_xyxy.double().numpy()[mine], crowd)
        pictures.append(np.full(len(boxes), i))
        scores.append(found.scores[best].double().numpy())
        hits.append(hit)
        counts.append(counted)
    order = np.argsort(-np.concatenate(scores), kind="mergesort")
    is_true, is_counted = (np.concatenate(x, axis=1)[:, order] for x in (hits, counts))
    return Ranked(np.concatenate(pictures)[order], is_true, is_counted, objects)


def _matched(
    boxes: Float[np.ndarray, "n 4"], wanted: Float[np.ndarray, "m 4"], crowd: Bool[np.ndarray, "m"]
) -> tuple[Bool[np.ndarray, "T n"], Bool[np.ndarray, "T n"]]:
    """Whether each detection, by falling score, finds an object that nobody before it found, and
    whether it counts; at every threshold."""
    hit = np.zeros((len(THRESHOLDS), len(boxes)), dtype=bool)
    overlap = _overlap(boxes, wanted[~crowd])
    for t, threshold in enumerate(THRESHOLDS):
        free = np.ones(overlap.shape[1], dtype=bool)
        for n in range(len(boxes)) if overlap.size else ():
            open_ = np.where(free, overlap[n], -1.0)
            # Of equals COCO takes the last one; a pixel-exact tie decides nothing else.
            best = len(open_) - 1 - int(open_[::-1].argmax())
            if open_[best] >= min(threshold, 1 - 1e-10):
                hit[t, n], free[best] = True, False
    inside = _inside(boxes, wanted[crowd]).max(1, initial=0.0)
    return hit, hit | (inside < THRESHOLDS[:, None])


def _overlap(a: Float[np.ndarray, "n 4"], b: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, "n m"]:
    shared, area_a, area_b = _shared(a, b)
    return shared / np.maximum(area_a[:, None] + area_b[None] - shared, 1e-12)


def _inside(a: Float[np.ndarray, "n 4"], b: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, "n m"]:
    shared, area_a, _ = _shared(a, b)
    return shared / np.maximum(area_a[:, None], 1e-12)


def _shared(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(-1)
    return shared, (a[:, 2:] - a[:, :2]).prod(-1), (b[:, 2:] - b[:, :2]).prod(-1)


def average_precision(
    classes: Sequence[Ranked], weights: Int[np.ndarray, "R I"]
) -> Float[np.ndarray, "R"]:
    """AP of every replicate, over the classes that have objects in it."""
    total = np.zeros(len(weights))
    present = np.zeros(len(weights))
    for ranked in classes:
        objects = weights @ ranked.objects
        for precision in _precisions(ranked, weights, objects):
            total += precision
        present += (objects > 0) * len(THRESHOLDS)
    return total / np.maximum(present, 1)


def _precisions(
    ranked: Ranked, weights: np.ndarray, objects: np.ndarray
) -> Iterator[Float[np.ndarray, "R"]]:
    """Per threshold, the mean over 101 recalls; 0 where the class has no object."""
    count = weights[:, ranked.picture].astype(np.float64)
    for is_true, is_counted in zip(ranked.is_true, ranked.is_counted, strict=True):
        seen = np.maximum((count * is_counted).cumsum(1), 1e-12)
        found = (count * is_true).cumsum(1)
        precision = np.maximum.accumulate((found / seen)[:, ::-1], axis=1)[:, ::-1]
        recall = found / np.maximum(objects, 1)[:, None]
        yield np.array([_area(r, p) for r, p in zip(recall, precision, strict=True)]) * (
            objects > 0
        )


def _area(recall: np.ndarray, precision: np.ndarray) -> float:
    at = np.searchsorted(recall, RECALLS, side="left")
    reached = at < len(recall)
    return float(precision[at[reached]].sum() / len(RECALLS))
