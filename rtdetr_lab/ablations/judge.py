r"""# Judge: COCO's numbers of a trained model, and its AP on redrawn pictures"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from rtdetr_lab.ablations.resample import (
    Ranked,
    average_precision,
    picture_weights,
    ranked_by_class,
)
from rtdetr_lab.data.batch import Dataset, in_order
from rtdetr_lab.evaluation.coco import NAMES, coco_truth, scored
from rtdetr_lab.evaluation.evaluate import detect, inference
from rtdetr_lab.evaluation.table import Table

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
