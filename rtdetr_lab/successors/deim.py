r"""# DEIM's loss: listen to poor matches, too

- **Paper**     "DEIM: DETR with Improved Matching for Fast Convergence", arXiv 2412.04234, Tables 5
  and 6
- **Notebook**  `notebooks/22_deim.ipynb`
- **Elsewhere** authors' and transformers' `loss_labels_mal` (`deimv2`)

Early in training most matched boxes are poor: their IoU $q$ with the object is 0.1 or 0.2. The
varifocal loss (`losses.py`) weighs a match with $q$, so it hardly hears them. But a poor match is
where a confident score does most harm: that query must learn that its box is bad. The
**matchability-aware** loss (MAL) gives every match the weight 1, and puts the quality into the
target alone, raised to the power $\gamma = 1.5$. It has no $\alpha$:

$$ \mathcal L_{\text{MAL}} = \begin{cases}
   -\bigl(q^\gamma \log p + (1 - q^\gamma) \log (1-p)\bigr) & \text{matched, at its class} \\
   -p^\gamma \log(1-p) & \text{everywhere else} \end{cases} \tag{22.1} $$

The slope of the loss along the logit of a match says how hard it pulls. Varifocal pulls with $q\,(p
- q)$, MAL with $p - q^\gamma$. For a query that says $p = 0.5$:

| IoU $q$          | 0    | 0.1  | 0.3  | 0.6   | 0.9   |
|------------------|------|------|------|-------|-------|
| target of MAL    | 0    | 0.03 | 0.16 | 0.46  | 0.85  |
| slope, varifocal | 0    | 0.04 | 0.06 | -0.06 | -0.36 |
| slope, MAL       | 0.50 | 0.47 | 0.34 | 0.04  | -0.35 |

For good boxes the two agree. For poor ones MAL pulls the score down ten times as hard. A box that
misses its object ($q = 0$) has no gradient in varifocal, and the strongest in MAL.

| $\gamma$ (Table 5) | 1.3  | 1.5  | 1.8  | 2.0  |
|--------------------|------|------|------|------|
| AP                 | 52.2 | 52.4 | 52.1 | 51.9 |

The other half of DEIM is data: mosaic and mixup put more objects into a picture, so every step has
more matches ("dense one-to-one", `data/dense.py`; the recipe is `deim` in `training/recipe.py`). On
RT-DETRv2-L that alone reaches 53.6 AP in 36 epochs, where the model had 53.4 in 72. With MAL it is
53.9 (Table 6).
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from rtdetr_lab.config import replace_at, require
from rtdetr_lab.losses import class_target


@dataclass(frozen=True)
class MatchabilityAware:
    """Pull the score to a power of the IoU at the object's class, and to 0 elsewhere (Eq. 22.1)."""

    gamma: float = 1.5

    def __post_init__(self) -> None:
        where, what = "criterion.classification.gamma", f"is {self.gamma}"
        require(self.gamma > 0, where, what, "give a positive number")

    def __call__(
        self,
        logits: Float[Tensor, "B Q C"],
        is_class: Bool[Tensor, "B Q C"],
        iou: Float[Tensor, "B Q"],
        num_boxes: float,
    ) -> Float[Tensor, ""]:
        target = class_target(is_class, iou, iou_target=True) ** self.gamma
        score = logits.detach().sigmoid()
        weight = torch.where(is_class, 1.0, score**self.gamma)
        error = F.binary_cross_entropy_with_logits(logits, target, weight, reduction="sum")
        return error / num_boxes


def matchability_aware(cfg: Any, gamma: float = 1.5) -> Any:
    """Train any RT-DETR or D-FINE with DEIM's class loss."""
    return replace_at(cfg, "criterion.classification", MatchabilityAware(gamma))
