r"""# Selection: should the score of a token reflect the quality of its box?

- **Paper**     RT-DETR §4.3, Table 4 (R50, 12 epochs)
- **Study**     `rtdetr-lab ablate selection`

| row                 | AP   | Prop_cls | Prop_both |
|---------------------|------|----------|-----------|
| vanilla             | 47.9 | 0.35 %   | 0.30 %    |
| uncertainty-minimal | 48.7 | 0.82 %   | 0.67 %    |

`Prop_cls` is the share of selected tokens with a class score above 0.5. `Prop_both` is the share of
tokens that also have a box with an IoU above 0.5. `ProposalQuality` measures both on validation
pictures, and stores (score, IoU) of tokens for the scatter plot of the paper's Fig. 6.

Query selection is a top-k by class score (`query_selection.py`). The paper's *vanilla* and
*uncertainty-minimal* selection differ in the *target* of that score: 1 where there is an object, or
the IoU of the token's own box. So the vanilla row changes only the loss of the proposals
(`ProposalCriterion`).
"""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from rtdetr_lab.ablations.variant import Variant, derived, variant
from rtdetr_lab.criterion import Criterion, CriterionConfig, Pairs
from rtdetr_lab.data.batch import Sample, as_float
from rtdetr_lab.losses import ClassLoss, Varifocal
from rtdetr_lab.rtdetr import RTDETRConfig
from rtdetr_lab.structures import Prediction, Targets
from rtdetr_lab.viz.queries import best_iou


@dataclass(frozen=True)
class ProposalCriterion(CriterionConfig):
    """The usual criterion, with a separate class loss for the encoder's proposals."""

    of_proposals: ClassLoss = field(default_factory=Varifocal)

    def build(self) -> "SplitCriterion":
        return SplitCriterion(self)


class SplitCriterion(Criterion):
    """Use one class loss for the decoder layers and another for the proposals."""

    def __init__(self, cfg: ProposalCriterion) -> None:
        super().__init__(cfg)
        self.of_proposals = Criterion(replace(cfg, classification=cfg.of_proposals))

    def terms(
        self, prediction: Prediction, targets: Targets, pairs: Pairs, num_boxes: float
    ) -> dict[str, Tensor]:
        """Compute all terms; those of the proposals come from their own criterion."""
        terms = super().terms(prediction, targets, pairs, num_boxes)
        if prediction.proposals is None:
            return terms
        where, layer = ".proposals", prediction.proposals.layer
        return terms | self.of_proposals._terms(where, layer, targets, pairs[where], num_boxes)


POINTS = 400
"""Number of tokens in the scatter plot: those with the best scores over all pictures."""


def vanilla(cfg: RTDETRConfig) -> RTDETRConfig:
    """If a score only means "there is an object", tokens with poor boxes rank high: fewer good ones
    are selected, and AP falls (paper: −0.8)."""
    taught = replace(cfg.criterion.classification, iou_target=False)
    return replace(cfg, criterion=derived(ProposalCriterion, cfg.criterion, of_proposals=taught))


def vanilla_everywhere(cfg: RTDETRConfig) -> RTDETRConfig:
    """If no score reflects the IoU, the decoder's final ranking suffers as well: worse than vanilla
    in the selection alone."""
    loss = replace(cfg.criterion.classification, iou_target=False)
    return replace(cfg, criterion=replace(cfg.criterion, classification=loss))


def uncertainty_minimal(cfg: RTDETRConfig) -> RTDETRConfig:
    """The target of every score is the IoU of its own box: selection by score is selection by
    quality."""
    return cfg


SELECTIONS: tuple[Variant, ...] = (
    variant(vanilla),
    variant(vanilla_everywhere),
    variant(uncertainty_minimal, "uncertainty-minimal"),
)
"""Rows of Table 4, and one of ours."""


@dataclass(frozen=True)
class ProposalQuality:
    """Quality of the selected tokens over validation pictures."""

    threshold: float = 0.5

    def __call__(self, model: nn.Module, batches: list[list[Sample]]) -> dict[str, Any]:
        """Return `Prop_cls` and `Prop_both` in percent, and the points of the scatter plot."""
        scores, overlaps = [], []
        for samples in batches:
            proposals = model(torch.stack([as_float(s.image) for s in samples])).proposals
            if proposals is None:
                return {}  # DETR has no proposals
            scores.append(proposals.logits.sigmoid().amax(-1).flatten())
            pairs = zip(proposals.boxes, samples, strict=True)
            overlaps += [best_iou(boxes, sample.boxes) for boxes, sample in pairs]
        score, overlap = torch.cat(scores), torch.cat(overlaps)
        sure = score > self.threshold
        both = sure & (overlap > self.threshold)
        best = score.argsort(descending=True)[:POINTS]
        return {
            "Prop_cls": _percent(sure),
            "Prop_both": _percent(both),
            "score_iou": [_rounded(score[best]), _rounded(overlap[best])],
        }


def _percent(yes: Tensor) -> float:
    return round(100 * yes.double().mean().item(), 4)


def _rounded(values: Tensor) -> list[float]:
    return [round(v, 3) for v in values.tolist()]
