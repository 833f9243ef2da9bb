r"""# FDR: the decoder of D-FINE moves edges, and says how sure it is

- **Paper**     D-FINE (arXiv 2410.13842) §4.1, Table 3; distributions of edges: "Generalized Focal
  Loss" (Li et al. 2020)
- **Notebook**  `notebooks/21_dfine.ipynb`
- **Elsewhere** authors' `TransformerDecoder`, `Integral`, `Gate`, `LQE`; transformers'
  `DFineDecoder`, `DFineIntegral`, `DFineGate`, `DFineLQE`

A decoder layer of RT-DETR answers with one step: four numbers. It cannot say that the left edge of
a cat is sharp, and that the right one is lost behind a sofa. D-FINE ("fine-grained distribution
refinement") predicts a *distribution* for each of the four edges: $N + 1 = 33$ scores, one for each
distance in a fixed table. The first layer predicts a box $b^{(0)}$ as in RT-DETR. From then on that
box stays, and the layers add up *scores* of how far its edges are wrong:

```
layer 0 ─ box b0, which stays
layer 0 ─ s0 ──────── softmax ─ move edges of b0
layer 1 ─ s1 (+ s0) ─ softmax ─ move edges of b0
```

$$ s^{(i)} = s^{(i-1)} + \mathrm{head}_i(q_i + \bar q_{i-1}), \qquad
   d^{(i)} = \sum_{n=0}^{N} W(n)\, \mathrm{softmax}(s^{(i)})_n \tag{21.2} $$

$q_i$ is the content after layer $i$, and $\bar q_{i-1}$ the detached content of the layer before.
The sum of scores multiplies probabilities: a later layer confirms, or overrules. The distances $d$
move left, top, right and bottom away from the centre $c$ of $b^{(0)}$. They are fractions of its
width $w$ and height; for the left and the right edge:

$$ x_1 = c_x - \bigl(\tfrac12 + d_{\text{left}}\bigr)\, w, \qquad
   x_2 = c_x + \bigl(\tfrac12 + d_{\text{right}}\bigr)\, w \tag{21.3} $$

**The weighting function** $W$ is fine in the middle, because most boxes need small corrections, and
coarse at the ends. With $a$ = `reach`, $r$ = `scale` and $m = |n - N/2|$:

$$ W(n) = \pm \begin{cases} \bigl((a r + 1)^{2m / (N - 2)} - 1\bigr) / r & m < N/2 \\
   2 a & m = N/2 \end{cases} \tag{21.4} $$

| $n$ ($N = 32$, $r = 4$, $a = ½$) | 16 | 17    | 20    | 24    | 28    | 31   | 32   |
|----------------------------------|----|-------|-------|-------|-------|------|------|
| an edge moves by (of the size)   | 0  | 1.9 % | 8.5 % | 20 %  | 35 %  | 50 % | 100 % |

So the largest move is a whole width, out or in. X uses $r = 8$: smaller steps in the middle, the
same ends. The paper's $c$ is our $1/r$; the authors' code divides by $r$ in Eq. 21.3 instead.

**LQE** (location quality estimator). A sharp distribution means a good box. The $k = 4$ largest
probabilities of each edge and their mean, $4 \cdot 5$ numbers, go through a small network, and the
result is added to all class scores of the query:

$$ \ell^{(i)} = \mathrm{class}_i(q_i) + \mathrm{MLP}(\operatorname{top-k} \text{ and mean of }
   \mathrm{softmax}(s^{(i)})) \tag{21.5} $$

**The layer** changes in two places. Deformable attention has no value and no output projection: it
reads the memory itself (0.6 AP less, many FLOPs less). And a gate decides for every channel how
much of the query, $x$, and of what was read, $y$, goes on (0.4 AP more). In RT-DETR both are added:

$$ \mathrm{gate}(x, y) = \mathrm{norm}(g_1 \odot x + g_2 \odot y), \qquad
   [g_1, g_2] = \sigma(W [x, y]) \tag{21.6} $$

Levels get 3, 6 and 3 points: the middle one more, where most objects are.

| symbol    | name            | shape     | meaning                                           |
|-----------|-----------------|-----------|---------------------------------------------------|
| $s$       | `corner_logits` | `B Q 4 n` | scores of the distances; left, top, right, bottom |
| $b^{(0)}$ | `start.boxes`   | `B Q 4`   | box of the first layer, cxcywh                    |
| $W$       | `distances`     | `n`       | 33 distances, rising, as fractions of the size    |

`box_gradient` says what a loss of layer $i$ reaches: with `look_forward_twice` the scores of all
layers up to $i$ (the authors' choice), with `look_forward_once` those of layer $i$ alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rtdetr_lab.boxes import xyxy_from_cxcywh
from rtdetr_lab.config import require, require_at_least, require_between
from rtdetr_lab.decoder import Decoder, DecoderConfig, DecoderLayer, move
from rtdetr_lab.deformable_attention import DeformableAttention
from rtdetr_lab.layers import MLP, identity
from rtdetr_lab.notation import Size
from rtdetr_lab.query_selection import reset_heads
from rtdetr_lab.structures import LayerPrediction, exportable
from rtdetr_lab.taps import tap

POSITION_RANGE = 10.0
"""Positions are cut to this range, as in the authors' code."""

