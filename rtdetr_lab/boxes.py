r"""# Boxes: formats, overlap, and the logit that refines them

- **Paper**     GIoU: Rezatofighi et al. 2019, Eq. 2; inverse sigmoid: Deformable DETR §A.2
- **Notebook**  `notebooks/01_boxes.ipynb`
- **Elsewhere** authors' `box_ops.py`; transformers' `image_transforms`, `loss_for_object_detection`

A model predicts a box as its centre and size in fractions of the picture, because both are then
numbers in $[0, 1]$ whatever the picture measures. Overlap is easier with corners. So there are two
formats, and one rule about names: **a box is `cxcywh` in $[0, 1]$ unless it is called `_xyxy`.**

$$ \mathrm{IoU} = \frac{|A \cap B|}{|A \cup B|} \tag{01.1} $$

$$ \mathrm{GIoU} = \mathrm{IoU} - \frac{|E| - |A \cup B|}{|E|} \tag{01.2} $$

where $E$ is the smallest box around both. IoU is 0 for every pair that does not touch, so it cannot
say "closer"; GIoU keeps falling, down to $-1$, and gives a gradient to a box that missed.

| function          | in             | out        | range     |
|-------------------|----------------|------------|-----------|
| `iou`, `giou`     | `A 4`, `B 4`   | `A B`      | [0,1], (-1,1] |
| `paired_iou`, `paired_giou` | `T 4`, `T 4` | `T`  | the same  |
| `inverse_sigmoid` | any            | the same   | [-11.5, 11.5] |

A box without area has IoU 0 with everything, itself included, and never a NaN.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from rtdetr_lab.notation import Size

LOGIT_EPS = 1e-5
"""How close to 0 or 1 a coordinate may come before its logit is taken (Deformable DETR)."""


def xyxy_from_cxcywh(boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """Centre and size to corners; any unit."""
    centre, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([centre - 0.5 * size, centre + 0.5 * size], dim=-1)


def cxcywh_from_xyxy(boxes_xyxy: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """Corners to centre and size; any unit."""
    low, high = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def xyxy_from_xywh(boxes_xywh: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """COCO's annotation format (left, top, width, height) to corners."""
    low, size = boxes_xywh[..., :2], boxes_xywh[..., 2:]
    return torch.cat([low, low + size], dim=-1)


def xywh_from_xyxy(boxes_xyxy: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """Corners to COCO's (left, top, width, height)."""
    low, high = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    return torch.cat([low, high - low], dim=-1)


def scale_boxes(boxes: Float[Tensor, "*n 4"], size: Size) -> Float[Tensor, "*n 4"]:
    """Fractions of a picture to pixels, in either format. `size` is (height, width)."""
    height, width = size
    return boxes * boxes.new_tensor([width, height, width, height])


def area(boxes_xyxy: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """Area in squared units of the input; a box turned inside out counts as empty."""
    size = (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]).clamp(min=0)
    return size[..., 0] * size[..., 1]


def _overlap(
    a: Float[Tensor, "*#n 4"], b: Float[Tensor, "*#n 4"]
) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"]]:
    """Intersection and union of corner boxes that broadcast against each other."""
    low = torch.maximum(a[..., :2], b[..., :2])
    high = torch.minimum(a[..., 2:], b[..., 2:])
    size = (high - low).clamp(min=0)
    intersection = size[..., 0] * size[..., 1]
    return intersection, area(a) + area(b) - intersection


def _ratio(numerator: Float[Tensor, "*n"], denominator: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    # Where there is no area there is nothing to divide by: both branches stay finite, so that
    # the gradient does too.
    safe = torch.where(denominator > 0, denominator, torch.ones_like(denominator))
    return numerator / safe


def paired_iou(
    a_xyxy: Float[Tensor, "*#n 4"], b_xyxy: Float[Tensor, "*#n 4"]
) -> Float[Tensor, "*n"]:
    """IoU (Eq. 01.1) of the first with the first, the second with the second, …"""
    return _ratio(*_overlap(a_xyxy, b_xyxy))


def paired_giou(
    a_xyxy: Float[Tensor, "*#n 4"], b_xyxy: Float[Tensor, "*#n 4"]
) -> Float[Tensor, "*n"]:
    """GIoU (Eq. 01.2) of the first with the first, the second with the second, …"""
    intersection, union = _overlap(a_xyxy, b_xyxy)
    low = torch.minimum(a_xyxy[..., :2], b_xyxy[..., :2])
    high = torch.maximum(a_xyxy[..., 2:], b_xyxy[..., 2:])
    enclosing = area(torch.cat([low, high], dim=-1))
    return _ratio(intersection, union) - _ratio(enclosing - union, enclosing)


def iou(a_xyxy: Float[Tensor, "A 4"], b_xyxy: Float[Tensor, "B 4"]) -> Float[Tensor, "A B"]:
    """IoU of every box of `a` with every box of `b`."""
    return paired_iou(a_xyxy[:, None], b_xyxy[None, :])


def giou(a_xyxy: Float[Tensor, "A 4"], b_xyxy: Float[Tensor, "B 4"]) -> Float[Tensor, "A B"]:
    """GIoU of every box of `a` with every box of `b`."""
    return paired_giou(a_xyxy[:, None], b_xyxy[None, :])


def inverse_sigmoid(x: Float[Tensor, "*n"], eps: float = LOGIT_EPS) -> Float[Tensor, "*n"]:
    r"""$\log \frac{x}{1-x}$, kept finite at 0 and 1 (Eq. 01.3): refinement adds to a box in this
    space.

    $$ \sigma^{-1}(x) = \log \frac{\max(x, \epsilon)}{\max(1 - x, \epsilon)} \tag{01.3} $$

    `torch.logit` clamps $x$ to $[\epsilon, 1-\epsilon]$; the papers' code clamps $x$ and $1-x$
    each from below, which differs from it in the last digits near both ends.
    """
    x = x.clamp(min=0, max=1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))
