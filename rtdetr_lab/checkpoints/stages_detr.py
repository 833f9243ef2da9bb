r"""# DETR's stages: what `compare.py` puts side by side

| stage               | shows                                                        |
|---------------------|--------------------------------------------------------------|
| `backbone S2` … S5  | the maps that are used: the last, with masks all four        |
| `project`           | the last map at the transformer's width                      |
| `positions`         | where its cells are                                          |
| `encoder 0` …       | the cells after every layer                                  |
| `decoder 0 logits` … | what both heads make of the content after every layer       |
| `masks`             | mask logits of the last layer                                |
| `detections …`      | what comes of it, best first                                 |

Their pixels come normalised, ours in [0, 1]: theirs are shown what our model makes of the picture.
transformers applies heads to the last layer only; the others are read with the same heads here.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rtdetr_lab.images.postprocess import postprocess
from rtdetr_lab.model import by_softmax
from rtdetr_lab.structures import Prediction

Rows = dict[str, Tensor]

SHARED = ("decoder.norm", "class_head", "box_head")
"""Read after every decoder layer here, after the last one there: stages and tensors judge them."""


@contextmanager
def listening(parts: Mapping[str, nn.Module]) -> Iterator[dict[str, Any]]:
    """Name → what that module returned last."""
    seen: dict[str, Any] = {}
    handles = [m.register_forward_hook(partial(_keep, seen, n)) for n, m in parts.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _keep(seen: dict[str, Any], name: str, module: nn.Module, args: Any, output: Any) -> None:
    seen[name] = output


def our_detr_stages(model: nn.Module, images: Float[Tensor, "B 3 H W"]) -> Rows:
    """Every stage of our DETR for a picture in [0, 1]."""
    whole: Any = model
    parts = {name: getattr(whole, name) for name in ("backbone", "project", "positions")}
    with listening({**parts, **_numbered("encoder", whole.encoder.layers)}) as seen:
        prediction = whole(images)
    layers = [(layer.logits, layer.boxes) for layer in prediction.layers]
    return _rows(seen, list(seen["backbone"]), seen["positions"], layers, prediction.masks)


def their_detr_stages(model: nn.Module, images: Float[Tensor, "B 3 H W"], ours: nn.Module) -> Rows:
    """The same of transformers', for the picture as `ours` normalises it."""
    whole, normalise = model, getattr(ours, "normalise")  # noqa: B009 (a Module's)
    detector: Any = getattr(whole, "detr", whole)
    inner = detector.model
    parts = {"backbone": inner.backbone, "project": inner.input_projection}
    parts |= {"positions": inner.position_embedding}
    parts |= _numbered("encoder", inner.encoder.layers) | _numbered("decoder", inner.decoder.layers)
    with listening(parts) as seen:
        out = whole(pixel_values=normalise(images, None))
    maps = [feature for feature, _ in seen["backbone"]]
    content = [inner.decoder.layernorm(_first(seen[n])) for n in seen if n.startswith("decoder ")]
    layers = [
        (detector.class_labels_classifier(c), detector.bbox_predictor(c).sigmoid()) for c in content
    ]
    layers[-1] = (out.logits, out.pred_boxes)
    positions = seen["positions"].flatten(2).transpose(1, 2)
    return _rows(seen, maps, positions, layers, getattr(out, "pred_masks", None))


def _numbered(name: str, layers: Any) -> dict[str, nn.Module]:
    return {f"{name} {i}": layer for i, layer in enumerate(layers)}


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def _rows(
    seen: Mapping[str, Any], maps: list[Tensor], positions: Tensor, layers: Any, masks: Any
) -> Rows:
    rows = {f"backbone S{6 - len(maps) + i}": m for i, m in enumerate(maps)}
    rows |= {"project": seen["project"], "positions": positions}
    rows |= {name: _first(seen[name]) for name in seen if name.startswith("encoder ")}
    for i, (logits, boxes) in enumerate(layers):
        rows |= {f"decoder {i} logits": logits, f"decoder {i} boxes": boxes}
    if masks is not None:
        rows["masks"] = masks
    logits, boxes = layers[-1]
    if not (logits.isfinite().all() and boxes.isfinite().all()):
        return rows  # nothing can be found in NaN; the rows above say where it begins
    whole, sizes = Prediction(logits, boxes, ()), [(1, 1)] * len(logits)
    found = postprocess(whole, sizes, -1.0, rank=by_softmax)
    rows["detections boxes"] = torch.stack([f.boxes_xyxy for f in found])
    rows["detections scores"] = torch.stack([f.scores for f in found])
    rows["detections labels"] = torch.stack([f.labels for f in found])
    return rows
