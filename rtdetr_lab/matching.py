r"""# Matching: which query answers for which object?

- **Paper**     DETR §3.1, Eq. 1; costs and weights: RT-DETR Table A
- **Notebook**  `notebooks/03_matching.ipynb`
- **Elsewhere** `HungarianMatcher` everywhere

A detector without suppression must be *taught* not to answer twice. So every object is given to
exactly one query, the cheapest in total, and all other queries are taught to say "nothing":

$$ \hat\sigma = \arg\min_\sigma \sum_t \mathcal C_{\sigma(t), t}, \qquad
   \mathcal C = 2\, \mathcal C_{\text{class}} + 5\, \|b - \hat b\|_1
              - 2\, \mathrm{GIoU}(b, \hat b) $$

It is solved exactly (Jonker–Volgenant, in scipy), one picture at a time. The class cost is the
focal loss of saying "yes" minus that of saying "no", at the object's class:

$$ \mathcal C_{\text{class}} = -\alpha (1-p)^\gamma \log p + (1-\alpha)\, p^\gamma \log(1-p) $$

| situation                    | what happens                                                   |
|------------------------------|----------------------------------------------------------------|
| a picture without objects    | an empty assignment                                            |
| more objects than queries    | min(Q, T) pairs, the cheapest together; the rest go unanswered |
| a cost that is not finite    | `TrainingError` naming the picture: a match would be arbitrary |
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rtdetr_lab.boxes import giou, xyxy_from_cxcywh
from rtdetr_lab.config import require
from rtdetr_lab.errors import TrainingError
from rtdetr_lab.structures import Assignment, LayerPrediction, Targets

ClassCost = Callable[[Tensor, Tensor], Tensor]

LOG_EPS = 1e-8
"""Keeps the logarithm finite at probabilities 0 and 1, as in the papers' code."""


@dataclass(frozen=True)
class FocalCost:
    """Focal loss of "yes" minus focal loss of "no" at the object's class."""

    alpha: float = 0.25
    gamma: float = 2.0

    def __call__(
        self, logits: Float[Tensor, "Q C"], labels: Int[Tensor, "T"]
    ) -> Float[Tensor, "Q T"]:
        p = logits.sigmoid()[:, labels]
        yes = -self.alpha * (1 - p) ** self.gamma * (p + LOG_EPS).log()
        no = -(1 - self.alpha) * p**self.gamma * (1 - p + LOG_EPS).log()
        return yes - no


@dataclass(frozen=True)
class SoftmaxCost:
    """DETR's: minus the probability of the object's class, "no object" being the last one."""

    def __call__(
        self, logits: Float[Tensor, "Q C"], labels: Int[Tensor, "T"]
    ) -> Float[Tensor, "Q T"]:
        return -logits.softmax(-1)[:, labels]


@dataclass(frozen=True)
class MatcherConfig:
    """Weights of the three costs, and the class cost itself."""

    class_cost: float = 2.0
    l1_cost: float = 5.0
    giou_cost: float = 2.0
    classification: ClassCost = field(default_factory=FocalCost)

    def __post_init__(self) -> None:
        require(
            min(self.class_cost, self.l1_cost, self.giou_cost) >= 0
            and self.class_cost + self.l1_cost + self.giou_cost > 0,
            "matcher",
            f"costs {self.class_cost}, {self.l1_cost}, {self.giou_cost} cannot rank anything",
            "give weights that are not negative and not all zero",
        )

    def build(self) -> "HungarianMatcher":
        return HungarianMatcher(self)


class HungarianMatcher:
    """Gives every object of a batch to one query."""

    def __init__(self, cfg: MatcherConfig) -> None:
        self.cfg = cfg

    @torch.no_grad()
    def __call__(self, layer: LayerPrediction, targets: Targets) -> Assignment:
        from scipy.optimize import linear_sum_assignment

        queries, objects = [], []
        for index, (labels, boxes) in enumerate(zip(targets.labels, targets.boxes, strict=True)):
            cost = self.cost_matrix(layer.logits[index], layer.boxes[index], labels, boxes)
            if not bool(torch.isfinite(cost).all()):
                raise TrainingError(
                    f"picture {index} of the batch",
                    "the matching cost is not finite: the model's logits or boxes are NaN",
                    "lower the learning rate, or look for the first bad module with `record`",
                )
            rows, columns = linear_sum_assignment(cost.cpu().numpy())
            queries.append(torch.as_tensor(rows, device=cost.device))
            objects.append(torch.as_tensor(columns, device=cost.device))
        return Assignment(tuple(queries), tuple(objects))

    def cost_matrix(
        self,
        logits: Float[Tensor, "Q C"],
        boxes: Float[Tensor, "Q 4"],
        labels: Int[Tensor, "T"],
        target_boxes: Float[Tensor, "T 4"],
    ) -> Float[Tensor, "Q T"]:
        """The cost of giving object t to query q, for one picture; at least in float32."""
        dtype = torch.promote_types(logits.dtype, torch.float32)
        logits, boxes, target_boxes = logits.to(dtype), boxes.to(dtype), target_boxes.to(dtype)
        return (
            self.cfg.class_cost * self.cfg.classification(logits, labels)
            + self.cfg.l1_cost * torch.cdist(boxes, target_boxes, p=1)
            - self.cfg.giou_cost * giou(xyxy_from_cxcywh(boxes), xyxy_from_cxcywh(target_boxes))
        )
