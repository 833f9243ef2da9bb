r"""# AIFI: attention on the smallest map, which shows objects

- **Paper**     RT-DETR §4.2, Eq. 1; the ablation is Fig. 3 and Table 3
- **Notebook**  `notebooks/06_aifi.ipynb`
- **Elsewhere** authors' `TransformerEncoder` in `HybridEncoder`; transformers' `RTDetrAIFILayer`

AIFI (attention-based intra-scale feature interaction) lets every cell of a map attend to every
other cell of that map. Attention compares all pairs of N tokens, so its cost grows with N²:

| attention over              | tokens at 640² | pairs       |
|-----------------------------|----------------|-------------|
| S3, S4 and S5 together      | 8400           | 70 million  |
| S3 alone                    | 6400           | 41 million  |
| S5 alone (AIFI)             | 400            | 160 thousand |

The paper's argument: a cell of S3 shows an edge or a texture, which matters little to a distant
cell. S5 shows objects and their parts. So AIFI runs on S5 alone, and nothing is lost: the encoder
that Table 3 calls D$_{S5}$ (attention on S5 only) has 46.8 AP in 7.9 ms, and its D (attention on
each of the three maps) 46.4 AP in 12.2 ms. That is 35 % less time.

$$ F_5 = \mathrm{reshape}(\mathrm{AIFI}(Q = K = \mathrm{flat}(S_5) + P,\;
   V = \mathrm{flat}(S_5))) \tag{06.1} $$

$P$ is a 2-D sine embedding of the positions. AIFI knows the place of a cell only from $P$. Without
$P$ it is *permutation-equivariant*: shuffle the cells of S5, and you get the same features,
shuffled. We add $P$ to queries and keys and never to values. So positions decide which cell attends
to which, but the features that are passed on contain no position. DETR adds positions to the keys
of its decoder's cross-attention, too: its queries find a place even if the encoder has no
positions. RT-DETR's decoder needs none there, because it reads the maps at given locations.

| symbol  | name        | shape     | meaning                                                     |
|---------|-------------|-----------|-------------------------------------------------------------|
| $S_5$   | `s5`        | `B D H W` | the coarsest map, projected to D channels                   |
| $P$     | `positions` | `1 N D`   | positions of its N cells (elsewhere P counts points)        |
| $F_5$   | returned    | `B D H W` | S5 after every cell has attended to every cell              |
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rtdetr_lab.config import given, require, require_at_least, require_below_one, require_divisible
from rtdetr_lab.layers import Activation, Attention, FeedForward, sine_2d
from rtdetr_lab.notation import tokens_of
from rtdetr_lab.taps import tap


@dataclass(frozen=True)
class AIFIConfig:
    """Settings of AIFI; the defaults are one post-norm layer, as in all published models.

    `positions=None` leaves P out. `positions=sine_2d_authors` uses the authors' order of positions
    (`docs/differences.md`). `activation_dropout` is the one between the two linear layers of the
    feed-forward; None takes `dropout`.
    """

    num_layers: int = 1
    num_heads: int = 8
    ffn_dim: int = 1024
    dropout: float = 0.0
    activation_dropout: float | None = None
    act: Activation = F.gelu
    positions: Callable[..., Tensor] | None = sine_2d
    temperature: float = 10000.0

    def __post_init__(self) -> None:
        where = "encoder.aifi"
        warmth = self.temperature
        require_at_least(0, where, num_layers=self.num_layers)
        require_at_least(1, where, num_heads=self.num_heads, ffn_dim=self.ffn_dim)
        inside = given(self.activation_dropout, self.dropout)
        require_below_one(where, dropout=self.dropout, activation_dropout=inside)
        require(warmth > 0, f"{where}.temperature", f"is {warmth}", "give a positive number")

    def layer(self, dim: int) -> "AIFILayer":
        """Make a layer."""
        return AIFILayer(self, dim)

    def build(self, dim: int) -> "AIFI":
        require_divisible("encoder.aifi.num_heads", dim, self.num_heads, 4)  # 4: parts of a sine
        return AIFI(self, dim)


class AIFILayer(nn.Module):
    """Attention, then feed-forward; each is added to its input, and the sum is normalised."""

    def __init__(self, cfg: AIFIConfig, dim: int) -> None:
        super().__init__()
        self.self_attn = Attention(dim, cfg.num_heads, cfg.dropout)
        self.norm1 = nn.LayerNorm(dim)
        inside = given(cfg.activation_dropout, cfg.dropout)
        self.ffn = FeedForward(dim, cfg.ffn_dim, cfg.act, inside)
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
        self.layers = nn.ModuleList(cfg.layer(dim) for _ in range(cfg.num_layers))

    def forward(self, s5: Float[Tensor, "B D H W"]) -> Float[Tensor, "B D H W"]:
        height, width = s5.shape[-2:]
        x = tokens_of(s5)
        positions = None
        if self.cfg.positions is not None:
            positions = self.cfg.positions(
                height, width, s5.shape[1], self.cfg.temperature, x.device, x.dtype
            )
        for layer in self.layers:
            x = layer(x, positions)
        return tap("F5", x.transpose(1, 2).unflatten(2, (height, width)).contiguous())
