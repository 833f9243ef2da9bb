r"""# Boxes: formats, overlap, and the logit that refines them

- **Paper**     GIoU: Rezatofighi et al. 2019, Eq. 2; inverse sigmoid: Deformable DETR §A.2
- **Notebook**  `notebooks/01_boxes.ipynb`
- **Elsewhere** authors' `box_ops.py`; transformers' `image_transforms`, `loss_for_object_detection`

A model predicts the centre and the size of a box as fractions of the picture. Both are then numbers
in $[0, 1]$ for a picture of any size. Overlap is easier to compute from corners. So there are two
formats, and one rule about names: **a box is `cxcywh` in $[0, 1]$ unless it is called `_xyxy`.**

$$ \mathrm{IoU} = \frac{|A \cap B|}{|A \cup B|} \tag{01.1} $$

$$ \mathrm{GIoU} = \mathrm{IoU} - \frac{|E| - |A \cup B|}{|E|} \tag{01.2} $$

where $E$ is the smallest box around both. IoU is 0 for every pair that does not touch, however far
apart the two boxes are, so it has no gradient there. GIoU keeps falling with the distance, down to
$-1$, and so gives a gradient to a box that missed.

| function          | in             | out        | range     |
|-------------------|----------------|------------|-----------|
| `iou`, `giou`     | `A 4`, `B 4`   | `A B`      | [0,1], (-1,1] |
| `paired_iou`, `paired_giou` | `T 4`, `T 4` | `T`  | the same  |
| `inverse_sigmoid` | any            | the same   | [-11.5, 11.5] |

A box without area has IoU 0 with every box, itself included. No input gives a NaN.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from rtdetr_lab.notation import Size

LOGIT_EPS = 1e-5
"""Clamp a coordinate this far from 0 and 1 before taking its logit (Deformable DETR)."""


def xyxy_from_cxcywh(boxes: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """Convert centre and size to corners; any unit."""
    centre, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([centre - 0.5 * size, centre + 0.5 * size], dim=-1)


def cxcywh_from_xyxy(boxes_xyxy: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """Convert corners to centre and size; any unit."""
    low, high = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def xyxy_from_xywh(boxes_xywh: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """Convert COCO's annotation format (left, top, width, height) to corners."""
    low, size = boxes_xywh[..., :2], boxes_xywh[..., 2:]
    return torch.cat([low, low + size], dim=-1)


def xywh_from_xyxy(boxes_xyxy: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """Convert corners to COCO's (left, top, width, height)."""
    low, high = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    return torch.cat([low, high - low], dim=-1)


def scale_boxes(boxes: Float[Tensor, "*n 4"], size: Size) -> Float[Tensor, "*n 4"]:
    """Convert fractions of a picture to pixels, in either format. `size` is (height, width)."""
    height, width = size
    return boxes * boxes.new_tensor([width, height, width, height])


def area(boxes_xyxy: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n"]:
    """Area in squared units of the input; a box with swapped corners has area 0."""
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
    # Without area we would divide by zero. Replace the denominator, not only the result: then both
    # branches of `where` are finite, and so is the gradient.
    safe = torch.where(denominator > 0, denominator, torch.ones_like(denominator))
    return numerator / safe


def paired_iou(
    a_xyxy: Float[Tensor, "*#n 4"], b_xyxy: Float[Tensor, "*#n 4"]
) -> Float[Tensor, "*n"]:
    """IoU (Eq. 01.1) of the boxes pair by pair: first with first, second with second, …"""
    return _ratio(*_overlap(a_xyxy, b_xyxy))


def paired_giou(
    a_xyxy: Float[Tensor, "*#n 4"], b_xyxy: Float[Tensor, "*#n 4"]
) -> Float[Tensor, "*n"]:
    """GIoU (Eq. 01.2) of the boxes pair by pair: first with first, second with second, …"""
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
    r"""Logit of x, finite at 0 and 1 too (Eq. 01.3). The decoder moves boxes in this space.

    $$ \sigma^{-1}(x) = \log \frac{\max(x, \epsilon)}{\max(1 - x, \epsilon)} \tag{01.3} $$

    `torch.logit` clamps $x$ to $[\epsilon, 1-\epsilon]$. The papers' code clamps $x$ and $1-x$ from
    below, each by itself, and we do the same: near 0 and 1 the last digits differ.
    """
    x = x.clamp(min=0, max=1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))
