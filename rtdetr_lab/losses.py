r"""# Losses: what is an error, and who pays for it?

- **Paper**     RT-DETR §4.3, Table A; varifocal: Zhang et al. 2021, Eq. 2; focal: Lin et al. 2017
- **Notebook**  `notebooks/04_losses.ipynb`
- **Elsewhere** `SetCriterion` (authors), `RTDetrLoss` (transformers)

Matched queries are pulled to their object's box (L1 and GIoU) and class; all others are pushed to
"nothing". The class target is where RT-DETR differs from DETR. Its **varifocal** loss asks the
score to be $q$, *the IoU of the query's own box*, at the object's class, and 0 elsewhere:

$$ \mathcal L = \begin{cases}
   -q \bigl(q \log p + (1-q) \log (1-p)\bigr) & \text{matched, at its class} \\
   -\alpha\, p^\gamma \log(1-p) & \text{everywhere else} \end{cases} $$

A score so learned can rank: the top-k of `query_selection.py` and the final scores mean "how well
is it boxed", not only "is it there". $q$ is detached: no box is made worse to fit its score.

Every layer pays, with a matching of its own; so do the encoder's proposals and the denoising
queries, whose objects are known. All are divided by the number of objects in the batch (the mean
over ranks in distributed training, at least 1), denoising terms also by their groups.

| term                    | weight | of                                                      |
|-------------------------|--------|---------------------------------------------------------|
| `class`                 | 1      | the last layer                                          |
| `l1`                    | 5      | matched boxes, cxcywh in [0, 1]                         |
| `giou`                  | 2      | 1 - GIoU of matched boxes                               |
| `….layer0`, …           | same   | decoder layers before the last                          |
| `….proposals`           | same   | the encoder's chosen tokens                             |
| `….denoising0`, …       | same   | denoising queries, every layer                          |
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from rtdetr_lab.boxes import paired_giou, paired_iou, xyxy_from_cxcywh
from rtdetr_lab.matching import MatcherConfig
from rtdetr_lab.structures import (
    Assignment,
    CDNBatch,
    LayerPrediction,
    Prediction,
    Targets,
)

ClassLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Varifocal:
    """Score towards IoU at the object's class, focal towards 0 elsewhere. With
    `iou_target=False` the target is 1."""

    alpha: float = 0.75
    gamma: float = 2.0
    iou_target: bool = True

    def __call__(
        self,
        logits: Float[Tensor, "B Q C"],
        is_class: Bool[Tensor, "B Q C"],
        iou: Float[Tensor, "B Q"],
    ) -> Float[Tensor, ""]:
        target = _soft(is_class, iou) if self.iou_target else is_class.to(logits.dtype)
        score = logits.detach().sigmoid()
        weight = torch.where(is_class, target, self.alpha * score**self.gamma)
        return F.binary_cross_entropy_with_logits(logits, target, weight, reduction="sum")


@dataclass(frozen=True)
class Focal:
    r"""$-\alpha_t (1-p_t)^\gamma \log p_t$; with `iou_target` the target is the IoU."""

    alpha: float = 0.25
    gamma: float = 2.0
    iou_target: bool = False

    def __call__(
        self,
        logits: Float[Tensor, "B Q C"],
        is_class: Bool[Tensor, "B Q C"],
        iou: Float[Tensor, "B Q"],
    ) -> Float[Tensor, ""]:
        target = _soft(is_class, iou) if self.iou_target else is_class.to(logits.dtype)
        score = logits.sigmoid()
        miss = (
            (target - score).abs() if self.iou_target else torch.where(is_class, 1 - score, score)
        )
        balance = torch.where(is_class, self.alpha, 1 - self.alpha)
        error = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return (balance * miss**self.gamma * error).sum()


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """Every class of every query counts the same; with `iou_target` the target is the IoU."""

    iou_target: bool = False

    def __call__(
        self,
        logits: Float[Tensor, "B Q C"],
        is_class: Bool[Tensor, "B Q C"],
        iou: Float[Tensor, "B Q"],
    ) -> Float[Tensor, ""]:
        target = _soft(is_class, iou) if self.iou_target else is_class.to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, target, reduction="sum")


def _soft(is_class: Bool[Tensor, "B Q C"], iou: Float[Tensor, "B Q"]) -> Float[Tensor, "B Q C"]:
    return is_class * iou.unsqueeze(-1)


@dataclass(frozen=True)
class CriterionConfig:
    """Weights of the three terms, the class loss as a value, and the matcher."""

    matcher: MatcherConfig = field(default_factory=MatcherConfig)
    classification: ClassLoss = field(default_factory=Varifocal)
    class_weight: float = 1.0
    l1_weight: float = 5.0
    giou_weight: float = 2.0

    def build(self) -> "Criterion":
        return Criterion(self)


class Criterion:
    """All terms of a prediction, weighted: their sum is the loss."""

    def __init__(self, cfg: CriterionConfig) -> None:
        self.cfg = cfg
        self.matcher = cfg.matcher.build()

    def __call__(self, prediction: Prediction, targets: Targets) -> dict[str, Tensor]:
        """Terms by name; computed in at least float32 whatever autocast says."""
        targets = targets.to(prediction.boxes.device)
        terms: dict[str, Tensor] = {}
        with torch.autocast(prediction.boxes.device.type, enabled=False):
            num_boxes = mean_over_ranks(targets.num_boxes, prediction.boxes.device)
            for name, layer in _judged(prediction):
                layer = _at_least_float32(layer)
                pairs = self.matcher(layer, targets)
                terms |= self._terms(name, layer, targets, pairs, num_boxes)
            terms |= self._denoising_terms(prediction, targets, num_boxes)
        return terms

    def _terms(
        self,
        name: str,
        layer: LayerPrediction,
        targets: Targets,
        pairs: Assignment,
        num_boxes: float,
    ) -> dict[str, Tensor]:
        cfg, at = self.cfg, pairs.flat
        boxes = layer.boxes[at]
        wanted = pairs.gather(targets.boxes).to(boxes.dtype)
        corners, wanted_corners = xyxy_from_cxcywh(boxes), xyxy_from_cxcywh(wanted)

        iou = layer.logits.new_zeros(layer.logits.shape[:2])
        iou[at] = paired_iou(corners.detach(), wanted_corners)
        is_class = torch.zeros_like(layer.logits, dtype=torch.bool)
        is_class[(*at, pairs.gather(targets.labels))] = True

        classification = cfg.classification(layer.logits, is_class, iou)
        l1 = (boxes - wanted).abs().sum()
        giou = (1 - paired_giou(corners, wanted_corners)).sum()
        return {
            f"class{name}": classification * (cfg.class_weight / num_boxes),
            f"l1{name}": l1 * (cfg.l1_weight / num_boxes),
            f"giou{name}": giou * (cfg.giou_weight / num_boxes),
        }

    def _denoising_terms(
        self, prediction: Prediction, targets: Targets, num_boxes: float
    ) -> dict[str, Tensor]:
        if prediction.denoising is None:
            return {}
        batch = prediction.denoising.batch
        pairs = denoising_pairs(batch)
        copies = sum(map(len, pairs.queries)) / max(targets.num_boxes, 1)  # groups, if uncapped
        terms: dict[str, Tensor] = {}
        for i, layer in enumerate(prediction.denoising.layers):
            layer = _at_least_float32(layer)
            normaliser = num_boxes * max(copies, 1e-12)
            found = self._terms(f".denoising{i}", layer, targets, pairs, normaliser)
            # Nothing to restore: padding must not be pushed to "nothing" either.
            terms |= found if targets.num_boxes else {k: _silent(layer) for k in found}
        return terms


def denoising_pairs(batch: CDNBatch) -> Assignment:
    """Which denoising query stands for which object: positives only."""
    queries = tuple(row.nonzero()[:, 0] for row in batch.is_positive)
    rows = zip(batch.target_index, queries, strict=True)
    return Assignment(queries, tuple(index[q] for index, q in rows))


def mean_over_ranks(count: int, device: torch.device | str) -> float:
    """Objects per rank, averaged over ranks, at least 1: every object weighs the same anywhere."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return max(float(count), 1.0)
    total = torch.tensor([float(count)], device=device)
    torch.distributed.all_reduce(total)
    return max(total.item() / torch.distributed.get_world_size(), 1.0)


def _judged(prediction: Prediction) -> Iterator[tuple[str, LayerPrediction]]:
    """Everything that is matched, with the suffix of its terms: the last layer has none."""
    *before, last = prediction.layers
    yield "", last
    for i, layer in enumerate(before):
        yield f".layer{i}", layer
    if prediction.proposals is not None:
        yield ".proposals", prediction.proposals.layer


def _silent(layer: LayerPrediction) -> Tensor:
    """Zero, with gradients that exist."""
    return 0.0 * (layer.logits.sum() + layer.boxes.sum())


def _at_least_float32(layer: LayerPrediction) -> LayerPrediction:
    dtype = torch.promote_types(layer.logits.dtype, torch.float32)
    return LayerPrediction(layer.logits.to(dtype), layer.boxes.to(dtype))
