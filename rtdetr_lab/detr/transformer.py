r"""# DETR's transformer: cells that listen to each other, queries that listen to cells

- **Paper**     DETR §3.2, §A.3 and Fig. 10; Vaswani et al. 2017, §3; LayerDrop: Fan et al. 2020
- **Notebook**  `notebooks/02_detr.ipynb`
- **Elsewhere** authors' `transformer.py`; transformers' `DetrEncoder`, `DetrDecoder`

The encoder is AIFI (`aifi.py`) six times over. The decoder has for every query a learned vector,
its *position query*, and content that starts at zero; a layer asks the three questions of
`decoder.py`, except that *what is there?* is asked of **all** cells, with no reference box to say
where to look:

$$ \mathrm{weights}_{q,n} = \mathrm{softmax}_n\bigl((c_q + p_q)^\top W_q^\top W_k
   (m_n + P_n) / \sqrt d\bigr) $$

At first every query looks everywhere alike, and it takes hundreds of epochs until each has found
its own place. Everything in RT-DETR that is not here was invented to shorten that.

| symbol | name              | shape     | meaning                                              |
|--------|-------------------|-----------|------------------------------------------------------|
| $m$    | `memory`          | `B N D`   | cells after the encoder                              |
| $P$    | `positions`       | `B N D`   | where a cell is; added to keys, never to values      |
| $c$    | `content`         | `B Q D`   | what a query has found out                           |
| $p$    | `query_positions` | `Q D`     | what a query asks for; the authors' `query_embed`    |
|        | `blocked`         | `B 1 1 N` | True at padding: no attention looks there            |

In the first layer all content is zero, and so all values of the self-attention are the same: who
listens to whom does not matter there yet, and those weights never learn anything.

Normalisation comes after the sum ("post-norm"), so the encoder needs none at its end; the decoder
has one, shared by all layers, between a layer's content and the heads that judge it.

**Layer-drop**: in training a layer is left out with probability `layer_drop` and hands on what it
was given. It still is judged, so the number of losses is the same in every step, and the gradients
of a layer left out are there and exactly zero.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rtdetr_lab.config import require_at_least, require_below_one, require_divisible
from rtdetr_lab.layers import Activation, Attention, FeedForward
from rtdetr_lab.taps import tap


@dataclass(frozen=True)
class DETREncoderConfig:
    """Layers in which every cell listens to every other."""

    num_layers: int = 6
    num_heads: int = 8
    ffn_dim: int = 2048
    dropout: float = 0.1
    layer_drop: float = 0.0
    act: Activation = F.relu

    def build(self, dim: int) -> "DETREncoder":
        _check(self, dim, "encoder", at_least=0)
        return DETREncoder(self, dim)


@dataclass(frozen=True)
class DETRDecoderConfig:
    """Queries, and layers in which they listen to each other and to all cells."""

    num_queries: int = 100
    num_layers: int = 6
    num_heads: int = 8
    ffn_dim: int = 2048
    dropout: float = 0.1
    layer_drop: float = 0.0
    act: Activation = F.relu

    def build(self, dim: int) -> "DETRDecoder":
        _check(self, dim, "decoder", at_least=1)
        require_at_least(1, "decoder", num_queries=self.num_queries)
        return DETRDecoder(self, dim)


def _check(cfg: DETREncoderConfig | DETRDecoderConfig, dim: int, part: str, at_least: int) -> None:
    require_at_least(at_least, part, num_layers=cfg.num_layers)
    require_divisible(f"{part}.num_heads", dim, cfg.num_heads)
    require_below_one(part, dropout=cfg.dropout, layer_drop=cfg.layer_drop)


class DETREncoderLayer(nn.Module):
    """Listen, then think: each added to its input and normalised."""

    def __init__(self, cfg: DETREncoderConfig, dim: int) -> None:
        super().__init__()
        self.self_attn = Attention(dim, cfg.num_heads, cfg.dropout)
        self.norm1 = nn.LayerNorm(dim)
        self.ffn = FeedForward(dim, cfg.ffn_dim, cfg.act, cfg.dropout)
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
    """Who else? What is there (Eq. 02.1)? So what is it? Each added and normalised."""

    def __init__(self, cfg: DETRDecoderConfig, dim: int) -> None:
        super().__init__()
        self.self_attn = Attention(dim, cfg.num_heads, cfg.dropout)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn = Attention(dim, cfg.num_heads, cfg.dropout)
        self.norm2 = nn.LayerNorm(dim)
        self.ffn = FeedForward(dim, cfg.ffn_dim, cfg.act, cfg.dropout)
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
    """Layers over the cells of one map."""

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
    """Layers over the queries, and the norm through which all of them are read."""

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
        """The normalised content after every layer, the last one last."""
        asked = self.query_positions
        content = torch.zeros_like(asked).expand(len(memory), -1, -1)
        drop = self.cfg.layer_drop if self.training else 0.0
        read = []
        for i, layer in enumerate(self.layers):
            after = layer(content, asked, memory, positions, blocked)
            content = tap(f"content.{i}", _maybe(after, content, drop))
            read.append(self.norm(content))
        return tuple(read)


def _maybe(after: Tensor, before: Tensor, drop: float) -> Tensor:
    """`after`, or with probability `drop` what was there before."""
    if not drop:
        return after
    return torch.where(torch.rand((), device=after.device) >= drop, after, before)


def _reset_matrices(layers: nn.ModuleList) -> None:
    """Xavier everywhere, as the authors; the input maps of an attention see to themselves."""
    theirs = ("q_proj.weight", "k_proj.weight", "v_proj.weight")
    for name, parameter in layers.named_parameters():
        if parameter.ndim > 1 and not name.endswith(theirs):
            nn.init.xavier_uniform_(parameter)
