r"""# Mask head: from attention maps to masks

- **Paper**     DETR §4.2, Fig. 8
- **Notebook**  `notebooks/18_segmentation.ipynb`
- **Elsewhere** authors' `MHAttentionMap`, `MaskHeadSmallConv`; transformers' `DetrMHAttentionMap`,
  `DetrMaskHeadSmallConv`

The content of a query describes its object and roughly where it is. The encoder's cells describe
what belongs together. Their products, head by head, give every query $M$ coarse maps of its object:

$$ A_{q,m,x} = \operatorname{softmax}_{m,x} \frac{(W_q c_q)_m \cdot (W_k m_x)_m}{\sqrt{D/M}}
   \tag{18.1} $$

**One softmax runs over heads and cells together.** So the heads of a query compete, and most of
them end up nearly empty. The maps are stacked on the picture's features and pass five small
convolutions. On the way they are enlarged three times, and each time a finer map of the backbone is
added: S4, S3, S2. The result is a mask at stride 4.

| step | module                  | does                                 | channels    | size       |
|------|-------------------------|--------------------------------------|-------------|------------|
| 1    | `mask_attention`        | computes Eq. 18.1                    | M           | S5         |
| 2    | `mask_head.blend`       | convolves maps and features          | D + M       | S5         |
| 3    | `mask_head.narrow`      | halves the channels                  | D/2         | S5         |
| 4    | `mask_head.levels`      | enlarge, add `adapt`(map), `refine`  | D/4, 8, 16 | S4, S3, S2 |
| 5    | `mask_head.out`         | the logits                           | 1           | S2         |

Of the D + M input channels, D are the same for all queries of a picture. A convolution is linear.
So `blend` convolves the D shared channels once per picture, and the M maps once per query, and adds
the two. The sum is the same, with a thirtieth of the multiplications of step 2.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rtdetr_lab.taps import tap


class MaskAttention(nn.Module):
    """Compute where every query looks, head by head (Eq. 18.1); the weights are the result."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        for projection in (self.q_proj, self.k_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(
        self,
        content: Float[Tensor, "B Q D"],
        memory: Float[Tensor, "B N D"],
        padding: Bool[Tensor, "B H W"] | None,
        size: tuple[int, int],
    ) -> Float[Tensor, "B Q M H W"]:
        q = self.q_proj(content).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        k = self.k_proj(memory).unflatten(2, (self.num_heads, -1)).permute(0, 2, 3, 1)
        score = (q @ k / math.sqrt(q.shape[-1])).transpose(1, 2)
        if padding is not None:
            score = score.masked_fill(padding.flatten(1)[:, None, None], -math.inf)
        weights = score.flatten(2).softmax(-1).unflatten(2, (self.num_heads, *size))
        return tap("weights", weights)


class ConvGroupNorm(nn.Module):
    """3×3 convolution, group norm, ReLU; batches of masks are too small for batch norm."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm = nn.GroupNorm(math.gcd(8, channels_out), channels_out)

    def forward(self, x: Float[Tensor, "B Ci H W"]) -> Float[Tensor, "B Co H W"]:
        return F.relu(self.norm(self.conv(x)))

    def blend(
        self, shared: Float[Tensor, "B Cs H W"], own: Float[Tensor, "B Q Co H W"]
    ) -> Float[Tensor, "BQ C H W"]:
        """Convolve `shared` and `own` channels as if stacked, but `shared` only once."""
        count = shared.shape[1]
        once = F.conv2d(shared, self.conv.weight[:, :count], self.conv.bias, padding=1)
        each = F.conv2d(own.flatten(0, 1), self.conv.weight[:, count:], padding=1)
        both = each.unflatten(0, own.shape[:2]) + once.unsqueeze(1)
        return F.relu(self.norm(both.flatten(0, 1)))


class MaskLevel(nn.Module):
    """Enlarge to the size of a finer map of the backbone, add that map, and convolve."""

    def __init__(self, channels_map: int, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.adapt = nn.Conv2d(channels_map, channels_in, 1)
        self.refine = ConvGroupNorm(channels_in, channels_out)

    def forward(
        self, x: Float[Tensor, "BQ Ci h w"], finer: Float[Tensor, "B Cf H W"]
    ) -> Float[Tensor, "BQ Co H W"]:
        x = F.interpolate(x, size=finer.shape[-2:], mode="nearest")
        adapted = self.adapt(finer)  # once per picture, then added to every query of it
        x = x.unflatten(0, (adapted.shape[0], -1)) + adapted.unsqueeze(1)
        return self.refine(x.flatten(0, 1))


class MaskHead(nn.Module):
    """Turn attention maps at S5 into mask logits at the finest map, S2."""

    def __init__(self, dim: int, num_heads: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.blend = ConvGroupNorm(dim + num_heads, dim + num_heads)
        self.narrow = ConvGroupNorm(dim + num_heads, dim // 2)
        widths = [dim // 2, dim // 4, dim // 8, dim // 16]
        levels = zip(channels, pairwise(widths), strict=True)
        self.levels = nn.ModuleList(MaskLevel(c, wide, slim) for c, (wide, slim) in levels)
        self.out = nn.Conv2d(widths[-1], 1, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias)

    def forward(
        self,
        projected: Float[Tensor, "B D H W"],
        attention: Float[Tensor, "B Q M H W"],
        finer: Sequence[Float[Tensor, "B _ _ _"]],
    ) -> Float[Tensor, "B Q h w"]:
        """`finer` are the backbone's maps, the coarsest first."""
        x = self.narrow(self.blend.blend(projected, attention))
        for level, one in zip(self.levels, finer, strict=True):
            x = level(x, one)
        return self.out(x).squeeze(1).unflatten(0, attention.shape[:2])
