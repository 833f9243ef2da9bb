r"""# Stages: the outputs that `compare.py` compares

| stage                | RT-DETR                              | DETR                             |
|----------------------|--------------------------------------|----------------------------------|
| `backbone S2` … S5   | S3 to S5                             | the last; with masks all four    |
| encoder              | `AIFI F5`, every `CCFF` map          | `project`, `positions`, layers   |
| `proposals …`        | scores and boxes of selected tokens  |                                  |
| `decoder 0 logits` … | every layer                          | every layer, through both heads  |
| `masks`              |                                      | mask logits of the last layer    |
| `detections …`       | after post-processing, best first    | the same                         |

transformers' DETR takes normalised pixels, and ours takes pixels in [0, 1]. So we normalise the
picture with our model and give the result to theirs. transformers applies DETR's heads to the last
layer only. Here we apply the same heads to the other layers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rtdetr_lab.checkpoints.hooks import outputs_of
from rtdetr_lab.detr.model import DETRConfig
from rtdetr_lab.images.postprocess import postprocess
from rtdetr_lab.model import Rank
from rtdetr_lab.structures import Prediction

Rows = dict[str, Tensor]
Pairs = list[tuple[Tensor, Tensor]]
"""Logits and boxes of the proposals, if there are any, and of every decoder layer."""

PARTS = {
    "backbone": ("backbone", "backbone"),
    "AIFI F5": ("encoder.aifi", "encoder.aifi.0"),
    "CCFF": ("encoder", "encoder"),
}
"""Stage → our module and theirs."""

DETR_PARTS = {
    "backbone": ("backbone", "backbone"),
    "project": ("project", "input_projection"),
    "positions": ("positions", "position_embedding"),
}

SHARED = ("decoder.norm", "class_head", "box_head")
"""Modules of DETR that run after every decoder layer here, and only after the last one there.

So only stages and tensors compare them."""


def paired_stages(ours: Any, theirs: Any, images: Float[Tensor, "B 3 H W"]) -> tuple[Rows, Rows]:
    """Return every stage of our model and of transformers', for the same pictures in [0, 1]."""
    is_detr, whole = isinstance(ours.cfg, DETRConfig), getattr(theirs, "detr", theirs)
    mine, other = dict(ours.named_modules()), dict(whole.model.named_modules())
    parts = dict(PARTS)
    if is_detr:
        layers = (f"encoder.layers.{i}" for i in range(len(ours.encoder.layers)))
        parts = DETR_PARTS | {f"encoder {i}": (name, name) for i, name in enumerate(layers)}
    here = {stage: mine[name] for stage, (name, _) in parts.items()}
    there = {stage: other[name] for stage, (_, name) in parts.items()}
    decoder = {f"decoder {i}": layer for i, layer in enumerate(whole.model.decoder.layers)}
    with outputs_of(here) as seen, outputs_of(there | decoder) as seen_there:
        found = ours(images)
        out = theirs(ours.normalise(images, None) if is_detr else images)
    ran = [stage for stage in parts if stage in seen_there]  # an AIFI without layers does not run
    layers_here = [(layer.logits, layer.boxes) for layer in found.layers]
    numbers = list(range(len(layers_here)))
    if is_detr:
        layers_there = _read_by_heads(whole, [seen_there[name] for name in decoder])
    else:
        boxes = out.intermediate_reference_points.unbind(1)
        layers_there = list(zip(out.intermediate_logits.unbind(1), boxes, strict=True))
        # Their D-FINE returns its last layer only.
        last = -min(len(layers_there), len(layers_here))
        proposals = found.proposals.logits, found.proposals.boxes
        numbers, layers_here = [-1, *numbers[last:]], [proposals, *layers_here[last:]]
        layers_there = [(out.enc_topk_logits, out.enc_topk_bboxes), *layers_there[last:]]
    layers_there[-1] = (out.logits, out.pred_boxes)
    masks = getattr(out, "pred_masks", None)
    return (
        _rows(_named(ran, seen), layers_here, numbers, ours.rank, found.masks),
        _rows(_named(ran, seen_there), layers_there, numbers, ours.rank, masks),
    )


def _read_by_heads(detr: Any, outputs: list[Any]) -> Pairs:
    content = [detr.model.decoder.layernorm(_first(output)) for output in outputs]
    return [(detr.class_labels_classifier(c), detr.bbox_predictor(c).sigmoid()) for c in content]


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def _named(parts: Sequence[str], seen: Mapping[str, Any]) -> Rows:
    """Return the outputs of all parts in one form for both models: one row each, or one per map."""
    rows: Rows = {}
    for stage in parts:
        output = seen[stage]
        if stage == "backbone":
            rows |= {f"backbone S{6 - len(output) + i}": _first(m) for i, m in enumerate(output)}
        elif stage == "CCFF":
            maps = getattr(output, "last_hidden_state", output)
            rows |= {f"CCFF {i}": m for i, m in enumerate(maps)}
        else:
            rows[stage] = _first(output)
    if "positions" in rows and rows["positions"].ndim == 4:
        rows["positions"] = rows["positions"].flatten(2).transpose(1, 2)
    return rows


def _rows(rows: Rows, layers: Pairs, numbers: list[int], rank: Rank, masks: Tensor | None) -> Rows:
    """Add rows of the predictions to `rows`; the number of the proposals is -1."""
    for i, (logits, boxes) in zip(numbers, layers, strict=True):
        name = "proposals" if i < 0 else f"decoder {i}"
        rows |= {f"{name} logits": logits, f"{name} boxes": boxes}
    if masks is not None:
        rows["masks"] = masks
    logits, boxes = layers[-1]
    if not (logits.isfinite().all() and boxes.isfinite().all()):
        return rows  # NaN has no detections; the rows above show where it begins
    found = postprocess(Prediction(logits, boxes, ()), [(1, 1)] * len(logits), -1.0, rank=rank)
    rows["detections boxes"] = torch.stack([f.boxes_xyxy for f in found])
    rows["detections scores"] = torch.stack([f.scores for f in found])
    rows["detections labels"] = torch.stack([f.labels for f in found])
    return rows
