r"""# AIFI: attention where the map is small and means something

- **Paper**     RT-DETR §4.2, Eq. 1; the ablation is Fig. 3 and Table 3
- **Notebook**  `notebooks/06_aifi.ipynb`
- **Elsewhere** authors' `TransformerEncoder` in `HybridEncoder`; transformers' `RTDetrAIFILayer`

Attention-based intra-scale feature interaction lets every cell of a map look at every other cell.
Over all 8400 tokens of three levels that is 70 million pairs and half of the encoder's time
(variant C of the ablation). The paper's argument: cells of S3 are edges and textures with nothing
to say to the far end of the picture; *concepts* live on S5. So attention runs on S5 alone, 400
tokens and 160 thousand pairs, and loses nothing (D$_{S5}$ against D: +0.4 AP, 35 % faster).

$$ F_5 = \mathrm{reshape}(\mathrm{AIFI}(Q = K = \mathrm{flat}(S_5) + P,\;
   V = \mathrm{flat}(S_5))) $$

$P$ is a 2-D sine embedding, and it is the only thing that tells the cells apart: without it AIFI is
*permutation-equivariant*, a shuffled picture gives the same features shuffled. It is added to
queries and keys and never to values, so position decides who listens to whom but does not leak into
what is said.

| symbol  | name        | shape     | meaning                                     |
|---------|-------------|-----------|---------------------------------------------|
| $S_5$   | `s5`        | `B D H W` | the coarsest map, projected to the width D  |
| $P$     | `positions` | `1 N D`   | sine embedding, recomputed for every size   |
| $F_5$   | returned    | `B D H W` | S5 after everybody has listened to everybody|
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rtdetr_lab.config import (
    require,
    require_at_least,
    require_below_one,
    require_divisible,
)
from rtdetr_lab.layers import Activation, Attention, FeedForward, sine_2d
from rtdetr_lab.taps import tap


@dataclass(frozen=True)
class AIFIConfig:
    """One post-norm transformer layer, as in all published models. `positions=None` leaves P out;
    `positions=sine_2d_authors` is the authors' order (`docs/differences.md`)."""

    num_layers: int = 1
    num_heads: int = 8
    ffn_dim: int = 1024
    dropout: float = 0.0
    act: Activation = F.gelu
    positions: Callable[..., Tensor] | None = sine_2d
    temperature: float = 10000.0

    def __post_init__(self) -> None:
        where = "encoder.aifi"
        warmth = self.temperature
        require_at_least(0, where, num_layers=self.num_layers)
        require_at_least(1, where, num_heads=self.num_heads, ffn_dim=self.ffn_dim)
        require_below_one(where, dropout=self.dropout)
        require(warmth > 0, f"{where}.temperature", f"is {warmth}", "give a positive number")

    def build(self, dim: int) -> "AIFI":
        require_divisible("encoder.aifi.num_heads", dim, self.num_heads, 4)  # 4: parts of a sine
        return AIFI(self, dim)


class AIFILayer(nn.Module):
    """Listen, then think: attention and feed-forward, each added to its input and normalised."""

    def __init__(self, cfg: AIFIConfig, dim: int) -> None:
        super().__init__()
        self.self_attn = Attention(dim, cfg.num_heads, cfg.dropout)
        self.norm1 = nn.LayerNorm(dim)
        self.ffn = FeedForward(dim, cfg.ffn_dim, cfg.act, cfg.dropout)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(cfg.dropout)

    def forward(
        self, x: Float[Tensor, "B N D"], positions: Float[Tensor, "1 N D"] | None
    ) -> Float[Tensor, "B N D"]:
        where = x if positions is None else x + positions
        x = self.norm1(x + self.dropout(self.self_attn(where, where, x)))
        return self.norm2(x + self.dropout(self.ffn(x)))


class AIFI(nn.Module):
    """Transformer layers over the cells of one map (Eq. 06.1)."""

    def __init__(self, cfg: AIFIConfig, dim: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.layers = nn.ModuleList(AIFILayer(cfg, dim) for _ in range(cfg.num_layers))

    def forward(self, s5: Float[Tensor, "B D H W"]) -> Float[Tensor, "B D H W"]:
        height, width = s5.shape[-2:]
        x = s5.flatten(2).transpose(1, 2)
        positions = None
        if self.cfg.positions is not None:
            positions = self.cfg.positions(
                height, width, s5.shape[1], self.cfg.temperature, x.device, x.dtype
            )
        for layer in self.layers:
            x = layer(x, positions)
        return tap("F5", x.transpose(1, 2).unflatten(2, (height, width)).contiguous())
