r"""# Softmax: from DETR's queries to boxes in pixels

DETR's classes exclude each other, and the last one is "nothing":

$$ s_q = \max_{c < C} \operatorname{softmax}(\ell_q)_c, \qquad
   c_q = \arg\max_{c < C} \ell_{q,c} $$

So a query has one label and one score, there is no top-k, and what RT-DETR's `postprocess` says
about queries that appear twice does not hold here.

**Fractions of what?** Pictures of a batch share a canvas. A box may be a fraction of its *picture*
or of the *canvas*, and nothing in a checkpoint says which:

| `fractions`      | trained by                                            |
|------------------|-------------------------------------------------------|
| `of_the_picture` | the authors, so all published weights                 |
| `of_the_canvas`  | whoever fine-tuned with transformers' image processor |

transformers itself reads all boxes as `of_the_picture`. Where nothing is padded both are the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rtdetr_lab.boxes import scale_boxes, xyxy_from_cxcywh
from rtdetr_lab.errors import ImageError
from rtdetr_lab.images.masks import masks_of
from rtdetr_lab.images.postprocess import Found, at_least_single
from rtdetr_lab.notation import Size
from rtdetr_lab.structures import Prediction

Fractions = Callable[[Tensor, Tensor], Tensor]


def of_the_picture(
    boxes: Float[Tensor, "B Q 4"], filled: Float[Tensor, "B 2"]
) -> Float[Tensor, "B Q 4"]:
    """Boxes as they are."""
    return boxes


def of_the_canvas(
    boxes: Float[Tensor, "B Q 4"], filled: Float[Tensor, "B 2"]
) -> Float[Tensor, "B Q 4"]:
    """Boxes enlarged by how much the canvas is larger than the picture."""
    height, width = filled.unbind(1)
    return boxes / torch.stack([width, height, width, height], dim=1).unsqueeze(1)


def filled_part(padding: Bool[Tensor, "B H W"], dtype: torch.dtype) -> Float[Tensor, "B 2"]:
    """How much of the canvas a picture fills, in (height, width)."""
    pictures = (~padding).to(dtype)
    return torch.stack([pictures[:, :, 0].mean(1), pictures[:, 0].mean(1)], dim=1)


def postprocess_softmax(
    prediction: Prediction,
    sizes: Sequence[Size],
    threshold: float = 0.5,
    *,
    padding: Bool[Tensor, "B H W"] | None = None,
    fractions: Fractions = of_the_picture,
    with_masks: bool = False,
) -> list[Found]:
    """Per picture, best first, what scores strictly above `threshold`.

    `sizes` are those of the pictures, (height, width) in pixels; `padding` is what the model was
    given. `with_masks` enlarges the masks of what is found, if the model draws any. Raises
    `ImageError` when a score or a mask is not finite.
    """
    check_sizes(sizes, prediction)
    logits, boxes = at_least_single(prediction.logits), at_least_single(prediction.boxes)
    if padding is not None:
        boxes = fractions(boxes, filled_part(padding, boxes.dtype))
    scores, labels = logits.softmax(-1)[..., :-1].max(-1)
    boxes_xyxy, found = xyxy_from_cxcywh(boxes), []
    for b, size in enumerate(sizes):
        _check_finite(b, scores[b], boxes_xyxy[b])
        best = scores[b].argsort(descending=True, stable=True)
        one = Found(scale_boxes(boxes_xyxy[b][best], size), scores[b][best], labels[b][best], best)
        one = one.at(one.scores > threshold)
        if with_masks and prediction.masks is not None:
            drawn = at_least_single(prediction.masks[b, one.queries])
            _check_finite(b, drawn)
            one = replace(one, masks=masks_of(drawn, size, None if padding is None else padding[b]))
        found.append(one)
    return found


def _check_finite(b: int, *answers: Tensor) -> None:
    if not all(bool(answer.isfinite().all()) for answer in answers):
        what = "the model's answer holds NaN or infinity"
        raise ImageError(f"pictures[{b}]", what, "check the weights, or leave half precision")


def check_sizes(sizes: Sequence[Size], prediction: Prediction) -> None:
    """Raise `ImageError` unless every picture has a size."""
    if len(sizes) != len(prediction.logits):
        what = f"{len(sizes)} sizes for {len(prediction.logits)} pictures"
        raise ImageError("sizes", what, "give one (height, width) per picture of the batch")
