r"""# Query selection: which tokens become queries?

- **Paper**     RT-DETR §4.3, Eq. 2, 3 (preprint: *IoU-aware*; CVPR: *uncertainty-minimal*)
- **Notebook**  `notebooks/09_query_selection.ipynb`
- **Elsewhere** authors' `_get_decoder_input`; transformers inline in `RTDetrModel.forward`
  (`enc_output`, `enc_score_head`, `enc_bbox_head`)

The encoder returns $N$ tokens; the decoder can afford only $Q \ll N$ queries. DETR starts from
learned queries, which are the same for every picture, and its decoder has to find the objects from
there. Here every token first makes a *proposal*: class scores and a box. The $Q$ tokens with the
highest score become the queries. The score of a token is that of its best class:

$$ I = \operatorname{top\text{-}Q}_n \max_c s_{n,c} \tag{09.1} $$

$$ \hat b_n = \sigma\bigl(\Delta_n + \sigma^{-1}(a_n)\bigr) \tag{09.2} $$

$\hat b_n$ is the box of token $n$. The box head predicts $\Delta_n$, a step from the *anchor* $a_n$
(below). The step is added before the sigmoid $\sigma$.

A token with a high class score and a poor box wastes a query. The paper describes this with two
quantities of an encoder feature $\hat X$: $\mathcal P$ says how well it localises (from its box),
and $\mathcal C$ how sure it is of its class. Eq. 2 calls their distance the *uncertainty*,
$\mathcal U(\hat X) = \|\mathcal P(\hat X) - \mathcal C(\hat X)\|$, and Eq. 3 puts $\mathcal U$ into
the class loss. The authors' code computes no $\mathcal U$. It trains with the varifocal loss: the
target of the class score is the IoU of the box (`losses.py`). *Selection is a plain top-k; the idea
is in the loss.*

Content and reference of a query are detached, so only the proposals' own loss trains the proposal
head. The losses of the decoder still train the encoder and the backbone, through the memory that
cross-attention reads. DINO's *mixed* selection takes only the reference from the encoder, and
learns the content. `LearnedContent` does the same.

The box of a token is relative to its **anchor** $a_n$, a square around the centre of its cell. On
level $l$ (0 is the finest) the side of the square is $0.05 \cdot 2^l$ of the picture.

**Invalid anchors.** An anchor with a coordinate outside (0.01, 0.99) is invalid; in practice its
centre lies too close to the border. There are 0, 316 and 1580 of them at 320, 640 and 1280 pixels.
The memory of an invalid anchor is set to zero, so all invalid tokens are the same vector and have
the same score. Their box logits are infinite, so the box is (1, 1, 1, 1). Such a token still
competes: it is selected if its score is among the $Q$ highest, although its box is useless.

| symbol  | name         | shape   | meaning                                           |
|---------|--------------|---------|---------------------------------------------------|
|         | `tokens`     | `B N D` | memory, projected and normalised                  |
| $s$     | `logits`     | `B N C` | scores before the sigmoid, which keeps their order |
| $\Delta + \sigma^{-1}(a)$ | `box_logits` | `B N 4` | box of every token, before the sigmoid |
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rtdetr_lab.config import require, require_at_least
from rtdetr_lab.layers import MLP, cached_by_size
from rtdetr_lab.notation import Size, token_grid
from rtdetr_lab.structures import Proposals, exportable
from rtdetr_lab.taps import tap

ANCHOR_SIDE = 0.05
"""Side of an anchor on the finest level, as a fraction of the picture."""

ANCHOR_MARGIN = 0.01
"""An anchor with a coordinate closer to 0 or 1 than this is invalid."""

CLASS_PRIOR = 0.01
"""Score of every class before training: nearly all queries are background (RetinaNet §4.1)."""


@cached_by_size
def anchors(
    shapes: tuple[Size, ...],
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> tuple[Float[Tensor, "N 4"], Bool[Tensor, "N 1"]]:
    """Anchor logits of all tokens (infinite where invalid), and a mask of the valid ones."""
    level, row, column = token_grid(shapes, device).unbind(-1)
    height, width = torch.tensor(shapes, device=device)[level].unbind(-1)
    exact = torch.promote_types(dtype, torch.float32)
    x = (column.to(exact) + 0.5) / width
    y = (row.to(exact) + 0.5) / height
    side = ANCHOR_SIDE * 2.0 ** level.to(exact)
    boxes = torch.stack([x, y, side, side], dim=-1)
    valid = ((boxes > ANCHOR_MARGIN) & (boxes < 1 - ANCHOR_MARGIN)).all(-1, keepdim=True)
    logits = torch.log(boxes / (1 - boxes))
    return logits.masked_fill(~valid, torch.inf).to(dtype), valid


def rows_at(values: Float[Tensor, "B N K"], index: Int[Tensor, "B Q"]) -> Float[Tensor, "B Q K"]:
    """Take the rows of every picture at its index."""
    # `take_along_dim` would fix the batch size of an exported graph.
    return values.gather(1, index.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


@exportable
@dataclass(frozen=True, eq=False)
class TokenProposals:
    """The proposals of all tokens, before the selection."""

    tokens: Float[Tensor, "B N D"]
    logits: Float[Tensor, "B N C"]
    box_logits: Float[Tensor, "B N 4"]

    def at(self, index: Int[Tensor, "B Q"]) -> Proposals:
        """Proposals of the tokens in `index`. Gradients flow: proposals have their own loss."""
        boxes = rows_at(self.box_logits, index).sigmoid()
        return Proposals(index, rows_at(self.logits, index), boxes)


class ProposalHead(nn.Module):
    """Predict class scores, and a box relative to the anchor (Eq. 09.2), from every token."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.project = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.class_head = nn.Linear(dim, num_classes)
        self.box_head = MLP(dim, dim, 4, num_layers=3)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start with boxes equal to the anchors, and with low class scores."""
        nn.init.xavier_uniform_(self.project.weight)
        reset_heads(self.class_head, self.box_head)

    def forward(self, memory: Float[Tensor, "B N D"], shapes: Sequence[Size]) -> TokenProposals:
        # Use the precision of the weights: that of autocast moves anchors by up to 1.4 px of 640.
        anchor_logits, valid = anchors(tuple(shapes), memory.device, self.norm.weight.dtype)
        tokens = self.norm(self.project(valid.to(memory.dtype) * memory))
        logits = tap("logits", self.class_head(tokens))
        box_logits = tap("box_logits", self.box_head(tokens) + anchor_logits)
        return TokenProposals(tokens, logits, box_logits)


def reset_heads(class_head: nn.Module, box_head: nn.Module) -> None:
    """Let scores start at `CLASS_PRIOR`, and boxes at their reference (of a token: its anchor)."""
    nn.init.constant_(class_head.get_parameter("bias"), -math.log(1 / CLASS_PRIOR - 1))
    *_, last = (m for m in box_head.modules() if isinstance(m, nn.Linear))
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)


@exportable
@dataclass(frozen=True, eq=False)
class Selection:
    """Input of the decoder: the chosen tokens, as content and reference of the queries."""

    index: Int[Tensor, "B Q"]
    content: Float[Tensor, "B Q D"]
    reference_logits: Float[Tensor, "B Q 4"]


@dataclass(frozen=True)
class TopScore:
    """Keep the tokens with the highest score. To ablate the choice, pass another `build()`."""

    num_queries: int = 300

    def __post_init__(self) -> None:
        require_at_least(1, "selection", num_queries=self.num_queries)

    def build(self, dim: int) -> "QuerySelection":
        return QuerySelection(self)


class QuerySelection(nn.Module):
    """Select the top Q by best class score (Eq. 09.1); content and reference are the token's."""

    def __init__(self, cfg: TopScore) -> None:
        super().__init__()
        self.cfg = cfg
        self.num_queries = cfg.num_queries

    def forward(
        self,
        tokens: Float[Tensor, "B N D"],
        logits: Float[Tensor, "B N C"],
        box_logits: Float[Tensor, "B N 4"],
    ) -> Selection:
        score = tap("score", logits.amax(-1))
        index = tap("index", score.topk(self.num_kept(score), dim=1).indices)

        # Detach both: the encoder heads learn from their own loss, not through the decoder.
        content = self.content_of(rows_at(tokens, index).detach())
        reference_logits = rows_at(box_logits, index).detach()
        return Selection(index, content, reference_logits)

    def content_of(self, tokens: Float[Tensor, "B Q D"]) -> Float[Tensor, "B Q D"]:
        """Content of the queries: here, the chosen tokens themselves."""
        return tokens

    def num_kept(self, score: Float[Tensor, "B N"]) -> int:
        """Return Q; raise `ConfigError` if there are fewer tokens."""
        tokens = score.shape[1]
        what = f"{self.num_queries} queries, but the picture has only {tokens} tokens"
        remedy = "use larger pictures, or set model.num_queries to at most that"
        require(self.num_queries <= tokens, "selection.num_queries", what, remedy)
        return self.num_queries


@dataclass(frozen=True)
class LearnedContent(TopScore):
    """Take references from the best tokens, but learn the contents (authors' `learnt_init_query`).

    The content of a query then no longer depends on the picture; its starting box still does.
    """

    def build(self, dim: int) -> "LearnedContentSelection":
        return LearnedContentSelection(self, dim)


class LearnedContentSelection(QuerySelection):
    """Learn one content per rank: the token with the highest score gets the first, and so on."""

    def __init__(self, cfg: LearnedContent, dim: int) -> None:
        super().__init__(cfg)
        self.content = nn.Parameter(torch.empty(cfg.num_queries, dim))
        nn.init.xavier_uniform_(self.content)

    def content_of(self, tokens: Float[Tensor, "B Q D"]) -> Float[Tensor, "B Q D"]:
        return self.content[: tokens.shape[1]].expand_as(tokens)

    def num_kept(self, score: Float[Tensor, "B N"]) -> int:
        """Return Q; raise `ConfigError` if fewer contents were learned."""
        learned = len(self.content)
        what = f"{self.num_queries} queries, but only {learned} contents were learned"
        remedy = f"set model.num_queries to at most {learned}"
        require(self.num_queries <= learned, "selection.num_queries", what, remedy)
        return super().num_kept(score)
