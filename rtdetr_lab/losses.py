r"""# Losses: what is an error?

- **Paper**     RT-DETR §4.3 and Table A; varifocal: Zhang et al. 2021, Eq. 2; focal: Lin et al.
  2017, Eq. 5; quality focal: Li et al. 2020, Eq. 2; cross-entropy and boxes: DETR §3.1, §A.2
- **Notebook**  `notebooks/04_losses.ipynb`
- **Elsewhere** the `loss_labels_*` and `loss_boxes` of `SetCriterion` (authors) and `RTDetrLoss`
  (transformers); who is compared with whom is decided in `matching.py` and `criterion.py`

Once the matching has said which query answers for which object, two questions are left: *is the box
right?* and *is the score right?* The first has one answer everywhere in this family, the distance
of the coordinates plus the lack of overlap, $\|b - \hat b\|_1$ and $1 - \mathrm{GIoU}(b, \hat b)$.
L1 alone would forgive a small object every error; GIoU alone has a poor gradient far away.

The second is where RT-DETR differs from DETR. Its **varifocal** loss asks for the score to be $q$,
*the IoU of the query's own box*, at the object's class, and 0 elsewhere:

$$ \mathcal L = \begin{cases}
   -q \bigl(q \log p + (1-q) \log (1-p)\bigr) & \text{matched, at its class} \\
   -\alpha\, p^\gamma \log(1-p) & \text{everywhere else} \end{cases} $$

A score so learned can rank: the top-k of `query_selection.py` and the final scores mean "how well
is it boxed", not only "is it there". $q$ is detached: no box is made worse to fit its score, and
the factor $p^\gamma$, which silences the easy background, is detached as well.

| class loss           | target, its class | weight there         | elsewhere            | of      |
|----------------------|-------------------|----------------------|----------------------|---------|
| `Varifocal`          | IoU               | IoU                  | $\alpha p^\gamma$    | RT-DETR |
| `Focal`              | 1                 | $\alpha(1-p)^\gamma$ | $(1-\alpha)p^\gamma$ | DINO    |
| `BinaryCrossEntropy` | 1                 | 1                    | 1                    |         |
| `CrossEntropy`       | 1 (softmax)       | 1                    | 0.1 at "no object"   | DETR    |

Two ideas are mixed in varifocal, the IoU as target and the weights. `iou_target` takes them apart:
`Varifocal(iou_target=False)` keeps the weights only, `BinaryCrossEntropy(iou_target=True)` the
target only, and `Focal(iou_target=True)` is the quality focal loss.

A class loss is any function of four things, so a reader's own fits in the same place:

| argument    | shape   | meaning                                                                  |
|-------------|---------|--------------------------------------------------------------------------|
| `logits`    | `B Q C` | before the sigmoid (or softmax)                                          |
| `is_class`  | `B Q C` | True where query q answers for an object of class c: at most once per q  |
| `iou`       | `B Q`   | of the query's box with its object's, 0 for the unmatched; no gradient   |
| `num_boxes` |         | what to divide by: objects in the batch, at least 1                      |
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
    """Towards the IoU at the object's class, weighted by it; towards 0 elsewhere, hard ones first:
    Eq. 04.1.

    A box that misses its object altogether ($q = 0$) says nothing about the score of its query.
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
    r"""$-\alpha_t\, |t - p|^\gamma$ times the cross-entropy; here the weight has a gradient too:
    Eq. 04.2."""

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
    """Every class of every query counts the same: the background outvotes the objects."""

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
    """DETR's softmax over the classes and, in the last place, "no object". Eq. 02.3

    It is a weighted mean over all queries, so it is not divided by the number of objects.
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
    """What the scores should become: the IoU, or 1, at the object's class, and 0 elsewhere."""
    return is_class * iou.unsqueeze(-1) if iou_target else is_class.to(iou.dtype)


def l1_loss(
    boxes: Float[Tensor, "T 4"], wanted: Float[Tensor, "T 4"], num_boxes: float
) -> Float[Tensor, ""]:
    """Distance of centre and size, in fractions of the picture, per object. Eq. 04.3"""
    return (boxes - wanted).abs().sum() / num_boxes


def giou_loss(
    boxes: Float[Tensor, "T 4"], wanted: Float[Tensor, "T 4"], num_boxes: float
) -> Float[Tensor, ""]:
    """1 - GIoU of cxcywh boxes per object: from 0, the same box, to 2, far away. Eq. 04.3"""
    overlap = paired_giou(xyxy_from_cxcywh(boxes), xyxy_from_cxcywh(wanted))
    return (1 - overlap).sum() / num_boxes