SMALLEST_SIZE = 1e-12
"""A box is at least this wide and high where a distance is divided by its size."""


@exportable
@dataclass(frozen=True, eq=False)
class EdgePrediction(LayerPrediction):
    """Prediction of a layer, with the scores of its edges and the prediction that they move.

    `start` are the boxes of the first layer and its class logits without LQE. `distances` are what
    the scores are about.
    """

    corner_logits: Float[Tensor, "B Q 4 n"]
    distances: Float[Tensor, " n"]
    start: LayerPrediction


@dataclass(frozen=True)
class FDRConfig(DecoderConfig):
    """Settings of D-FINE's decoder: those of RT-DETR's, and of the distributions.

    `num_bins` is N, an even number; there are N + 1 distances. `scale` and `reach` shape them (the
    authors' `reg_scale` and `up`). LQE reads the `top_bins` largest probabilities of an edge.
    """

    num_points: int | tuple[int, ...] = (3, 6, 3)
    num_bins: int = 32
    scale: float = 4.0
    reach: float = 0.5
    top_bins: int = 4
    quality_dim: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        even, what = self.num_bins % 2 == 0, f"is {self.num_bins}"
        require(even and self.num_bins >= 4, "decoder.num_bins", what, "give an even number from 4")
        for name, value in (("scale", self.scale), ("reach", self.reach)):
            require(value > 0, f"decoder.{name}", f"is {value}", "give a positive number")
        require_between(1, self.num_bins + 1, "decoder", top_bins=self.top_bins)
        require_at_least(1, "decoder", quality_dim=self.quality_dim)

    def build(self, num_classes: int) -> "FDRDecoder":
        return FDRDecoder(self, num_classes)

    def layer(self) -> "GatedLayer":
        """Make a layer with a gate."""
        return GatedLayer(self)

    @property
    def box_outputs(self) -> int:
        """Scores that a box head predicts for a query: N + 1 for each of four edges."""
        return 4 * (self.num_bins + 1)

    def distances(self, like: Tensor) -> Float[Tensor, " n"]:
        """Compute W(n) for n = 0 … N, in the precision of `like` (Eq. 21.4)."""
        half = self.num_bins // 2
        steps = torch.arange(-half, half + 1, device=like.device, dtype=like.dtype)
        inner = (self.reach * self.scale + 1) ** (steps.abs() / (half - 1)) - 1
        size = torch.where(steps.abs() == half, 2 * self.reach, inner / self.scale)
        return steps.sign() * size


class UnprojectedAttention(DeformableAttention):
    """Deformable attention that reads the memory itself, and returns what it read."""

    def __init__(self, cfg: FDRConfig) -> None:
        super().__init__(cfg.dim, cfg.num_heads, cfg.points, cfg.sampler)
        self.value_proj = nn.Identity()  # type: ignore[assignment]
        self.output_proj = nn.Identity()  # type: ignore[assignment]


class Gate(nn.Module):
    """Weigh two inputs channel by channel, add and normalise (Eq. 21.6); starts at ½ and ½."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = nn.Linear(2 * dim, 2 * dim)
        self.norm = nn.LayerNorm(dim)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(
        self, x: Float[Tensor, "B Q D"], y: Float[Tensor, "B Q D"]
    ) -> Float[Tensor, "B Q D"]:
        weights = tap("weights", self.gate(torch.cat([x, y], dim=-1)).sigmoid())
        first, second = weights.chunk(2, dim=-1)
        return self.norm(first * x + second * y)


class GatedLayer(DecoderLayer):
    """RT-DETR's layer with unprojected attention, and a gate in place of the sum after it."""

    def __init__(self, cfg: FDRConfig) -> None:
        super().__init__(cfg)
        self.cross_attn = UnprojectedAttention(cfg)
        self.norm2 = nn.Identity()  # type: ignore[assignment]
        self.gate = Gate(cfg.dim)

    def merge(
        self, content: Float[Tensor, "B Q D"], seen: Float[Tensor, "B Q D"]
    ) -> Float[Tensor, "B Q D"]:
        """Let the gate decide."""
        return self.gate(content, seen)


