"""# Predict: from a model and pictures to boxes in pixels of the pictures

Detection, evaluation and the checks of training share this file, so all of them give a model its
pictures in the same way. Pictures of one size are stacked. Pictures of several sizes share a canvas
with padding, if the model accepts padding (`images/preprocess.py`).
"""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rtdetr_lab.config import require
from rtdetr_lab.errors import ImageError
from rtdetr_lab.images.arrays import RGBs
from rtdetr_lab.images.panoptic import Rule, Segments, panoptic
from rtdetr_lab.images.postprocess import Found, Fractions, postprocess_of
from rtdetr_lab.images.preprocess import PAPER_EDGES, KeepAspect, Preprocess, padded
from rtdetr_lab.model import declared
from rtdetr_lab.notation import Edges, Size
from rtdetr_lab.structures import Prediction

Look = Preprocess | KeepAspect
"""The preparation of a picture for a model."""


def look_of(model: nn.Module, size: Size | None = None, edges: Edges | None = None) -> Look:
    """Return the preparation of a model's pictures: as given, else the model's, else the papers'.

    Raises `ConfigError` for `edges` if the model takes pictures of one size.
    """
    both = size is not None and edges is not None
    require(not both, "edges", "cannot be combined with a fixed size", "give size= or edges=")
    says = declared(model)
    if size is None and edges is None:
        size, edges = says.metadata.image_size, says.metadata.edges
    if edges is not None:
        what = f"{type(model).__name__} takes pictures of one size, and edges give several"
        require(says.takes_padding, "edges", what, "give size=(height, width), or a DETR")
        return KeepAspect(edges)
    if size is not None:
        return Preprocess(size)
    return KeepAspect() if says.takes_padding else Preprocess()


def predict(
    model: nn.Module,
    images: Sequence[Float[Tensor, "3 _ _"]],
    sizes: Sequence[Size],
    threshold: float = -1.0,
    *,
    to: Any = None,
    fractions: Fractions | None = None,
    with_masks: bool = False,
) -> list[Found]:
    """Return the detections above `threshold` in every picture, in pixels of its size in `sizes`.

    `to` is a device, or a tensor with the device and type of the model. `fractions` are the
    checkpoint's by default. `with_masks` adds masks if the model draws any. Raises `ImageError` for
    pictures of several sizes if the model takes one size.
    """
    prediction, padding = see(model, images, to)
    found_in = postprocess_of(model, fractions)
    return found_in(prediction, sizes, threshold, padding=padding, with_masks=with_masks)


def see(
    model: nn.Module, images: Sequence[Float[Tensor, "3 _ _"]], to: Any = None
) -> tuple[Prediction, Bool[Tensor, "B H W"] | None]:
    """Return the model's prediction, and the padding of the canvas (None without padding)."""
    if len({image.shape for image in images}) == 1:
        return model(torch.stack(list(images)).to(to)), None
    if not declared(model).takes_padding:
        what = f"several sizes in a batch, which {type(model).__name__} cannot take"
        raise ImageError("pictures", what, "resize them all to one size")
    canvas, padding = padded(images)
    canvas = canvas.to(to)
    padding = padding.to(canvas.device)
    return model(canvas, padding=padding), padding


def look_for_segments(model: nn.Module, edges: Edges | None = None) -> Look:
    """Return the preparation of a picture for segments; for a DETR it keeps the aspect ratio."""
    says = declared(model)
    if says.takes_padding:
        return KeepAspect(edges or says.metadata.edges or PAPER_EDGES)
    return look_of(model, edges=edges)


@torch.inference_mode()
def predict_segments(
    model: nn.Module, pictures: RGBs, look: Look, stuff: Collection[int], rule: Rule | None
) -> list[Segments]:
    """Return the segments of every picture, in its pixels; `stuff` labels have at most one each."""
    says = declared(model)
    remedy = "give one that does, e.g. with_masks(rtdetr_r18()) or detr_r50_panoptic()"
    require(says.draws_masks, "model", f"{type(model).__name__} draws no masks", remedy)
    like, padding = next(model.parameters(), torch.zeros(())), None
    sizes = [(rgb.shape[0], rgb.shape[1]) for rgb in pictures]
    if isinstance(look, KeepAspect):
        canvas, padding = look.batch(pictures)
        padding = padding.to(like.device)
        prediction = model(canvas.to(like), padding=padding)
    else:
        prediction = model(look.batch(pictures).to(like))
    alone = prediction.logits.shape[-1] == says.num_classes
    return panoptic(prediction, sizes, stuff, rule, padding=padding, alone=alone)
