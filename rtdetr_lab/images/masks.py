r"""# Masks: from the masks of queries to pixels of the picture

A mask head draws at low resolution, at a quarter of the canvas. Each mask is enlarged to the
canvas, cut to the part that the picture fills, and enlarged again to the size of the picture. A
pixel belongs to the mask where

$$ \operatorname{resize}(\sigma(m_q)) > \tfrac12 $$

Masks do not depend on each other: two masks may contain one pixel, and many pixels are in none.
`panoptic.py` assigns every pixel to one query.

A photograph has millions of pixels, and there are a hundred queries. So only the masks that are
kept are enlarged, one after the other. The result takes one byte per pixel and mask.
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
    """Convert the mask logits of one picture to masks of its (height, width).

    `padding` belongs to the canvas of the picture.
    """
    masks = torch.zeros((len(logits), *size), dtype=torch.bool, device=logits.device)
    for mask, drawn in zip(masks, logits.split(1), strict=True):
        mask.copy_(resized(part_of_picture(drawn, padding).sigmoid(), size)[0] > threshold)
    return masks


def part_of_picture(
    masks: Float[Tensor, "n _ _"], padding: Bool[Tensor, "H W"] | None
) -> Float[Tensor, "n _ _"]:
    """Cut masks to the part of the canvas that the picture fills, in canvas pixels.

    Without padding, return the masks as they are.
    """
    if padding is None:
        return masks
    height, width = int((~padding[:, 0]).sum()), int((~padding[0]).sum())
    return resized(masks, (padding.shape[0], padding.shape[1]))[:, :height, :width]


def resized(maps: Float[Tensor, "n _ _"], size: Size) -> Float[Tensor, "n _ _"]:
    """Resize maps bilinearly, aligned at the centres of pixels."""
    if not len(maps):
        return maps.new_zeros((0, *size))
    return F.interpolate(maps.unsqueeze(0), size, mode="bilinear", align_corners=False)[0]