class QualityHead(nn.Module):
    """Judge how sharp the four distributions are: one number per query (LQE)."""

    def __init__(self, cfg: FDRConfig) -> None:
        super().__init__()
        self.top_bins = cfg.top_bins
        self.mlp = MLP(4 * (cfg.top_bins + 1), cfg.quality_dim, 1, num_layers=2)
        nn.init.zeros_(self.mlp.layers[-1].get_parameter("weight"))
        nn.init.zeros_(self.mlp.layers[-1].get_parameter("bias"))

    def forward(self, probabilities: Float[Tensor, "B Q 4 n"]) -> Float[Tensor, "B Q 1"]:
        """Compute the last summand of Eq. 21.5."""
        top = probabilities.topk(self.top_bins, dim=-1).values
        both = torch.cat([top, top.mean(-1, keepdim=True)], dim=-1)
        return self.mlp(both.flatten(2))


class FDRDecoder(Decoder):
    """Decoder layers; after each, a class head, scores of the edges, and their judge."""

    cfg: FDRConfig
    per_layer = (*Decoder.per_layer, "quality_heads")

    def __init__(self, cfg: FDRConfig, num_classes: int) -> None:
        super().__init__(cfg, num_classes)
        self.start_head = MLP(cfg.dim, cfg.dim, 4, num_layers=3)
        reset_heads(self.class_heads[0], self.start_head)
        self.quality_heads = nn.ModuleList(QualityHead(cfg) for _ in self.layers)

    def forward(
        self,
        content: Float[Tensor, "B Q D"],
        reference_logits: Float[Tensor, "B Q 4"],
        memory: Float[Tensor, "B N D"],
        shapes: Sequence[Size],
        blocked: Bool[Tensor, "Q Q"] | None = None,
    ) -> tuple[LayerPrediction, ...]:
        """Apply Eq. 21.2 to 21.5 layer by layer; return an `EdgePrediction` per layer, in order."""
        cut = Tensor.detach if self.training else identity
        gradient = self.cfg.box_gradient if self.training else identity
        boxes = torch.sigmoid(reference_logits)
        distances, before = self.cfg.distances(content), torch.zeros_like(content)
        predictions: list[EdgePrediction] = []
        for i in range(self.num_running):
            reference = cut(tap(f"reference.{i}", boxes))
            position = self.query_position(reference).clamp(-POSITION_RANGE, POSITION_RANGE)
            content = self.layers[i](content, position, reference, memory, shapes, blocked)
            content = tap(f"content.{i}", content)
            logits = self.class_heads[i](content)
            if i == 0:
                start = LayerPrediction(logits, move(self.start_head(content), reference))
            scores = self.box_heads[i](content + before).unflatten(2, (4, -1))
            if i > 0:
                scores = scores + gradient(predictions[-1].corner_logits)
            scores = tap(f"corner_logits.{i}", scores)
            probabilities = scores.softmax(-1)
            boxes = moved_edges(cut(start.boxes), probabilities @ distances)
            boxes = tap(f"boxes.{i}", boxes)
            logits = tap(f"logits.{i}", logits + self.quality_heads[i](probabilities))
            known = (logits, boxes, scores, distances, start)
            predictions.append(EdgePrediction(*known, content=content))
            before = cut(content)
        return tuple(predictions)


def moved_edges(boxes: Float[Tensor, "*n 4"], away: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """Move the edges of boxes away from the centre: left, top, right, bottom (Eq. 21.3)."""
    centre, size = boxes.split(2, dim=-1)
    low, high = ((0.5 + part) * size for part in away.split(2, dim=-1))
    return torch.cat([centre + (high - low) / 2, low + high], dim=-1)


def edges_away(
    boxes: Float[Tensor, "*n 4"], wanted: Float[Tensor, "*n 4"]
) -> Float[Tensor, "*n 4"]:
    """Return how far the edges of `boxes` must move to be those of `wanted`: inverts Eq. 21.3."""
    centre, size = boxes.split(2, dim=-1)
    low, high = xyxy_from_cxcywh(wanted).split(2, dim=-1)
    size = size.clamp(min=SMALLEST_SIZE)
    return torch.cat([(centre - low) / size, (high - centre) / size], dim=-1) - 0.5
