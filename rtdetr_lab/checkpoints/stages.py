r"""# Stages: what `compare.py` puts side by side

| stage                | RT-DETR                              | DETR                             |
|----------------------|--------------------------------------|----------------------------------|
| `backbone S2` … S5   | S3 to S5                             | the last, with masks all four    |
| encoder              | `AIFI F5`, every `CCFF` map          | `project`, `positions`, layers   |
| `proposals …`        | scores and boxes of the chosen cells |                                  |
| `decoder 0 logits` … | every layer                          | every layer, read by both heads  |
| `masks`              |                                      | mask logits of the last layer    |
| `detections …`       | what comes of it, best first         | the same                         |

To DETR pixels come normalised in transformers, here in [0, 1]: theirs are shown what our model
makes of the picture. transformers applies DETR's heads to the last layer only; the others are read
with the same heads here.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rtdetr_lab.checkpoints.hooks import outputs_of
from rtdetr_lab.images.postprocess import postprocess
from rtdetr_lab.model import Rank, by_sigmoid, by_softmax
from rtdetr_lab.structures import Prediction

Rows = dict[str, Tensor]
Layers = list[tuple[Tensor, Tensor]]
"""Logits and boxes after every decoder layer."""

SHARED = ("decoder.norm", "class_head", "box_head")
"""Of DETR: read after every decoder layer here, after the last one there. Stages and tensors judge
them."""


def our_stages(model: nn.Module, images: Float[Tensor, "B 3 H W"]) -> Rows:
    """Every stage of our RT-DETR."""
    parts = {n: model.get_submodule(n) for n in ("backbone", "encoder.aifi", "encoder")}
    with outputs_of(parts) as seen:
        prediction = model(images)
    proposals = prediction.proposals
    inner = _encoder_rows(seen["encoder.aifi"], seen["encoder"], proposals.logits, proposals.boxes)
    return _rows(seen["backbone"], inner, _layers_of(prediction), by_sigmoid)


def their_stages(model: nn.Module, images: Float[Tensor, "B 3 H W"]) -> Rows:
    """The same of transformers'."""
    whole: Any = model.model
    parts = {"backbone": whole.backbone, "encoder": whole.encoder}
    parts |= {"aifi": whole.encoder.aifi[0]} if len(whole.encoder.aifi) else {}
    with outputs_of(parts) as seen:
        out = model(images)
    maps = [feature for feature, _ in seen["backbone"]]
    fused, attended = seen["encoder"].last_hidden_state, seen.get("aifi", maps[-1])
    logits, boxes = out.intermediate_logits, out.intermediate_reference_points
    layers = list(zip(logits.unbind(1), boxes.unbind(1), strict=True))
    layers[-1] = (out.logits, out.pred_boxes)
    inner = _encoder_rows(attended, fused, out.enc_topk_logits, out.enc_topk_bboxes)
    return _rows(maps, inner, layers, by_sigmoid)


def our_detr_stages(model: nn.Module, images: Float[Tensor, "B 3 H W"]) -> Rows:
    """Every stage of our DETR for a picture in [0, 1]."""
    whole: Any = model
    parts = {name: getattr(whole, name) for name in ("backbone", "project", "positions")}
    encoder = _numbered("encoder", whole.encoder.layers)
    with outputs_of(parts | encoder) as seen:
        prediction = whole(images)
    inner = {name: seen[name] for name in ("project", "positions", *encoder)}
    return _rows(seen["backbone"], inner, _layers_of(prediction), by_softmax, prediction.masks)


def their_detr_stages(model: nn.Module, images: Float[Tensor, "B 3 H W"], ours: nn.Module) -> Rows:
    """The same of transformers', for the picture as `ours` normalises it."""
    whole, normalise = model, getattr(ours, "normalise")  # noqa: B009 (a Module's)
    detector: Any = getattr(whole, "detr", whole)
    inner = detector.model
    parts = {"backbone": inner.backbone, "project": inner.input_projection}
    parts |= {"positions": inner.position_embedding}
    encoder = _numbered("encoder", inner.encoder.layers)
    decoder = _numbered("decoder", inner.decoder.layers)
    with outputs_of(parts | encoder | decoder) as seen:
        out = whole(pixel_values=normalise(images, None))
    maps = [feature for feature, _ in seen["backbone"]]
    content = [inner.decoder.layernorm(_first(seen[name])) for name in decoder]
    layers = [
        (detector.class_labels_classifier(c), detector.bbox_predictor(c).sigmoid()) for c in content
    ]
    layers[-1] = (out.logits, out.pred_boxes)
    rows = {name: _first(seen[name]) for name in ("project", "positions", *encoder)}
    rows["positions"] = rows["positions"].flatten(2).transpose(1, 2)
    return _rows(maps, rows, layers, by_softmax, getattr(out, "pred_masks", None))


def _layers_of(prediction: Prediction) -> Layers:
    return [(layer.logits, layer.boxes) for layer in prediction.layers]


def _numbered(name: str, layers: Any) -> dict[str, nn.Module]:
    return {f"{name} {i}": layer for i, layer in enumerate(layers)}


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def _encoder_rows(attended: Tensor, fused: Sequence[Tensor], logits: Tensor, boxes: Tensor) -> Rows:
    ccff = {f"CCFF {i}": m for i, m in enumerate(fused)}
    return {"AIFI F5": attended, **ccff, "proposals logits": logits, "proposals boxes": boxes}


def _rows(
    maps: Sequence[Tensor],
    encoder: Rows,
    layers: Layers,
    rank: Rank,
    masks: Tensor | None = None,
) -> Rows:
    rows = {f"backbone S{6 - len(maps) + i}": m for i, m in enumerate(maps)} | encoder
    for i, (logits, boxes) in enumerate(layers):
        rows |= {f"decoder {i} logits": logits, f"decoder {i} boxes": boxes}
    if masks is not None:
        rows["masks"] = masks
    logits, boxes = layers[-1]
    if not (logits.isfinite().all() and boxes.isfinite().all()):
        return rows  # nothing can be found in NaN; the rows above say where it begins
    whole, sizes = Prediction(logits, boxes, ()), [(1, 1)] * len(logits)
    found = postprocess(whole, sizes, -1.0, rank=rank)
    rows["detections boxes"] = torch.stack([f.boxes_xyxy for f in found])
    rows["detections scores"] = torch.stack([f.scores for f in found])
    rows["detections labels"] = torch.stack([f.labels for f in found])
    return rows
