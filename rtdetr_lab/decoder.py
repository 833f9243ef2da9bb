r"""# Decoder: three questions per layer, and a box that moves

- **Paper**     RT-DETR §4.1, Table 5; iterative refinement: Deformable DETR §A.4; "look forward
  twice": DINO §3.5
- **Notebook**  `notebooks/11_decoder.ipynb`
- **Elsewhere** authors' `TransformerDecoder`; transformers' `RTDetrDecoder` (`class_embed`,
  `bbox_embed`, `query_pos_head`)

A query carries *content* (what) and a *reference box* (where). Every layer asks three questions:

1. *Which other queries look at this object?* Self-attention between the queries. It replaces NMS
   (non-maximum suppression, the step in which other detectors delete duplicates).
2. *What is there?* Deformable attention around the reference box.
3. *What follows from both?* A feed-forward network on each query.

Then a box head predicts a step $\Delta$ that moves the box. The step is added in logit space, so
that the centre never leaves the picture. Layer $i$, counted from 0, starts from the box $b^{(i)}$
and moves it by its own $\Delta^{(i)}$:

$$ b^{(i+1)} = \sigma\bigl(\Delta^{(i)} + \sigma^{-1}(b^{(i)})\bigr) \tag{11.1} $$

The next layer starts from the moved box. A small network computes the position embedding of layer
$i$ from $b^{(i)}$:

$$ \text{position}^{(i)} = \mathrm{MLP}(b^{(i)}) \tag{11.2} $$

**Why only early layers leave duplicates.** Training rewards one query per object (`matching.py`),
and self-attention lets the queries settle which one. For this they must have seen the picture. In
DETR they start without any content, so the first layer leaves duplicates: NMS after it helps, and
after the last layer it does not (DETR §4.2). In RT-DETR a query starts with the content and the box
of a token, so even the first self-attention can compare the queries of one object.

**Every layer has its own heads and its own loss.** So a decoder of six layers contains a decoder of
three. `inference_layers=3` runs only those: it costs 0.7 AP and saves 1.4 ms. Five layers cost 0.1
AP and save 0.5 ms. More layers are not better: a model trained with seven has 52.6 AP after its
last layer, and one trained with six has 53.1 (R50, Table 5).

**Which step learns from which loss?** Layer $i$ reads a *detached* copy of $b^{(i)}$. So no loss
reaches earlier layers through the position or the sampling points. It reaches them through the
content of the queries, which is not detached between layers. Through the boxes the loss of layer
$i$ reaches its own step $\Delta^{(i)}$, and with DINO's rule also the step before,
$\Delta^{(i-1)}$:

```
       Δ0           Δ1           Δ2
       ↓            ↓            ↓
b0 ─── + ─── b1 ─── + ─── b2 ─── + ─── b3
             │            │            │
           loss 0       loss 1       loss 2
once:        Δ0           Δ1           Δ2
twice:       Δ0         Δ0, Δ1       Δ1, Δ2
```

| `box_gradient`       | loss of layer i reaches the steps  | used by                       |
|----------------------|------------------------------------|-------------------------------|
| `look_forward_twice` | $\Delta^{(i)}$ and $\Delta^{(i-1)}$ | the authors' code; ours       |
| `look_forward_once`  | $\Delta^{(i)}$                      | transformers; for parity      |

The forward pass gives exactly the same numbers. With `look_forward_once` the early box heads get
about half the gradient.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rtdetr_lab.boxes import inverse_sigmoid
from rtdetr_lab.config import (
    dropouts,
    require_at_least,
    require_below_one,
    require_between,
    require_divisible,
)
from rtdetr_lab.deformable_attention import DeformableAttention, points_per_level
from rtdetr_lab.layers import MLP, Activation, Attention, FeedForward
from rtdetr_lab.notation import Size
from rtdetr_lab.query_selection import reset_heads
from rtdetr_lab.samplers import Bilinear, Sampler
from rtdetr_lab.structures import LayerPrediction
from rtdetr_lab.taps import edited, tap

BoxGradient = Callable[[Tensor], Tensor]


def move(
    delta: Float[Tensor, "B Q 4"], reference: Float[Tensor, "B Q 4"]
) -> Float[Tensor, "B Q 4"]:
    """Move a box by a step in logit space (Eq. 11.1)."""
    return torch.sigmoid(delta + inverse_sigmoid(reference))


def look_forward_twice(start: Float[Tensor, "B Q *n"]) -> Float[Tensor, "B Q *n"]:
    """Let the loss of a layer reach the step before it too: keep the gradient of its start."""
    return start


def look_forward_once(start: Float[Tensor, "B Q *n"]) -> Float[Tensor, "B Q *n"]:
    """Let the loss of a layer reach its own step only: detach its start."""
    return start.detach()


@dataclass(frozen=True)
class DecoderConfig:
    """Settings of the decoder.

    `num_points` is one number for all levels, or one per level. In eval mode only the first
    `inference_layers` layers run (r50_m trains six and runs three). `attention_dropout` is that of
    the weights between queries, `activation_dropout` that inside the feed-forward; None takes
    `dropout`.
    """

    dim: int = 256
    num_layers: int = 6
    num_heads: int = 8
    ffn_dim: int = 1024
    num_levels: int = 3
    num_points: int | tuple[int, ...] = 4
    sampler: Sampler = field(default_factory=Bilinear)
    box_gradient: BoxGradient = look_forward_twice
    inference_layers: int | None = None
    dropout: float = 0.0
    attention_dropout: float | None = None
    activation_dropout: float | None = None
    act: Activation = F.relu

    def __post_init__(self) -> None:
        points_per_level(self.num_points, self.num_levels)
        require_at_least(1, "decoder", num_layers=self.num_layers, ffn_dim=self.ffn_dim)
        require_at_least(1, "decoder", dim=self.dim)
        require_below_one("decoder", dropout=self.dropout, **dropouts(self))
        require_divisible("decoder.num_heads", self.dim, self.num_heads)
        if self.inference_layers is not None:
            require_between(1, self.num_layers, "decoder", inference_layers=self.inference_layers)

    def build(self, num_classes: int) -> "Decoder":
        return Decoder(self, num_classes)

    def layer(self) -> "DecoderLayer":
        """Make a layer."""
        return DecoderLayer(self)

    @property
    def points(self) -> tuple[int, ...]:
        """Sampling points of a head on every level."""
        return points_per_level(self.num_points, self.num_levels)

    @property
    def box_outputs(self) -> int:
        """Numbers that a box head predicts for a query: here, the step of a box."""
        return 4


class DecoderLayer(nn.Module):
    """Self-attention, deformable cross-attention, feed-forward; each added and normalised."""

    def __init__(self, cfg: DecoderConfig) -> None:
        super().__init__()
        attention, inside = dropouts(cfg).values()
        self.self_attn = Attention(cfg.dim, cfg.num_heads, attention)
        self.norm1 = nn.LayerNorm(cfg.dim)
        self.cross_attn = DeformableAttention(cfg.dim, cfg.num_heads, cfg.points, cfg.sampler)
        self.norm2 = nn.LayerNorm(cfg.dim)
        self.ffn = FeedForward(cfg.dim, cfg.ffn_dim, cfg.act, inside)
        self.norm3 = nn.LayerNorm(cfg.dim)
        self.dropout = nn.Dropout(cfg.dropout)

    def forward(
        self,
        content: Float[Tensor, "B Q D"],
        position: Float[Tensor, "B Q D"],
        reference: Float[Tensor, "B Q 4"],
        memory: Float[Tensor, "B N D"],
        shapes: Sequence[Size],
        blocked: Bool[Tensor, "Q Q"] | None,
    ) -> Float[Tensor, "B Q D"]:
        where = content + position
        content = self.norm1(content + self.dropout(self.self_attn(where, where, content, blocked)))
        seen = self.cross_attn(content + position, reference, memory, shapes)
        content = self.merge(content, self.dropout(seen))
        return self.norm3(content + self.dropout(self.ffn(content)))

    def merge(
        self, content: Float[Tensor, "B Q D"], seen: Float[Tensor, "B Q D"]
    ) -> Float[Tensor, "B Q D"]:
        """Join the query and what it has seen: here, add and normalise."""
        return self.norm2(content + seen)


class Decoder(nn.Module):
    """Decoder layers; after each, a class head, and a box head that moves the reference."""

    per_layer: tuple[str, ...] = ("layers", "class_heads", "box_heads")
    """Names of the lists with one module per layer."""

    def __init__(self, cfg: DecoderConfig, num_classes: int) -> None:
        super().__init__()
        self.cfg = cfg
        layers = range(cfg.num_layers)
        self.query_position = MLP(4, 2 * cfg.dim, cfg.dim, num_layers=2)
        outputs = cfg.box_outputs
        self.layers = nn.ModuleList(cfg.layer() for _ in layers)
        self.class_heads = nn.ModuleList(nn.Linear(cfg.dim, num_classes) for _ in layers)
        self.box_heads = nn.ModuleList(MLP(cfg.dim, cfg.dim, outputs, num_layers=3) for _ in layers)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start with steps of zero: every layer keeps the box it gets."""
        for module in self.query_position.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
        for class_head, box_head in zip(self.class_heads, self.box_heads, strict=True):
            reset_heads(class_head, box_head)

    @property
    def num_running(self) -> int:
        """Number of layers that run in the current mode."""
        if self.training or self.cfg.inference_layers is None:
            return len(self.layers)
        return self.cfg.inference_layers

    def forward(
        self,
        content: Float[Tensor, "B Q D"],
        reference_logits: Float[Tensor, "B Q 4"],
        memory: Float[Tensor, "B N D"],
        shapes: Sequence[Size],
        blocked: Bool[Tensor, "Q Q"] | None = None,
    ) -> tuple[LayerPrediction, ...]:
        """Apply Eq. 11.2 and Eq. 11.1 layer by layer; return one prediction per layer, in order."""
        start = torch.sigmoid(reference_logits)
        predictions = []
        for i in range(self.num_running):
            start = tap(f"reference.{i}", start)
            reference = start.detach() if self.training else start
            position = self.query_position(reference)
            content = self.layers[i](content, position, reference, memory, shapes, blocked)
            content = tap(f"content.{i}", content)
            delta = self.box_heads[i](content)
            judged = self.cfg.box_gradient(start) if self.training else start
            boxes = tap(f"boxes.{i}", move(delta, judged))
            logits = tap(f"logits.{i}", self.class_heads[i](content))
            predictions.append(LayerPrediction(logits, boxes, content=content))
            # In training the next start has the gradient of this step only, unless it was edited.
            alone = self.training and not edited(f"boxes.{i}")
            start = move(delta, reference) if alone else boxes
        return tuple(predictions)
