r"""# DETR's transformer: cells attend to each other, queries attend to cells

- **Paper**     DETR §3.2, §A.3 and Fig. 10; Vaswani et al. 2017, §3; LayerDrop: Fan et al. 2020
- **Notebook**  `notebooks/02_detr.ipynb`
- **Elsewhere** authors' `transformer.py`; transformers' `DetrEncoder`, `DetrDecoder`

The encoder is six layers of AIFI (`aifi.py`). In the decoder, every query has a learned vector, its
*position query*, and a content that starts at zero. A layer asks the three questions of
`decoder.py`, but for *what is there?* a query attends to **all** cells. There is no reference box
that limits where it looks:

$$ \mathrm{weights}_{q,n} = \mathrm{softmax}_n\bigl((c_q + p_q)^\top W_q^\top W_k
   (m_n + P_n) / \sqrt d\bigr) \tag{02.1} $$

At the start of training all weights are nearly equal, and it takes hundreds of epochs until each
query looks at its own region. Most parts of RT-DETR that are missing here shorten this training.

| symbol | name              | shape     | meaning                                              |
|--------|-------------------|-----------|------------------------------------------------------|
| $m$    | `memory`          | `B N D`   | cells after the encoder                              |
| $P$    | `positions`       | `B N D`   | where a cell is; added to keys, never to values      |
| $c$    | `content`         | `B Q D`   | what a query has found out                           |
| $p$    | `query_positions` | `Q D`     | what a query asks for; the authors' `query_embed`    |
|        | `blocked`         | `B 1 1 N` | True at padding: no attention looks there            |

In the first layer all contents are zero, so all values of its self-attention are equal. Its
attention weights do not change the result, and they never get a gradient.

Normalisation comes after the sum ("post-norm"), so the encoder needs no norm at its end. The
decoder has one more norm, shared by all layers, between the content of a layer and the heads.

**Layer-drop.** In training a layer is skipped with probability `layer_drop`; its output is then its
input. The skipped layer still gets its loss, so the number of losses is the same in every step. The
gradients of a skipped layer exist and are exactly zero.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rtdetr_lab.config import dropouts, require_at_least, require_below_one, require_divisible
from rtdetr_lab.layers import Activation, Attention, FeedForward
from rtdetr_lab.taps import tap


@dataclass(frozen=True)
class DETREncoderConfig:
    """Settings of the encoder: every cell attends to every cell.

    `attention_dropout` is that of the attention weights, `activation_dropout` that inside the
    feed-forward; None takes `dropout`, as the authors do.
    """

    num_layers: int = 6
    num_heads: int = 8
    ffn_dim: int = 2048
    dropout: float = 0.1
    attention_dropout: float | None = None
    activation_dropout: float | None = None
    layer_drop: float = 0.0
    act: Activation = F.relu

    def build(self, dim: int) -> "DETREncoder":
        _check(self, dim, "encoder", at_least=0)
        return DETREncoder(self, dim)


@dataclass(frozen=True)
class DETRDecoderConfig:
    """Settings of the decoder: queries attend to each other and to all cells.

    `norm_between` also normalises what the next layer reads, as transformers does when a model is
    trained with `auxiliary_loss`.
    """

    num_queries: int = 100
    num_layers: int = 6
    num_heads: int = 8
    ffn_dim: int = 2048
    dropout: float = 0.1
    attention_dropout: float | None = None
    activation_dropout: float | None = None
    layer_drop: float = 0.0
    norm_between: bool = False
    act: Activation = F.relu

    def build(self, dim: int) -> "DETRDecoder":
        _check(self, dim, "decoder", at_least=1)
        require_at_least(1, "decoder", num_queries=self.num_queries)
        return DETRDecoder(self, dim)


def _check(cfg: DETREncoderConfig | DETRDecoderConfig, dim: int, part: str, at_least: int) -> None:
    require_at_least(at_least, part, num_layers=cfg.num_layers)
    require_divisible(f"{part}.num_heads", dim, cfg.num_heads)
    require_below_one(part, dropout=cfg.dropout, layer_drop=cfg.layer_drop, **dropouts(cfg))


class DETREncoderLayer(nn.Module):
    """Attention, then feed-forward; each is added to its input, and the sum is normalised."""

    def __init__(self, cfg: DETREncoderConfig, dim: int) -> None:
        super().__init__()
        attention, inside = dropouts(cfg).values()
        self.self_attn = Attention(dim, cfg.num_heads, attention)
        self.norm1 = nn.LayerNorm(dim)
        self.ffn = FeedForward(dim, cfg.ffn_dim, cfg.act, inside)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(cfg.dropout)

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        positions: Float[Tensor, "#B N D"],
        blocked: Bool[Tensor, "B 1 1 N"] | None,
    ) -> Float[Tensor, "B N D"]:
        where = x + positions
        x = self.norm1(x + self.dropout(self.self_attn(where, where, x, blocked)))
        return self.norm2(x + self.dropout(self.ffn(x)))


class DETRDecoderLayer(nn.Module):
    """Self-attention, cross-attention (Eq. 02.1), feed-forward; each added and normalised."""

    def __init__(self, cfg: DETRDecoderConfig, dim: int) -> None:
        super().__init__()
        attention, inside = dropouts(cfg).values()
        self.self_attn = Attention(dim, cfg.num_heads, attention)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn = Attention(dim, cfg.num_heads, attention)
        self.norm2 = nn.LayerNorm(dim)
        self.ffn = FeedForward(dim, cfg.ffn_dim, cfg.act, inside)
        self.norm3 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(cfg.dropout)

    def forward(
        self,
        content: Float[Tensor, "B Q D"],
        query_positions: Float[Tensor, "Q D"],
        memory: Float[Tensor, "B N D"],
        positions: Float[Tensor, "#B N D"],
        blocked: Bool[Tensor, "B 1 1 N"] | None,
    ) -> Float[Tensor, "B Q D"]:
        where = content + query_positions
        content = self.norm1(content + self.dropout(self.self_attn(where, where, content)))
        seen = self.cross_attn(content + query_positions, memory + positions, memory, blocked)
        content = self.norm2(content + self.dropout(seen))
        return self.norm3(content + self.dropout(self.ffn(content)))


class DETREncoder(nn.Module):
    """Encoder layers over the cells of one map."""

    def __init__(self, cfg: DETREncoderConfig, dim: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.layers = nn.ModuleList(DETREncoderLayer(cfg, dim) for _ in range(cfg.num_layers))
        _reset_matrices(self.layers)

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        positions: Float[Tensor, "#B N D"],
        blocked: Bool[Tensor, "B 1 1 N"] | None = None,
    ) -> Float[Tensor, "B N D"]:
        drop = self.cfg.layer_drop if self.training else 0.0
        for i, layer in enumerate(self.layers):
            x = tap(f"content.{i}", _maybe(layer(x, positions, blocked), x, drop))
        return x


class DETRDecoder(nn.Module):
    """Decoder layers over the queries, and the norm after every layer."""

    def __init__(self, cfg: DETRDecoderConfig, dim: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.query_positions = nn.Parameter(torch.randn(cfg.num_queries, dim))
        self.layers = nn.ModuleList(DETRDecoderLayer(cfg, dim) for _ in range(cfg.num_layers))
        self.norm = nn.LayerNorm(dim)
        _reset_matrices(self.layers)

    def forward(
        self,
        memory: Float[Tensor, "B N D"],
        positions: Float[Tensor, "#B N D"],
        blocked: Bool[Tensor, "B 1 1 N"] | None = None,
    ) -> tuple[Float[Tensor, "B Q D"], ...]:
        """Return the normalised content after every layer, in order."""
        asked = self.query_positions
        content = torch.zeros_like(asked).expand(memory.shape[0], -1, -1)
        drop = self.cfg.layer_drop if self.training else 0.0
        read, between = [], self.cfg.norm_between
        for i, layer in enumerate(self.layers):
            after = layer(content, asked, memory, positions, blocked)
            content = tap(f"content.{i}", _maybe(after, content, drop))
            content = self.norm(content) if between else content
            done = between and i + 1 < len(self.layers)
            read.append(content if done else self.norm(content))
        return tuple(read)


def _maybe(after: Tensor, before: Tensor, drop: float) -> Tensor:
    """Return `after`, or `before` with probability `drop`."""
    if not drop:
        return after
    return torch.where(torch.rand((), device=after.device) >= drop, after, before)


def _reset_matrices(layers: nn.ModuleList) -> None:
    """Initialise matrices as the authors do (Xavier); attention initialises its own."""
    theirs = ("q_proj.weight", "k_proj.weight", "v_proj.weight")
    for name, parameter in layers.named_parameters():
        if parameter.ndim > 1 and not name.endswith(theirs):
            nn.init.xavier_uniform_(parameter)
