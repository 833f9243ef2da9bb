r"""# Segments: the documented dictionaries of what `images/panoptic.py` finds

| documented          | here                                                     |
|---------------------|----------------------------------------------------------|
| `segmentation`      | `Segments.ids`; −1 everywhere if no query is sure enough |
| `segments_info`     | `Segments.segments`                                      |
| `target_sizes=None` | the size of the masks                                    |

Numbers of segments are unique: theirs may use one twice after joining stuff
(`docs/differences.md`).
"""

from collections.abc import Collection
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from rtdetr_lab.images.panoptic import ByOverlap, Segments, panoptic
from rtdetr_lab.images.postprocess import at_least_single
from rtdetr_lab.notation import Size
from rtdetr_lab.structures import Prediction
from rtdetr_lab.transformers_api.pixels import sizes_of


def segments(
    outputs: Any, target_sizes: Any, rule: ByOverlap, fuse: Collection[int]
) -> list[dict[str, Any]]:
    """Per picture `segmentation` and `segments_info`."""
    prediction, sizes = answer_of(outputs, target_sizes)
    found = panoptic(prediction, sizes, fuse, rule)
    scores, labels = at_least_single(prediction.logits).softmax(-1).max(-1)
    nothing = prediction.logits.shape[-1] - 1
    sure = ((scores > rule.threshold) & (labels != nothing)).any(1).tolist()
    return [_described(one, fuse, any_at_all) for one, any_at_all in zip(found, sure, strict=True)]


def _described(found: Segments, fuse: Collection[int], any_at_all: bool) -> dict[str, Any]:
    ids = found.ids if any_at_all else torch.full_like(found.ids, -1)
    info = [
        {
            "id": s.id,
            "label_id": s.label,
            "was_fused": s.label in fuse,
            "score": round(s.score, 6),
        }
        for s in found.segments
    ]
    return {"segmentation": ids.to(torch.int32), "segments_info": info}


def answer_of(outputs: Any, target_sizes: Any) -> tuple[Prediction, list[Size]]:
    """What a model answered, and the size of every picture."""
    masks = getattr(outputs, "pred_masks", None)
    prediction = Prediction(outputs.logits, outputs.pred_boxes, (), masks=masks)
    if target_sizes is None and masks is not None:
        target_sizes = [(masks.shape[-2], masks.shape[-1])] * len(masks)
    return prediction, sizes_of(target_sizes, len(outputs.logits))


def run_lengths(ids: Int[Tensor, "H W"]) -> list[list[int]]:
    """Per number in the map, 0 among them, where its runs start (from 1, row by row) and how long
    they are: what transformers calls COCO annotation. `data/rle.py` writes COCO's own."""
    found = []
    for number in ids.unique().tolist():
        inside = (ids.flatten() == number).int()
        edge = torch.zeros(1, dtype=torch.int32, device=inside.device)
        turns = torch.cat([edge, inside, edge]).diff().nonzero()[:, 0]
        starts, ends = turns[::2], turns[1::2]
        found.append(torch.stack([starts + 1, ends - starts], dim=1).flatten().tolist())
    return found
