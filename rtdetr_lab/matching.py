r"""# Matching: which query answers for which object?

- **Paper**     DETR §3.1, Eq. 1 and §A.2; the focal cost: Deformable DETR; weights: RT-DETR Table A
- **Notebook**  `notebooks/03_matching.ipynb`
- **Elsewhere** `HungarianMatcher` (authors), `RTDetrHungarianMatcher` (transformers)

A detector that has no step to delete duplicates must *learn* to answer once. So training gives
every object to exactly one query: this query *answers for* the object. All other queries learn to
say "nothing". The assignment $\hat\sigma$ is the one with the lowest total cost:

$$ \hat\sigma = \arg\min_\sigma \sum_t \mathcal C_{\sigma(t), t} \tag{03.1} $$

$$ \mathcal C = 2\, \mathcal C_{\text{class}} + 5\, \|b - \hat b\|_1
              - 2\, \mathrm{GIoU}(b, \hat b) \tag{03.2} $$

*Total* matters: an object may get its second-best query, so that another object can have the best
one. A greedy search (the cheapest pair first, then the next) misses this. Our search is exact: the
Jonker–Volgenant algorithm, in scipy, finds the same minimum as the Hungarian one. It runs one
picture at a time. No gradient flows through it: the matching decides *which* query answers, the
losses measure *how well* it answers.

**The class cost** compares two losses at the object's class: the loss of saying "yes" minus the
loss of saying "no". It is low for a query that already says "yes". This is the cost with the focal
loss; $p$ is the score of the object's class. The second sign is a plus, because the loss of "no"
has its own minus:

$$ \mathcal C_{\text{class}} = -\alpha (1-p)^\gamma \log p
   + (1-\alpha)\, p^\gamma \log(1-p) \tag{03.3} $$

| class cost                     | formula                | of                         |
|--------------------------------|------------------------|----------------------------|
| `FocalCost(alpha, gamma)`      | above                  | RT-DETR, Deformable DETR   |
| `SoftmaxCost()`                | $-p$, with softmax     | DETR                       |

The matching does *not* use the varifocal loss. The target of that loss is an IoU, and the GIoU cost
already measures the overlap.

| $\alpha$ of                     | value | weighs                                              |
|---------------------------------|-------|-----------------------------------------------------|
| the focal *cost* (this chapter) | 0.25  | "yes" with $\alpha$, "no" with $1 - \alpha$         |
| the varifocal *loss* (`losses.py`) | 0.75 | background; a matched query by the IoU of its box |

| situation                    | what happens                                                   |
|------------------------------|----------------------------------------------------------------|
| a picture without objects    | an empty assignment                                            |
| more objects than queries    | Q pairs with the lowest total; the other objects get no query  |
| a cost that is not finite    | `TrainingError`, naming picture and query                      |

transformers replaces such a cost by a huge number and continues. We stop: the match would be
arbitrary, and a model that answers NaN has diverged.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rtdetr_lab.boxes import giou, xyxy_from_cxcywh
from rtdetr_lab.config import require_weights
from rtdetr_lab.errors import TrainingError
from rtdetr_lab.structures import Assignment, LayerPrediction, Targets

ClassCost = Callable[[Tensor, Tensor], Tensor]

LOG_EPS = 1e-8
"""Added inside the logarithm, so that it is finite at 0 and 1, as in the papers' code."""


@dataclass(frozen=True)
class FocalCost:
    """Focal loss of "yes" minus focal loss of "no" at the object's class. Eq. 03.3"""

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
    """DETR's cost: minus the probability of the object's class; the last class is "no object"."""

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
        require_weights("matcher", self.class_cost, self.l1_cost, self.giou_cost)

    def build(self) -> "HungarianMatcher":
        return HungarianMatcher(self)


class HungarianMatcher:
    """Give every object of a batch to one query."""

    def __init__(self, cfg: MatcherConfig) -> None:
        self.cfg = cfg

    @torch.no_grad()
    def __call__(self, layer: LayerPrediction, targets: Targets) -> Assignment:
        """Match one layer. Raises `TrainingError` where a prediction is not finite."""
        pictures = zip(layer.logits, layer.boxes, targets.labels, targets.boxes, strict=True)
        costs = [
            self.cost_matrix(logits, boxes, labels, wanted)
            for logits, boxes, labels, wanted in pictures
        ]
        # One transfer for all pictures: every transfer waits for all work queued on the device.
        on_cpu = torch.cat([c.flatten() for c in costs]).cpu().split([c.numel() for c in costs])
        queries, objects = [], []
        for index, (values, cost) in enumerate(zip(on_cpu, costs, strict=True)):
            if not bool(torch.isfinite(values).all()):
                raise _not_finite(index, layer)
            rows, columns = cheapest(values.view(cost.shape))
            queries.append(rows.to(cost.device))
            objects.append(columns.to(cost.device))
        return Assignment(tuple(queries), tuple(objects))

    def cost_matrix(
        self,
        logits: Float[Tensor, "Q C"],
        boxes: Float[Tensor, "Q 4"],
        labels: Int[Tensor, "T"],
        target_boxes: Float[Tensor, "T 4"],
    ) -> Float[Tensor, "Q T"]:
        """Cost of giving object t to query q in one picture, in float32 or better. Eq. 03.2"""
        dtype = torch.promote_types(logits.dtype, torch.float32)
        logits = logits.to(dtype)
        boxes = boxes.to(dtype)
        target_boxes = target_boxes.to(dtype)
        return (
            self.cfg.class_cost * self.cfg.classification(logits, labels)
            + self.cfg.l1_cost * torch.cdist(boxes, target_boxes, p=1)
            - self.cfg.giou_cost * giou(xyxy_from_cxcywh(boxes), xyxy_from_cxcywh(target_boxes))
        )


def cheapest(
    cost: Float[Tensor, "Q T"],
) -> tuple[Int[Tensor, "pairs"], Int[Tensor, "pairs"]]:
    """Rows and columns of the min(Q, T) pairs with the lowest total cost, by row. Eq. 03.1"""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(cost.numpy())
    return torch.as_tensor(rows), torch.as_tensor(columns)


def _not_finite(picture: int, layer: LayerPrediction) -> TrainingError:
    for name, values in (("logits", layer.logits[picture]), ("boxes", layer.boxes[picture])):
        broken = (~torch.isfinite(values)).any(-1).nonzero()
        if len(broken):
            what = f"the {name} of {len(broken)} queries, query {int(broken[0])} first, are not"
            break
    else:
        what = "the matching cost of finite predictions is not"
    return TrainingError(
        f"picture {picture} of the batch",
        f"{what} finite",
        "lower the learning rate, or look for the first module that says NaN with `record`",
    )
