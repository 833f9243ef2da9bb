r"""# Losses: what is an error?

- **Paper**     RT-DETR §4.3 and Table A; varifocal: Zhang et al. 2021, Eq. 2; focal: Lin et al.
  2017, Eq. 5; quality focal: Li et al. 2020, Eq. 2; cross-entropy and boxes: DETR §3.1, §A.2
- **Notebook**  `notebooks/04_losses.ipynb`
- **Elsewhere** the `loss_labels_*` and `loss_boxes` of `SetCriterion` (authors) and `RTDetrLoss`
  (transformers); `matching.py` and `criterion.py` decide which query is compared with which object

The matching has decided which query answers for which object. Two questions are left: *is the score
right?* and *is the box right?*

The models of this family answer the question about the score in different ways. **Focal** loss has
the target 1 at the object's class and 0 elsewhere. It gives little weight to scores that are
already right:

$$ \mathcal L_{\text{focal}} = -\alpha_t\, (1 - p_t)^\gamma \log p_t \tag{04.1} $$

$p_t$ is the probability that the query gives to the right answer: its score $p$ at the object's
class, $1 - p$ elsewhere. $\alpha_t$ is $\alpha$ at the object's class and $1 - \alpha$ elsewhere.

RT-DETR's **varifocal** loss was developed from it. Its target for the score at the object's class
is $q$, *the IoU of the query's own box*. Everywhere else the target is 0:

$$ \mathcal L_{\text{varifocal}} = \begin{cases}
   -q \bigl(q \log p + (1-q) \log (1-p)\bigr) & \text{matched, at its class} \\
   -\alpha\, p^\gamma \log(1-p) & \text{everywhere else} \end{cases} \tag{04.2} $$

The weight $q$ in front makes good boxes count more. A score with this target tells "how good is the
box", not only "is an object there". So it can rank boxes: the proposals of the tokens
(`query_selection.py`), and the final detections. $q$ is detached, so the loss never makes a box
worse to fit its score. The factor $p^\gamma$ makes the loss of the easy background nearly zero; it
is detached too. If the matched box does not overlap its object at all, $q = 0$: the weight is 0,
and the class loss of that query at that class has no gradient.

All models of this family answer the question about the box in the same way, with the distance
between the coordinates and the missing overlap:

$$ \mathcal L_{L1} = \|b - \hat b\|_1, \qquad
   \mathcal L_{\text{giou}} = 1 - \mathrm{GIoU}(b, \hat b) \tag{04.3} $$

Take the smallest box around both boxes: GIoU is the IoU minus the fraction of this box that neither
covers (`boxes.py`). So it has a gradient even if the boxes do not overlap; the IoU has none there.
L1 alone gives little weight to errors on small objects, because their coordinates differ by small
numbers. GIoU alone has a weak gradient when the boxes are far apart.

| class loss           | target, its class | weight there         | elsewhere            | of      |
|----------------------|-------------------|----------------------|----------------------|---------|
| `Varifocal`          | IoU               | IoU                  | $\alpha p^\gamma$    | RT-DETR |
| `Focal`              | 1                 | $\alpha(1-p)^\gamma$ | $(1-\alpha)p^\gamma$ | DINO    |
| `BinaryCrossEntropy` | 1                 | 1                    | 1                    |         |
| `CrossEntropy`       | 1 (softmax)       | 1                    | 0.1 at "no object"   | DETR    |

Varifocal combines two ideas: the IoU as target, and the weights. `iou_target` separates them.
`Varifocal(iou_target=False)` keeps only the weights. `BinaryCrossEntropy(iou_target=True)` keeps
only the target. `Focal(iou_target=True)` is the quality focal loss.

A class loss is any function of these four arguments, so you can write your own:

| argument    | shape   | meaning                                                                  |
|-------------|---------|--------------------------------------------------------------------------|
| `logits`    | `B Q C` | before the sigmoid (or softmax)                                          |
| `is_class`  | `B Q C` | True where the query answers for an object of class c; at most one c     |
| `iou`       | `B Q`   | IoU of the query's box and its object; 0 if unmatched; no gradient       |
| `num_boxes` |         | divisor of the loss: objects in the batch, at least 1                    |
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from rtdetr_lab.boxes import paired_giou, xyxy_from_cxcywh

ClassLoss = Callable[[Tensor, Tensor, Tensor, float], Tensor]


@dataclass(frozen=True)
class Varifocal:
    """Pull the score to the IoU at the object's class and to 0 elsewhere (Eq. 04.2).

    A matched box that misses its object (IoU 0) has weight 0: its score gets no gradient there.
    """

    alpha: float = 0.75
    gamma: float = 2.0
    iou_target: bool = True

    def __call__(
        self,
        logits: Float[Tensor, "B Q C"],
        is_class: Bool[Tensor, "B Q C"],
        iou: Float[Tensor, "B Q"],
        num_boxes: float,
    ) -> Float[Tensor, ""]:
        target = class_target(is_class, iou, self.iou_target)
        score = logits.detach().sigmoid()
        weight = torch.where(is_class, target, self.alpha * score**self.gamma)
        error = F.binary_cross_entropy_with_logits(logits, target, weight, reduction="sum")
        return error / num_boxes


@dataclass(frozen=True)
class Focal:
    r"""Cross-entropy weighted by $\alpha_t\, (1 - p_t)^\gamma$ (Eq. 04.1).

    Unlike in varifocal, gradients flow through the weight as well.
    """

    alpha: float = 0.25
    gamma: float = 2.0
    iou_target: bool = False

    def __call__(
        self,
        logits: Float[Tensor, "B Q C"],
        is_class: Bool[Tensor, "B Q C"],
        iou: Float[Tensor, "B Q"],
        num_boxes: float,
    ) -> Float[Tensor, ""]:
        target = class_target(is_class, iou, self.iou_target)
        found = is_class.to(logits.dtype)
        balance = self.alpha * found + (1 - self.alpha) * (1 - found)
        weight = balance * (target - logits.sigmoid()).abs() ** self.gamma
        error = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return (weight * error).sum() / num_boxes


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """Plain cross-entropy: all classes of all queries count equally, and background dominates."""

    iou_target: bool = False

    def __call__(
        self,
        logits: Float[Tensor, "B Q C"],
        is_class: Bool[Tensor, "B Q C"],
        iou: Float[Tensor, "B Q"],
        num_boxes: float,
    ) -> Float[Tensor, ""]:
        target = class_target(is_class, iou, self.iou_target)
        return F.binary_cross_entropy_with_logits(logits, target, reduction="sum") / num_boxes


@dataclass(frozen=True)
class CrossEntropy:
    """DETR's softmax cross-entropy; the last class is "no object" (Eq. 02.3, notebook 02).

    The result is a weighted mean over all queries, so it is not divided by the number of objects.
    """

    no_object: float = 0.1

    def __call__(
        self,
        logits: Float[Tensor, "B Q C"],
        is_class: Bool[Tensor, "B Q C"],
        iou: Float[Tensor, "B Q"],
        num_boxes: float,
    ) -> Float[Tensor, ""]:
        nothing = logits.shape[-1] - 1
        label = is_class.long().argmax(-1).where(is_class.any(-1), nothing)
        weight = logits.new_ones(nothing + 1)
        weight[nothing] = self.no_object
        return F.cross_entropy(logits.flatten(0, 1), label.flatten(), weight)


def class_target(
    is_class: Bool[Tensor, "B Q C"], iou: Float[Tensor, "B Q"], iou_target: bool
) -> Float[Tensor, "B Q C"]:
    """Target of the scores: the IoU (or 1) at the object's class, and 0 elsewhere."""
    return is_class * iou.unsqueeze(-1) if iou_target else is_class.to(iou.dtype)


def l1_loss(
    boxes: Float[Tensor, "T 4"], wanted: Float[Tensor, "T 4"], num_boxes: float
) -> Float[Tensor, ""]:
    """L1 distance of centre and size, in fractions of the picture, per object (Eq. 04.3)."""
    return (boxes - wanted).abs().sum() / num_boxes


def giou_loss(
    boxes: Float[Tensor, "T 4"], wanted: Float[Tensor, "T 4"], num_boxes: float
) -> Float[Tensor, ""]:
    """1 - GIoU of cxcywh boxes, per object: 0 for equal boxes, up to 2 far apart (Eq. 04.3)."""
    overlap = paired_giou(xyxy_from_cxcywh(boxes), xyxy_from_cxcywh(wanted))
    return (1 - overlap).sum() / num_boxes
