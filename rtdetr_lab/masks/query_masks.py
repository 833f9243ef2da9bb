r"""# Query masks: a mask for every query of an RT-DETR

- **Paper**     Mask DINO (Li et al. 2022, arXiv 2206.02777) Eq. 1; MaskFormer (Cheng et al. 2021,
  arXiv 2107.06278) §3.2
- **Notebook**  `notebooks/18_segmentation.ipynb`
- **Elsewhere** Mask DINO's `mask_embed` and `mask_features`; transformers' `MaskFormer`

DETR's mask head computes a small picture for each query, with five convolutions
(`detr/mask_head.py`). For 300 queries that is too slow. Here the convolutions run once per picture.
They give every pixel an embedding $p_x$, and a small network gives every query an embedding $e_q$
of the same length. A pixel belongs to a query if the two agree, and if it lies in the box:

$$ m_{q,x} = e_q \cdot p_x - s\, d(x, b_q), \qquad e_q = \mathrm{MLP}(c_q), \qquad
   p_x = \mathrm{refine}\Bigl(\sum_l \uparrow W_l O_l\Bigr)_x \tag{18.3} $$

$c_q$ is the content of the query after the last decoder layer, and $b_q$ its box. $O_l$ are the
fused maps of the encoder, and S2 of the backbone. S2 has stride 4, and so has the mask.

**Why the box?** Content says what an object looks like. Two equal objects have nearly equal
contents, and $e_q \cdot p_x$ alone would be large on both. $d(x, b_q)$ is the distance of the
pixel from the box, along x plus along y, in cells of the mask; inside it is 0. So far away every
mask ends, and the embeddings only have to tell an object from what is near it.

This term differs from the paper: Mask DINO has none; its whole decoder learns with the masks.
YOLACT (Bolya et al. 2019, arXiv 1904.02689) cuts masks off at the box. A slope has a gradient, and
it forgives a box that is a little too small.

| symbol | name     | shape     | meaning                                |
|--------|----------|-----------|----------------------------------------|
| $e$    | `embed`  | `B Q E`   | embedding of every query               |
| $p$    | `pixels` | `B E H W` | embedding of every pixel, at stride 4  |
| $d$    | `beyond` | `B Q H W` | distance from the box, in cells        |
| $s$    | `slope`  |           | how much a cell outside the box costs  |
| $m$    | `logits` | `B Q H W` | mask logits                            |

`with_masks(cfg)` adds the head to the configuration of any RT-DETR, RT-DETRv2 or D-FINE, and the
losses to its criterion. Boxes and scores stay the same, bit for bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rtdetr_lab.config import replace_at, require, require_at_least
from rtdetr_lab.decoder import DecoderConfig
from rtdetr_lab.detr.mask_head import ConvGroupNorm
from rtdetr_lab.detr.mask_losses import MaskLoss
from rtdetr_lab.layers import MLP
from rtdetr_lab.notation import Size
from rtdetr_lab.rtdetr import RTDETRConfig, rtdetr_nano
from rtdetr_lab.structures import Prediction
from rtdetr_lab.taps import tap


@dataclass(frozen=True)
class QueryMasks:
    """Length E of the embeddings, and the slope of a mask outside its box, per cell."""

    dim: int = 32
    slope: float = 4.0

    def __post_init__(self) -> None:
        require_at_least(1, "masks", dim=self.dim)
        require_at_least(0, "masks", slope=self.slope)

    def build(self, decoder: DecoderConfig, channels: Sequence[int]) -> "QueryMaskHead":
        """`channels` are those of S2 and of the fused maps."""
        what, remedy = "leaves out the layer that masks learn from", "set it to None"
        all_run = decoder.inference_layers is None
        require(all_run, "decoder.inference_layers", what, remedy)
        return QueryMaskHead(self, decoder.dim, channels)


class QueryMaskHead(nn.Module):
    """Multiply an embedding of every query with one of every pixel (Eq. 18.3)."""

    def __init__(self, cfg: QueryMasks, dim: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.slope = cfg.slope
        self.embed = MLP(dim, dim, cfg.dim, num_layers=3)
        self.laterals = nn.ModuleList(nn.Conv2d(c, cfg.dim, 1) for c in channels)
        refine = [ConvGroupNorm(cfg.dim, cfg.dim) for _ in range(2)]
        self.refine = nn.Sequential(*refine, nn.Conv2d(cfg.dim, cfg.dim, 1))

    def forward(self, found: Prediction, maps: Sequence[Float[Tensor, "B _ _ _"]]) -> Prediction:
        """Add the masks of the last layer's queries. `maps` are S2 and the fused maps, from fine to
        coarse. The boxes get no gradient: masks do not move them."""
        last = found.layers[-1]
        assert last.content is not None, "every decoder layer returns it"
        embed = tap("embed", self.embed(last.content))
        pixels = tap("pixels", self.of_pixels(maps))
        agree = torch.einsum("bqe,behw->bqhw", embed, pixels)
        boxes = last.boxes.detach()
        boxes = boxes.to(torch.promote_types(boxes.dtype, torch.float32))
        beyond = distance_beyond(boxes, (pixels.shape[-2], pixels.shape[-1]))
        return replace(found, masks=tap("logits", agree - (self.slope * beyond).to(agree.dtype)))

    def of_pixels(self, maps: Sequence[Float[Tensor, "B _ _ _"]]) -> Float[Tensor, "B E H W"]:
        """Add up all maps on the grid of the finest, and refine the sum."""
        pairs = list(zip(self.laterals, maps, strict=True))
        lateral, coarsest = pairs.pop()
        x = lateral(coarsest)
        for lateral, finer in reversed(pairs):
            x = F.interpolate(x, finer.shape[-2:], mode="bilinear") + lateral(finer)
        return self.refine(x)


def distance_beyond(boxes: Float[Tensor, "B Q 4"], size: Size) -> Float[Tensor, "B Q H W"]:
    """Compute the distance of the centre of every cell from every box, in cells; 0 inside."""
    beyond = []
    for axis, cells in enumerate(reversed(size)):
        centre, extent = boxes[..., axis, None], boxes[..., axis + 2, None]
        places = torch.arange(cells, device=boxes.device, dtype=boxes.dtype) + 0.5
        beyond.append(((places - cells * centre).abs() - cells * extent / 2).relu())
    across, down = beyond
    return across.unsqueeze(-2) + down.unsqueeze(-1)


def with_masks(cfg: Any, masks: QueryMasks | None = None) -> Any:
    """Let a model draw masks: S2 from the backbone, a mask head, and the losses for it.

    Every tensor of the model without masks keeps its name and its shape. The weights of the losses,
    20 and 1, are MaskFormer's (§4.1). Raises `ConfigError` for a model that is no RT-DETR.
    """
    what, remedy = "is no RT-DETR", "DETR has a mask head of its own: detr_r50_panoptic"
    require(isinstance(cfg, RTDETRConfig), type(cfg).__name__, what, remedy)
    outputs = (1, *(stage for stage in cfg.backbone.outputs if stage != 1))
    cfg = replace(cfg, masks=masks or QueryMasks())
    loss = MaskLoss(mask_weight=20.0)
    return replace_at(replace_at(cfg, "backbone.outputs", outputs), "criterion.masks", loss)


def rtdetr_nano_seg(num_classes: int = 80) -> RTDETRConfig:
    """`rtdetr_nano` with masks; its embedded weights are `nano-seg`."""
    return with_masks(rtdetr_nano(num_classes))
