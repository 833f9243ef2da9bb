r"""# Judge: COCO's numbers of a trained model, and its AP on other draws of the pictures"""

from typing import Any

import torch
from torch import nn

from rtdetr_lab.ablations.resample import average_precision, picture_weights, ranked_by_class
from rtdetr_lab.data.batch import Dataset, Truth, in_order
from rtdetr_lab.evaluation.coco import NAMES, coco_metrics, coco_truth
from rtdetr_lab.evaluation.evaluate import coco_detections, detect
from rtdetr_lab.images.postprocess import Found

REPLICATES = 300
DIGITS = 6
"""Kept of every score: more than two machines agree on."""


def detect_all(model: nn.Module, data: Dataset) -> tuple[list[Truth], list[Found]]:
    """What is there and what was found, picture by picture."""
    truths: list[Truth] = []
    founds: list[Found] = []
    with torch.inference_mode():
        for samples in in_order(data, 16):
            founds += detect(model.eval(), samples)
            truths += [s.truth for s in samples]
    return truths, founds


def judge(model: nn.Module, data: Dataset) -> dict[str, Any]:
    """COCO's twelve numbers, and `resampled`: AP on each of the replicates all runs share."""
    truths, founds = detect_all(model, data)
    detections = [
        d
        for truth, found in zip(truths, founds, strict=True)
        for d in coco_detections(found, truth.image_id, data.category_ids)
    ]
    metrics = coco_metrics(coco_truth(truths, data.names, data.category_ids), detections)
    classes = ranked_by_class(truths, founds, len(data.names))
    resampled = average_precision(classes, picture_weights(len(truths), REPLICATES))
    scores: dict[str, Any] = {name: round(metrics[name], DIGITS) for name in NAMES}
    return scores | {"resampled": [round(float(v), DIGITS) for v in resampled]}
