"""# Answers: from pictures of a model's size to boxes in pixels of the stored ones

What `evaluate` and `Detector` share. Pictures of one size are stacked; of several sizes only a DETR
can take, on one canvas with the rest hidden from it (`images/edges.py`).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rtdetr_lab.detr.model import DETRConfig
from rtdetr_lab.errors import ImageError
from rtdetr_lab.images.edges import padded
from rtdetr_lab.images.postprocess import Found, postprocess
from rtdetr_lab.images.softmax import Fractions, of_the_picture, postprocess_softmax
from rtdetr_lab.notation import Size
from rtdetr_lab.structures import Prediction

Postprocess = Callable[[Prediction, Sequence[Size], float], list[Found]]


def answers(
    model: Callable[..., Prediction],
    images: Sequence[Float[Tensor, "3 _ _"]],
    sizes: Sequence[Size],
    threshold: float,
    *,
    to: Any = None,
    fractions: Fractions = of_the_picture,
    with_masks: bool = False,
) -> list[Found]:
    """What scores above `threshold` in every picture, in pixels of its size in `sizes`.

    `to` is a device, or a tensor whose device and type the model wants. `with_masks`, if the model
    draws any. Raises `ImageError` for pictures of several sizes if the model takes one.
    """
    alike = len({image.shape for image in images}) == 1
    if not keeps_aspect(model):
        if not alike:
            what = f"several sizes in a batch, which {type(model).__name__} cannot take"
            raise ImageError("pictures", what, "resize them all to one size")
        return postprocess(model(torch.stack(list(images)).to(to)), sizes, threshold)
    found = partial(postprocess_softmax, fractions=fractions, with_masks=with_masks)
    if alike:
        return found(model(torch.stack(list(images)).to(to)), sizes, threshold)
    canvas, padding = padded(images)
    canvas = canvas.to(to)
    padding = padding.to(canvas.device)
    return found(model(canvas, padding=padding), sizes, threshold, padding=padding)


def keeps_aspect(model: object) -> bool:
    """Can it take pictures of several sizes on one canvas?"""
    return isinstance(getattr(model, "cfg", None), DETRConfig)


def postprocess_for(model: object) -> Postprocess:
    """How this model's logits become scores: DETR's classes exclude each other."""
    return postprocess_softmax if keeps_aspect(model) else postprocess
