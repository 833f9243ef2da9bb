r"""# Segmentation: a mask for every query

- **Paper**     DETR §4.2 and Fig. 8; panoptic: Kirillov et al. 2019
- **Notebook**  `notebooks/18_segmentation.ipynb`
- **Elsewhere** authors' `DETRsegm`; transformers' `DetrForSegmentation`

DETR with a head that predicts masks (`detr/mask_head.py`) and two losses for them
(`detr/mask_losses.py`). Queries answer for things (countable objects) and for stuff (sky, grass) in
the same way. *Panoptic* means that every pixel belongs to exactly one of them. This is decided
after the model, in `images/panoptic.py`.

**Training** is joint, or, with `frozen_detector=True`, on top of a trained detector (as in the
paper: 25 epochs). Then only the mask head gets gradients.

| preset              | box AP | mask AP | PQ   |
|---------------------|--------|---------|------|
| `detr_r50_panoptic` | 38.8   | 31.1    | 43.4 |

Its 250 classes are COCO's ids for things and stuff, gaps included.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from rtdetr_lab.config import require, require_divisible
from rtdetr_lab.criterion import CriterionConfig
from rtdetr_lab.detr.mask_head import MaskAttention, MaskHead
from rtdetr_lab.detr.mask_losses import MaskLoss
from rtdetr_lab.detr.model import DETR, DETRConfig, Seen, detr_criterion
from rtdetr_lab.detr.resnet import ResNetConfig
from rtdetr_lab.errors import TargetError
from rtdetr_lab.structures import Prediction, Targets, check_batch


def segmentation_criterion() -> CriterionConfig:
    """DETR's criterion, with focal and dice losses for the masks."""
    return replace(detr_criterion(), masks=MaskLoss())


@dataclass(frozen=True)
class SegmentationConfig(DETRConfig):
    """Settings of a DETR with masks. Its backbone returns at least three maps.

    The mask head reads the three finest: of S2 to S5, as in the paper, S2 to S4.
    """

    criterion: Any = field(default_factory=segmentation_criterion)
    num_mask_heads: int = 8
    frozen_detector: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_divisible("num_mask_heads", self.dim, self.num_mask_heads, 16)  # 16: halved 4 times

    def build(self) -> "DETRSegmentation":
        return DETRSegmentation(self)


class DETRSegmentation(DETR):
    """`DETR` with `masks` in the prediction: mask logits at the stride of its finest map, 4."""

    draws_masks = True

    def __init__(self, cfg: SegmentationConfig) -> None:
        super().__init__(cfg)
        channels = tuple(self.backbone.channels)
        what = f"returns {len(channels)} maps"
        remedy = "ask for four: outputs=(1, 2, 3, 4); three are possible"
        require(len(channels) >= 3, "backbone.outputs", what, remedy)
        if cfg.frozen_detector:
            self.requires_grad_(False)
        self.mask_attention = MaskAttention(cfg.dim, cfg.num_mask_heads)
        self.mask_head = MaskHead(cfg.dim, cfg.num_mask_heads, channels[2::-1])

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        targets: Targets | None = None,
        padding: Bool[Tensor, "B H W"] | None = None,
    ) -> Prediction:
        """Like `DETR.forward`. Masks of `targets` have the size of the canvas, padding included."""
        check_batch(images, targets, self.cfg.num_classes)
        _check_masks(images, targets)
        seen = self.look(images, padding)
        return replace(self.answer(seen), masks=self.draw(seen))

    def draw(self, seen: Seen) -> Float[Tensor, "B Q h w"]:
        """Compute the mask logits of the last layer's queries."""
        size = (seen.projected.shape[-2], seen.projected.shape[-1])
        attention = self.mask_attention(seen.content[-1], seen.memory, seen.padding, size)
        return self.mask_head(seen.projected, attention, seen.maps[2::-1])


def _check_masks(images: Tensor, targets: Targets | None) -> None:
    if targets is None or targets.masks is None:
        return
    for i, masks in enumerate(targets.masks):
        if masks.shape[1:] != images.shape[-2:]:
            found = tuple(masks.shape[1:])
            canvas = tuple(images.shape[-2:])
            what = f"masks of {found[0]}×{found[1]} for pictures of {canvas[0]}×{canvas[1]}"
            remedy = "resize masks with their picture, and pad them as it is padded"
            raise TargetError(f"targets.masks[{i}]", what, remedy)


def detr_r50_panoptic(num_classes: int = 250) -> SegmentationConfig:
    """`detr_r50` with masks: 43.4 PQ on COCO panoptic."""
    backbone = ResNetConfig(outputs=(1, 2, 3, 4), frozen_stages=1)
    return SegmentationConfig(num_classes, backbone=backbone)
