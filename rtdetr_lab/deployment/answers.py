r"""# Answers: post-processing that never waits for the device

`images.postprocess` cuts every picture's list at its threshold, and to know where, the host has to
wait. Here the whole table travels once and is cut on arrival: per picture Q rows, best first, of

| column | 0–3 | 4 | 5 | 6 |
|---|---|---|---|---|
| | corners in pixels | score | label | query |

It is the same arithmetic, and the tests hold it against `postprocess`. A top-k costs the same
whatever is in the picture; suppression does not (`bench/nms.py` measures both).
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rtdetr_lab.boxes import xyxy_from_cxcywh
from rtdetr_lab.deployment.inference_form import rows_at
from rtdetr_lab.detr.model import DETRConfig
from rtdetr_lab.errors import ImageError
from rtdetr_lab.images.postprocess import Found, at_least_single
from rtdetr_lab.structures import Prediction

Rank = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Class logits, boxes (cxcywh) and sizes (height, width) to the table."""


def by_sigmoid(
    logits: Float[Tensor, "B Q C"], boxes: Float[Tensor, "B Q 4"], sizes: Float[Tensor, "B 2"]
) -> Float[Tensor, "B Q 7"]:
    """RT-DETR: the best Q pairs of query and class."""
    logits, boxes = at_least_single(logits), at_least_single(boxes)
    num_queries, num_classes = logits.shape[1:]
    scores, index = logits.sigmoid().flatten(1).topk(num_queries, dim=1)
    query, label = index // num_classes, index % num_classes
    corners = rows_at(xyxy_from_cxcywh(boxes), query)
    return _table(corners, scores, label, query, sizes)


def by_softmax(
    logits: Float[Tensor, "B Q C"], boxes: Float[Tensor, "B Q 4"], sizes: Float[Tensor, "B 2"]
) -> Float[Tensor, "B Q 7"]:
    """DETR: one class per query, and the last one is "nothing"."""
    logits, boxes = at_least_single(logits), at_least_single(boxes)
    scores, label = logits.softmax(-1)[..., :-1].max(-1)
    scores, query = scores.sort(dim=1, descending=True, stable=True)
    label = label.gather(1, query)
    corners = rows_at(xyxy_from_cxcywh(boxes), query)
    return _table(corners, scores, label, query, sizes)


def rank_for(model: nn.Module) -> Rank:
    """How this model's logits become scores."""
    return by_softmax if isinstance(getattr(model, "cfg", None), DETRConfig) else by_sigmoid


def found_in(rows: Float[Tensor, "B Q 7"], threshold: float, first: int = 0) -> list[Found]:
    """The table, on the host, cut at the threshold. Raises `ImageError` on what is not finite."""
    return [_cut(one, threshold, first + b) for b, one in enumerate(rows)]


def tensors_of(prediction: Prediction) -> tuple[Tensor, Tensor]:
    """Class logits and boxes of the last layer."""
    return prediction.logits, prediction.boxes


def sizes_tensor(sizes: Sequence[tuple[int, int]], like: Tensor) -> Float[Tensor, "B 2"]:
    """(height, width) of every picture, beside `like`."""
    return torch.tensor(sizes, dtype=at_least_single(like[:1]).dtype).to(like.device)


def _table(
    corners: Float[Tensor, "B Q 4"],
    scores: Float[Tensor, "B Q"],
    label: Tensor,
    query: Tensor,
    sizes: Float[Tensor, "B 2"],
) -> Float[Tensor, "B Q 7"]:
    pixels = corners * sizes.to(corners).flip(1).repeat(1, 2).unsqueeze(1)
    columns = [scores, label.to(scores.dtype), query.to(scores.dtype)]
    return torch.cat([pixels, torch.stack(columns, dim=-1)], dim=-1)


def _cut(rows: Float[Tensor, "Q 7"], threshold: float, index: int) -> Found:
    if not rows.isfinite().all():
        what = "the model's answer holds NaN or infinity"
        raise ImageError(f"pictures[{index}]", what, "check the weights, or leave half precision")
    kept = rows[rows[:, 4] > threshold]
    return Found(kept[:, :4], kept[:, 4], kept[:, 5].long(), kept[:, 6].long())
