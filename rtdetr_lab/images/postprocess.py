r"""# Postprocess: from Q queries to boxes in pixels

No suppression, no anchors to decode. A sigmoid, one top-k over *all* pairs of query and class, and
a multiplication by the picture's size:

$$ s_{q,c} = \sigma(\ell_{q,c}), \qquad (q, c)_1, \dots, (q, c)_Q = \operatorname{top\text{-}Q} s,
   \qquad q = \lfloor i / C \rfloor, \quad c = i \bmod C $$

Two things follow that surprise people. One query may appear twice, with two labels, when it is
unsure which of them it sees; and another may not appear at all. And because the sigmoids are
independent, scores of a query do not sum to one.

`suppress` is here for those who want at most one box per place whatever its label; it is not part
of the model, and nothing calls it unless asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rtdetr_lab.boxes import iou, scale_boxes, xyxy_from_cxcywh
from rtdetr_lab.errors import ImageError
from rtdetr_lab.notation import Size
from rtdetr_lab.structures import Prediction


@dataclass(frozen=True, eq=False)
class Found:
    """What was found in one picture, best first: corners in pixels, scores, labels, which query
    said so, and its pixels where the model draws (`masks.py`)."""

    boxes_xyxy: Float[Tensor, "n 4"]
    scores: Float[Tensor, " n"]
    labels: Int[Tensor, " n"]
    queries: Int[Tensor, " n"]
    masks: Bool[Tensor, "n _ _"] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def at(self, index: Tensor | slice) -> "Found":
        """Those that `index` (a mask, positions or a slice) picks, in its order."""
        return replace(self, **{name: values[index] for name, values in self._columns()})

    def to(self, device: torch.device | str) -> "Found":
        """The same on another device."""
        return replace(self, **{name: values.to(device) for name, values in self._columns()})

    def _columns(self) -> list[tuple[str, Tensor]]:
        values = ((f.name, getattr(self, f.name)) for f in fields(self))
        return [(name, value) for name, value in values if value is not None]


def postprocess(
    prediction: Prediction, sizes: Sequence[Size], threshold: float = 0.5
) -> list[Found]:
    """Per picture, what scores strictly above `threshold`; `sizes` are (height, width) in pixels.

    Boxes may reach a little over the edge, as predicted; they are in single precision at least.
    Raises `ImageError` when a score is not finite: NaN would look like an empty picture.
    """
    logits, boxes = at_least_single(prediction.logits), at_least_single(prediction.boxes)
    if len(sizes) != len(logits):
        what = f"{len(sizes)} sizes for {len(logits)} pictures"
        raise ImageError("sizes", what, "give one (height, width) per picture of the batch")
    scores, index = logits.sigmoid().flatten(1).topk(logits.shape[1], dim=1)
    queries, labels = index // logits.shape[2], index % logits.shape[2]
    boxes_xyxy = xyxy_from_cxcywh(boxes).take_along_dim(queries.unsqueeze(-1), dim=1)
    found = []
    for b, size in enumerate(sizes):
        if not (scores[b].isfinite().all() and boxes_xyxy[b].isfinite().all()):
            what = "the model's answer holds NaN or infinity"
            remedy = "check the weights (`rtdetr-lab verify`), or leave half precision"
            raise ImageError(f"pictures[{b}]", what, remedy)
        all_of_them = Found(scale_boxes(boxes_xyxy[b], size), scores[b], labels[b], queries[b])
        found.append(all_of_them.at(scores[b] > threshold))
    return found


def at_least_single(values: Tensor) -> Tensor:
    """Half precision has no room for pixels: bfloat16 knows 512 and 516, and nothing between."""
    return values if values.dtype == torch.float64 else values.float()


def suppress(found: Found, max_iou: float = 0.7) -> Found:
    """Class-agnostic duplicate removal: whoever overlaps a better-scored box by more than `max_iou`
    goes."""
    found = found.at(found.scores.argsort(descending=True, stable=True))
    return found.at(survivors(iou(found.boxes_xyxy, found.boxes_xyxy) > max_iou))


def survivors(beaten_by: Bool[Tensor, "n n"]) -> Bool[Tensor, " n"]:
    """Walk down the list: row i goes if a *survivor* j before it has `beaten_by[i, j]`. Greedy, so
    that one who is gone removes nobody."""
    kept: list[int] = []
    for i, row in enumerate(beaten_by.tolist()):
        if not any(row[j] for j in kept):
            kept.append(i)
    mask = torch.zeros(len(beaten_by), dtype=torch.bool, device=beaten_by.device)
    mask[kept] = True
    return mask
