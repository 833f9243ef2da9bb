r"""# Mask losses: is every pixel right, and is the shape?

- **Paper**     DETR §4.2; dice: Milletari et al. 2016, Eq. 3; focal: Lin et al. 2017, Eq. 5
- **Notebook**  `notebooks/18_segmentation.ipynb`
- **Elsewhere** `loss_masks` of the authors' `SetCriterion`, with `sigmoid_focal_loss`, `dice_loss`

A predicted mask has a quarter of the picture's size. It is enlarged to the size of the annotation
and compared with it, object by object, in two ways:

$$ \mathcal L_{\text{mask}} = \frac 1 T \sum_t \frac 1 {HW} \sum_{x} \alpha_x\,
   |m_{t,x} - \hat p_{t,x}|^\gamma\, \mathrm{BCE}(\hat p_{t,x}, m_{t,x}), \qquad
   \mathcal L_{\text{dice}} = \frac 1 T \sum_t 1 - \frac{2 \sum_x \hat p\, m + 1}
   {\sum_x \hat p + \sum_x m + 1} $$

The mask loss counts pixels, so small objects hardly matter in it. The dice loss measures overlap,
so all sizes matter equally. Masks take no part in the matching: boxes and classes of the last layer
decide which query answers for which object. Only the last layer has masks.

| term   | theirs (transformers) | weight |
|--------|-----------------------|--------|
| `mask` | `loss_mask`           | 1      |
| `dice` | `loss_dice`           | 1      |
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rtdetr_lab.config import require_at_least
from rtdetr_lab.errors import TargetError
from rtdetr_lab.structures import Assignment, Prediction, Targets


@dataclass(frozen=True)
class MaskLoss:
    """Compute the two terms of masks; the value of `CriterionConfig.masks`."""

    mask_weight: float = 1.0
    dice_weight: float = 1.0
    alpha: float = 0.25
    gamma: float = 2.0

    def __post_init__(self) -> None:
        weights = {"mask_weight": self.mask_weight, "dice_weight": self.dice_weight}
        require_at_least(0, "criterion.masks", **weights)

    def __call__(
        self, prediction: Prediction, targets: Targets, pairs: Assignment, num_boxes: float
    ) -> dict[str, Tensor]:
        """Compare masks of matched queries with those of their objects.

        Raises `TargetError` if targets or prediction have no masks.
        """
        if prediction.masks is None or targets.masks is None:
            who = "the model answers without" if prediction.masks is None else "there are no"
            remedy = "train a model that draws masks on targets with masks, or set criterion.masks"
            raise TargetError("targets.masks", f"{who} masks", f"{remedy} to None")
        wanted = pairs.gather(targets.masks)
        masks = prediction.masks[pairs.flat]
        masks = masks.to(torch.promote_types(masks.dtype, torch.float32))
        masks = enlarged(masks, wanted.shape[1:])
        wanted = wanted.to(masks.dtype)
        focal = mask_focal_loss(masks, wanted, num_boxes, self.alpha, self.gamma)
        dice = dice_loss(masks, wanted, num_boxes)
        return {"mask": self.mask_weight * focal, "dice": self.dice_weight * dice}


def enlarged(masks: Float[Tensor, "T h w"], size: tuple[int, ...]) -> Float[Tensor, "T H W"]:
    """Enlarge masks bilinearly, as all references do; zero masks stay zero masks."""
    if not len(masks):
        return masks.new_zeros((0, *size)) + masks.sum()  # connected: gradients are there, and zero
    return F.interpolate(masks.unsqueeze(1), size, mode="bilinear", align_corners=False).squeeze(1)


def mask_focal_loss(
    masks: Float[Tensor, "T H W"],
    wanted: Float[Tensor, "T H W"],
    num_boxes: float,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Float[Tensor, ""]:
    """Focal loss: mean over pixels, sum over masks, per object. `masks` are logits."""
    balance = alpha * wanted + (1 - alpha) * (1 - wanted)
    weight = balance * (wanted - masks.sigmoid()).abs() ** gamma
    error = F.binary_cross_entropy_with_logits(masks, wanted, reduction="none")
    return (weight * error).flatten(1).mean(1).sum() / num_boxes


def dice_loss(
    masks: Float[Tensor, "T H W"], wanted: Float[Tensor, "T H W"], num_boxes: float
) -> Float[Tensor, ""]:
    """One minus the dice overlap; 1 is added to both parts, so empty masks overlap fully."""
    p = masks.sigmoid().flatten(1)
    wanted = wanted.flatten(1)
    overlap = (2 * (p * wanted).sum(1) + 1) / (p.sum(1) + wanted.sum(1) + 1)
    return (1 - overlap).sum() / num_boxes
