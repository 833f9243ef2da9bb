r"""# Criterion: all losses of a batch, added up

- **Paper**     RT-DETR §4.3, Table A; a loss after every layer: DETR §3.2; denoising: DINO §3.3
- **Notebook**  `notebooks/04_losses.ipynb`
- **Elsewhere** `SetCriterion` (authors), `RTDetrLoss` (transformers)

Every decoder layer makes a full prediction, so every layer is matched and judged separately. The
encoder's proposals are judged in the same way; this loss trains the query selection. Denoising
queries need no matching, because their object is known. The loss is one sum:

$$ \mathcal L = \frac{1}{\text{objects}} \sum_{\text{layers}} \Bigl(
   w_{\text{class}} \mathcal L_{\text{class}} + w_{L1} \sum_t \|b_t - \hat b_t\|_1
   + w_{\text{giou}} \sum_t \bigl(1 - \mathrm{GIoU}(b_t, \hat b_t)\bigr) \Bigr) \tag{04.4} $$

| term                   | theirs (transformers) | weight | judges                             |
|------------------------|-----------------------|--------|------------------------------------|
| `class`                | `loss_vfl`            | 1      | scores of the last layer           |
| `l1`                   | `loss_bbox`           | 5      | its matched boxes, cxcywh in [0, 1] |
| `giou`                 | `loss_giou`           | 2      | the same boxes                     |
| `class.layer0`, …      | `loss_vfl_aux_0`, …   | same   | the decoder layers before the last |
| `class.proposals`, …   | `loss_vfl_aux_n`, highest n | same | the encoder's chosen tokens    |
| `class.denoising0`, …  | `loss_vfl_dn_0`, …    | same   | denoising queries, every layer     |
| `mask`, `dice`         | `loss_mask`, `loss_dice` | 1   | its masks (`detr/mask_losses.py`)  |

**Objects** is the number of objects in the batch, at least 1. In a distributed run it is the mean
over the processes. Then the mean of the processes' gradients equals the gradient of one big batch,
for any number of objects in each process. For example, two processes with 1 and 9 objects both
divide by 5. The mean of their losses is (sum₁ / 5 + sum₂ / 5) / 2 = (sum₁ + sum₂) / 10, which is
the loss of the batch of 10. Denoising trains one positive per object and group, so its loss is
divided by objects × groups.

**A batch without objects** is a training signal too: all scores are pulled to 0. Its box and
denoising terms are exactly zero, but they stay connected to the graph. So every parameter gets a
gradient, and a distributed run does not wait forever for a missing one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from rtdetr_lab.boxes import paired_iou, xyxy_from_cxcywh
from rtdetr_lab.config import require_weights
from rtdetr_lab.losses import ClassLoss, Varifocal, giou_loss, l1_loss
from rtdetr_lab.matching import MatcherConfig
from rtdetr_lab.structures import (
    Assignment,
    CDNBatch,
    Denoised,
    LayerPrediction,
    Prediction,
    Targets,
)
from rtdetr_lab.structures.ranks import mean_over_ranks

Pairs = dict[str, Assignment]
"""The assignment of every layer, by the suffix of that layer's terms."""

MaskTerms = Callable[[Prediction, Targets, Assignment, float], dict[str, Tensor]]
"""Function to the weighted terms of masks from a prediction, the targets, the pairs of the last
layer, and the number of objects."""


@dataclass(frozen=True)
class CriterionConfig:
    """The matcher, the class loss (a function), the weights of the three terms, and the losses of
    masks (a function; `detr/mask_losses.py` has one) for a model that draws them."""

    matcher: MatcherConfig = field(default_factory=MatcherConfig)
    classification: ClassLoss = field(default_factory=Varifocal)
    class_weight: float = 1.0
    l1_weight: float = 5.0
    giou_weight: float = 2.0
    masks: MaskTerms | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        require_weights("criterion", self.class_weight, self.l1_weight, self.giou_weight)

    def build(self) -> "Criterion":
        return Criterion(self)


