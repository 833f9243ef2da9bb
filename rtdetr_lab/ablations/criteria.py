r"""# Criteria for ablations: train the proposals with another loss than the decoder

- **Paper**     RT-DETR §4.3, Table 4

Query selection is a top-k by class score (`query_selection.py`). The paper's *vanilla* and
*uncertainty-minimal* selection differ in the *target* of that score: 1 where there is an object, or
the IoU of the token's own box. So the vanilla row changes only the loss of the proposals.
"""

from dataclasses import dataclass, field, replace

from torch import Tensor

from rtdetr_lab.criterion import Criterion, CriterionConfig, Pairs
from rtdetr_lab.losses import ClassLoss, Varifocal
from rtdetr_lab.structures import Prediction, Targets


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
