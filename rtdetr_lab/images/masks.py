r"""# Masks: what a query drew, in the picture's own pixels

A mask head draws coarsely, at a quarter of the canvas. Its mask is enlarged to the canvas, cut to
the part the picture fills, and enlarged again to the size of the picture; a pixel belongs to it
where

$$ \operatorname{resize}(\sigma(m_q)) > \tfrac12 $$

Every mask stands for itself: two queries may claim one pixel, and many pixels are nobody's. Who
*owns* a pixel is another question, and `panoptic.py` answers it.

A mask of a photograph has millions of pixels and there are a hundred queries, so that only those
that are kept are enlarged, one after the other: what stays is one byte per pixel and mask.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from rtdetr_lab.notation import Size


def masks_of(
    logits: Float[Tensor, "n h w"],
    size: Size,
    padding: Bool[Tensor, "H W"] | None = None,
    threshold: float = 0.5,
) -> Bool[Tensor, "n _ _"]:
    """Mask logits of one picture → masks of its (height, width); `padding` is its canvas'."""
    masks = torch.zeros((len(logits), *size), dtype=torch.bool, device=logits.device)
    for mask, drawn in zip(masks, logits.split(1), strict=True):
        mask.copy_(resized(part_of_picture(drawn, padding).sigmoid(), size)[0] > threshold)
    return masks


def part_of_picture(
    masks: Float[Tensor, "n _ _"], padding: Bool[Tensor, "H W"] | None
) -> Float[Tensor, "n _ _"]:
    """The part of the masks that is the picture's, in its pixels; all of it without padding."""
    if padding is None:
        return masks
    height, width = int((~padding[:, 0]).sum()), int((~padding[0]).sum())
    return resized(masks, (padding.shape[0], padding.shape[1]))[:, :height, :width]


def resized(maps: Float[Tensor, "n _ _"], size: Size) -> Float[Tensor, "n _ _"]:
    """Bilinearly, by the centres of pixels."""
    if not len(maps):
        return maps.new_zeros((0, *size))
    return F.interpolate(maps.unsqueeze(0), size, mode="bilinear", align_corners=False)[0]