class Criterion:
    """Compute the weighted terms of a prediction; their sum is the loss (Eq. 04.4)."""

    def __init__(self, cfg: CriterionConfig) -> None:
        self.cfg = cfg
        self.matcher = cfg.matcher.build()

    def __call__(self, prediction: Prediction, targets: Targets) -> dict[str, Float[Tensor, ""]]:
        """Return the terms by name, in float32 or better even under autocast."""
        device = prediction.boxes.device
        targets = targets.to(device)
        with torch.autocast(device.type, enabled=False):
            layers = self.layers(prediction)
            pairs = {name: self.matcher(layer, targets) for name, layer in layers}
            num_boxes = mean_over_ranks(targets.num_boxes, device)
            terms = self.terms(prediction, targets, pairs, num_boxes)
            if self.cfg.masks is not None:
                terms |= self.cfg.masks(prediction, targets, pairs[""], num_boxes)
            return terms

    def layers(self, prediction: Prediction) -> Iterator[tuple[str, LayerPrediction]]:
        """Every prediction that needs a matching, with the suffix of its terms."""
        return matched_layers(prediction)

    def terms(
        self, prediction: Prediction, targets: Targets, pairs: Pairs, num_boxes: float
    ) -> dict[str, Tensor]:
        """Compute all terms, given the assignment of every layer."""
        terms: dict[str, Tensor] = {}
        for name, layer in self.layers(prediction):
            terms |= self._terms(name, layer, targets, pairs[name], num_boxes)
        if prediction.denoising is not None:
            terms |= self._denoising_terms(prediction.denoising, targets, num_boxes)
        return terms

    def _terms(
        self,
        name: str,
        layer: LayerPrediction,
        targets: Targets,
        pairs: Assignment,
        num_boxes: float,
    ) -> dict[str, Tensor]:
        cfg = self.cfg
        matched = pairs.flat
        layer = _at_least_float32(layer)
        boxes = layer.boxes[matched]
        wanted = pairs.gather(targets.boxes).to(boxes.dtype)

        iou = layer.logits.new_zeros(layer.logits.shape[:2])
        iou[matched] = paired_iou(xyxy_from_cxcywh(boxes.detach()), xyxy_from_cxcywh(wanted))
        is_class = torch.zeros_like(layer.logits, dtype=torch.bool)
        is_class[(*matched, pairs.gather(targets.labels))] = True

        classification = cfg.classification(layer.logits, is_class, iou, num_boxes)
        return {
            f"class{name}": cfg.class_weight * classification,
            f"l1{name}": cfg.l1_weight * l1_loss(boxes, wanted, num_boxes),
            f"giou{name}": cfg.giou_weight * giou_loss(boxes, wanted, num_boxes),
        }

    def _denoising_terms(
        self, denoised: Denoised, targets: Targets, num_boxes: float
    ) -> dict[str, Tensor]:
        pairs = denoising_pairs(denoised.batch)
        # An object appears once per group, unless `max_queries` left some objects of a crowd out.
        times = sum(map(len, pairs.queries)) / max(targets.num_boxes, 1)
        terms: dict[str, Tensor] = {}
        for i, layer in enumerate(denoised.layers):
            name = f".denoising{i}"
            if targets.num_boxes:
                terms |= self._terms(name, layer, targets, pairs, num_boxes * times)
            else:
                # There is only padding: the loss is zero, as in the authors' code.
                terms |= dict.fromkeys((f"class{name}", f"l1{name}", f"giou{name}"), _zero(layer))
        return terms


def matched_layers(prediction: Prediction) -> Iterator[tuple[str, LayerPrediction]]:
    """Every prediction that needs a matching, with the suffix of its terms (none: last layer)."""
    *before, last = prediction.layers
    yield "", last
    for i, layer in enumerate(before):
        yield f".layer{i}", layer
    if prediction.proposals is not None:
        yield ".proposals", prediction.proposals.layer


def denoising_pairs(batch: CDNBatch) -> Assignment:
    """Which denoising query stands for which object: positives only; negatives have no object."""
    queries = tuple(row.nonzero()[:, 0] for row in batch.is_positive)
    rows = zip(batch.target_index, queries, strict=True)
    return Assignment(queries, tuple(index[q] for index, q in rows))


def _zero(layer: LayerPrediction) -> Tensor:
    """A zero that depends on the layer, so that its gradient exists and is zero."""
    layer = _at_least_float32(layer)
    return layer.logits[:, :0].sum() + layer.boxes[:, :0].sum()


def _at_least_float32(layer: LayerPrediction) -> LayerPrediction:
    dtype = torch.promote_types(layer.logits.dtype, torch.float32)
    return LayerPrediction(layer.logits.to(dtype), layer.boxes.to(dtype))
