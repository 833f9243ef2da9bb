r"""# Resample: what would AP have been on other pictures?

A validation set is a sample. The bootstrap estimates how much an AP depends on *these* pictures:
draw the same number of pictures with repetition, compute AP again, and repeat this some hundred
times. To draw a picture $w$ times is to count its objects and detections $w$ times. So we match the
pictures once, and every replicate is a weighted sum:

$$ \mathrm{precision}_k = \frac{\sum_{i \le k} w_i\,\mathrm{tp}_i}{\sum_{i \le k} w_i}, \qquad
   \mathrm{recall}_k = \frac{\sum_{i \le k} w_i\,\mathrm{tp}_i}{\sum_{\text{objects}} w} $$

over the detections $i$ of a class by falling score. The weights depend only on the number of
pictures. So all runs of a study have the same replicates, and differences between runs are paired.

With all weights 1 it is COCO's AP to the last digit (`evaluation/coco.py`); a test checks this.

`judge` gives COCO's numbers of a trained model, its AP on every replicate and on every picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import nn

from rtdetr_lab.boxes import iou
from rtdetr_lab.data.batch import Dataset, Truth, in_order
from rtdetr_lab.evaluation.average_precision import RECALLS, THRESHOLDS
from rtdetr_lab.evaluation.coco import NAMES, coco_truth, scored
from rtdetr_lab.evaluation.evaluate import detect, inference
from rtdetr_lab.evaluation.mistakes import share_inside
from rtdetr_lab.evaluation.table import Table
from rtdetr_lab.images.postprocess import Found

MOST = 100
"""Maximum number of detections per picture, as in COCO."""


def picture_weights(num_pictures: int, replicates: int) -> Int[np.ndarray, "R I"]:
    """Draw how often each picture is in each replicate; deterministic."""
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
    """Return one entry per class. As in COCO, false detections inside a crowd do not count."""
    return [_ranked(truths, founds, label) for label in range(num_classes)]


def _ranked(truths: Sequence[Truth], founds: Sequence[Found], label: int) -> Ranked:
    pictures, scores, hits, counts, objects = [], [], [], [], []
    for i, (truth, found) in enumerate(zip(truths, founds, strict=True)):
        order = found.scores.argsort(descending=True, stable=True)
        best = found.at(order[found.labels[order] == label][:MOST])
        boxes, mine = best.boxes_xyxy.double(), truth.labels == label
        wanted = truth.boxes_xyxy[mine & ~truth.is_crowd].double()
        crowds = truth.boxes_xyxy[mine & truth.is_crowd].double()
        hit = _hits(iou(boxes, wanted).numpy())
        pictures.append(np.full(len(boxes), i))
        scores.append(best.scores.double().numpy())
        hits.append(hit)
        counts.append(hit | (share_inside(boxes, crowds).numpy() < THRESHOLDS[:, None]))
        objects.append(len(wanted))
    falling = np.argsort(-np.concatenate(scores), kind="mergesort")
    is_true, is_counted = (np.concatenate(x, axis=1)[:, falling] for x in (hits, counts))
    return Ranked(np.concatenate(pictures)[falling], is_true, is_counted, np.array(objects))


def _hits(overlap: Float[np.ndarray, "n m"]) -> Bool[np.ndarray, "T n"]:
    """Mark detections that match a free object, by falling score, for every threshold."""
    hit = np.zeros((len(THRESHOLDS), len(overlap)), dtype=bool)
    for t, threshold in enumerate(THRESHOLDS):
        free = np.ones(overlap.shape[1], dtype=bool)
        for n in range(len(overlap)) if overlap.size else ():
            open_ = np.where(free, overlap[n], -1.0)
            # Among equal overlaps COCO takes the last object. Only exact ties depend on this.
            best = len(open_) - 1 - int(open_[::-1].argmax())
            if open_[best] >= min(threshold, 1 - 1e-10):
                hit[t, n], free[best] = True, False
    return hit


def average_precision(
    classes: Sequence[Ranked], weights: Int[np.ndarray, "R I"]
) -> Float[np.ndarray, "R"]:
    """Compute AP of every replicate, over the classes that have objects in it."""
    total = np.zeros(len(weights))
    present = np.zeros(len(weights))
    for ranked in classes:
        there = weights @ ranked.objects > 0
        total += there * _sum_over_thresholds(ranked, weights)
        present += there * len(THRESHOLDS)
    return total / np.maximum(present, 1)


def _sum_over_thresholds(ranked: Ranked, weights: Int[np.ndarray, "R I"]) -> Float[np.ndarray, "R"]:
    """Sum the area under precision over recall at ten thresholds."""
    count = weights[:, ranked.picture].astype(np.float64)
    objects = np.maximum(weights @ ranked.objects, 1)[:, None]
    total = np.zeros(len(weights))
    for is_true, is_counted in zip(ranked.is_true, ranked.is_counted, strict=True):
        seen = np.maximum((count * is_counted).cumsum(1), 1e-12)
        found = (count * is_true).cumsum(1)
        precision = np.maximum.accumulate((found / seen)[:, ::-1], axis=1)[:, ::-1]
        total += [_area(r, p) for r, p in zip(found / objects, precision, strict=True)]
    return total


def _area(recall: np.ndarray, precision: np.ndarray) -> float:
    at = np.searchsorted(recall, RECALLS, side="left")
    return float(precision[at[at < len(recall)]].sum() / len(RECALLS))


REPLICATES = 300
DIGITS = 6
"""Digits stored of every score; two machines agree on fewer."""


def judge(model: nn.Module, data: Dataset) -> dict[str, Any]:
    """Return COCO's twelve numbers, and AP in two more ways.

    `resampled` is AP on each replicate, shared by all runs. `pictures` has (id, AP) of each picture
    alone, or None for a picture without objects.
    """
    with inference(model):
        batches = [(samples, detect(model, samples)) for samples in in_order(data, 16)]
    truths = [sample.truth for samples, _ in batches for sample in samples]
    founds = [found for _, several in batches for found in several]
    rows = [(truth.image_id, found) for truth, found in zip(truths, founds, strict=True)]
    truth = coco_truth(truths, data.names, data.category_ids)
    metrics = scored(truth, Table.of_found(rows, data.category_ids)).metrics
    classes = ranked_by_class(truths, founds, len(data.names))
    resampled = average_precision(classes, picture_weights(len(truths), REPLICATES))
    scores: dict[str, Any] = {name: round(metrics[name], DIGITS) for name in NAMES}
    ids = [truth.image_id for truth in truths]
    alone = zip(ids, _on_each_picture(classes, len(truths)), strict=True)
    return scores | {
        "resampled": [round(float(v), DIGITS) for v in resampled],
        "pictures": [list(pair) for pair in alone],
    }


def _on_each_picture(classes: Sequence[Ranked], count: int) -> list[float | None]:
    """Compute AP with the weight 1 for one picture and 0 for all others, some at a time."""
    objects = np.sum([ranked.objects for ranked in classes], axis=0)
    found: list[float | None] = []
    for first in range(0, count, REPLICATES):
        weights = np.eye(count, dtype=int)[first : first + REPLICATES]
        found += [round(float(v), 4) for v in average_precision(classes, weights)]
    return [value if n else None for value, n in zip(found, objects, strict=True)]
