r"""# RT-DETRv3: more to learn from every picture, and nothing of it at inference

- **Paper**     "RT-DETRv3: Real-time End-to-End Object Detection with Hierarchical Dense Positive
  Supervision", arXiv 2409.08475, §3, Tables 1 and 4
- **Notebook**  `notebooks/23_rtdetrv3.ipynb`
- **Elsewhere** authors' `RTDETRTransformerv3`, `DINOv3Head`, `PPYOLOEHead` (PaddleDetection)

With one query per object, a picture with three objects trains three of 300 queries. All others
learn "nothing". RT-DETRv3 leaves the detector as it is. In training it adds three kinds of
*positives* (predictions with an object to learn). Notebook 12 has the first idea of this kind:
denoising.

```
                       ┌─ main queries          one-to-one      RT-DETR: all that is left in eval
maps ─ memory ─────────┼─ 3 groups of queries   one-to-one      random blocks in self-attention
  │                    └─ 1 group of 450        one-to-many     every object is asked for 4 times
  └─ dense head ────────────── every cell       one-to-many     up to 13 cells per object
```

**Masked groups.** Each group has a proposal head of its own, so it starts from other tokens. All
groups share the decoder. In a masked group, a query may not look at a random tenth of the others:

$$ \mathrm{blocked}_{ij} = (u_{ij} < p) \wedge (i \ne j), \qquad u_{ij} \sim U(0, 1),\quad
   p = 0.1 \tag{23.1} $$

So in each group another query answers for the same object, and the decoder learns from all of them.
Groups never see each other. One call of the decoder with a mask as in Eq. 12.2, notebook 12, would
do that. We call it once per group, which gives the same numbers.

**One-to-many.** A last group gets every object $K = 4$ times. The matching stays one-to-one; it
matches copies, so $K$ queries learn one object. This group has no blocks.

**Dense head.** The first two train the decoder; this one trains the maps. It predicts classes and a
box in every cell, from its 3×3 neighbourhood. An object teaches the cells inside it that are best
at score *and* box already (*task-aligned*). With $s$ the score of its class:

$$ a = s^{\alpha} \cdot \mathrm{IoU}^{\beta} \cdot [\text{the centre of the cell is inside}],
   \qquad \alpha = 1,\ \beta = 6 \tag{23.2} $$

The 13 cells with the largest $a > 0$ learn the object. A cell that two objects want takes the one
with the larger IoU.

**The loss** is the mean over the main queries and the masked groups, plus the other two:

$$ \mathcal L = \frac{1}{1 + G} \sum_{g=0}^{G} \mathcal L_g + \mathcal L_{\text{denoising}}
   + \mathcal L_{\text{many}} + \mathcal L_{\text{dense}} \tag{23.3} $$

| positives, for 3 objects                | of a decoder layer |
|-----------------------------------------|--------------------|
| RT-DETR, without denoising              | 3                  |
| three masked groups                     | 9 more             |
| one-to-many                             | 12 more            |
| dense head (once, not in every layer)   | up to 39           |

| R18, 72 epochs (Table 4) | AP   |
|--------------------------|------|
| none                     | 46.5 |
| dense head               | 47.4 |
| one-to-many              | 47.5 |
| masked groups            | 47.5 |
| all                      | 48.1 |

| preset          | AP   | RT-DETR | after 12 epochs (Table 1)  |
|-----------------|------|---------|----------------------------|
| `rtdetrv3_r18`  | 48.1 | 46.5    | 41.5; v1 38.7, v2 39.8     |
| `rtdetrv3_r34`  | 49.9 | 48.9    |                            |
| `rtdetrv3_r50`  | 53.4 | 53.1    |                            |
| `rtdetrv3_r101` | 54.6 | 54.3    |                            |

`docs/differences.md` lists where we are simpler than the authors' code.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rtdetr_lab import rtdetr
from rtdetr_lab.boxes import iou, xyxy_from_cxcywh
from rtdetr_lab.config import extend, require_at_least, require_below_one
from rtdetr_lab.criterion import Criterion, CriterionConfig
from rtdetr_lab.layers import ConvNormAct
from rtdetr_lab.notation import tokens_from_maps
from rtdetr_lab.query_selection import ProposalHead, QuerySelection, TopScore, anchors
from rtdetr_lab.structures import Assignment, LayerPrediction, Prediction, Targets
from rtdetr_lab.structures.ranks import mean_over_ranks


@dataclass(frozen=True, eq=False)
class DensePrediction(LayerPrediction):
    """Prediction of every cell, and the centres of the cells, x and y in [0, 1]."""

    centres: Float[Tensor, "Q 2"]


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainingPrediction(Prediction):
    """RT-DETR's prediction, and those of the masked groups, of one-to-many, and of every cell."""

    groups: tuple[Prediction, ...]
    many: Prediction
    dense: DensePrediction


@dataclass(frozen=True)
class TaskAligned:
    """Give every object to the `num_cells` cells that score and box it best (Eq. 23.2)."""

    num_cells: int = 13
    alpha: float = 1.0
    beta: float = 6.0

    def __post_init__(self) -> None:
        require_at_least(1, "criterion.cells", num_cells=self.num_cells)
        require_at_least(0, "criterion.cells", alpha=self.alpha, beta=self.beta)

    @torch.no_grad()
    def __call__(self, layer: DensePrediction, targets: Targets) -> Assignment:
        dtype, pairs = layer.centres.dtype, []
        for picture, (labels, boxes) in enumerate(zip(targets.labels, targets.boxes, strict=True)):
            scores = layer.logits[picture].to(dtype).sigmoid()[:, labels]
            overlap = iou(*map(xyxy_from_cxcywh, (layer.boxes[picture].to(dtype), boxes.to(dtype))))
            away = (layer.centres[:, None] - boxes[:, :2]).abs()
            inside = (away < boxes[:, 2:] / 2).all(-1)
            pairs.append(self._pairs(scores**self.alpha * overlap**self.beta * inside, overlap))
        return Assignment(tuple(q for q, _ in pairs), tuple(t for _, t in pairs))

    def _pairs(
        self, aligned: Float[Tensor, "Q T"], overlap: Float[Tensor, "Q T"]
    ) -> tuple[Int[Tensor, "_"], Int[Tensor, "_"]]:
        best = aligned.topk(min(self.num_cells, len(aligned)), dim=0)
        wants = torch.zeros_like(aligned).scatter(0, best.indices, best.values) > 0
        cells = wants.any(1).nonzero()[:, 0]
        closest = (overlap * wants).argsort(dim=1, descending=True)
        return cells, closest[cells, :1].flatten()  # also for a picture without objects


@dataclass(frozen=True)
class DenseCriterionConfig(CriterionConfig):
    """RT-DETR's criterion, the copies of every object in one-to-many, and which cells learn."""

    copies: int = 4
    cells: TaskAligned = field(default_factory=TaskAligned)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, "criterion", copies=self.copies)

    def build(self) -> "DenseCriterion":
        return DenseCriterion(self)


class DenseCriterion(Criterion):
    """Compute RT-DETR's terms, averaged over the groups, and those of the other two (Eq. 23.3)."""

    cfg: DenseCriterionConfig

    def __call__(self, prediction: Prediction, targets: Targets) -> dict[str, Float[Tensor, ""]]:
        """Return the terms by name; `….many` and `….dense` are new."""
        terms = super().__call__(prediction, targets)
        if not isinstance(prediction, TrainingPrediction):
            return terms
        judge = Criterion(replace(self.cfg, masks=None))  # only the main queries have masks
        groups = [terms, *(judge(group, targets) for group in prediction.groups)]
        for name in groups[-1]:
            terms[name] = torch.stack([group[name] for group in groups]).mean()
        many = judge(prediction.many, targets.repeated(self.cfg.copies))
        terms |= {f"{name}.many": term for name, term in many.items()}

        device = prediction.boxes.device
        targets, dense = targets.to(device), prediction.dense
        cells = self.cfg.cells(dense, targets)
        count = mean_over_ranks(sum(map(len, cells.queries)), device)
        return terms | self._terms(".dense", dense, targets, cells, count)


@dataclass(frozen=True)
class RTDETRv3Config(rtdetr.RTDETRConfig):
    """An RT-DETR, and what it has in training: `num_groups` masked groups that block a share
    `perturbation`, a group of `num_many` queries for one-to-many, and a dense head."""

    criterion: Any = field(default_factory=DenseCriterionConfig)
    num_groups: int = 3
    perturbation: float = 0.1
    num_many: int = 450

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(0, "", num_groups=self.num_groups)
        require_at_least(1, "", num_many=self.num_many)
        require_below_one("", perturbation=self.perturbation)

    def build(self) -> "RTDETRv3":
        return RTDETRv3(self)


class RTDETRv3(rtdetr.RTDETR):
    """In training with targets, predict for all groups and all cells; else be an RT-DETR."""

    def __init__(self, cfg: RTDETRv3Config) -> None:
        super().__init__(cfg)
        dim, heads = cfg.decoder.dim, range(cfg.num_groups + 1)
        self.group_heads = nn.ModuleList(ProposalHead(dim, cfg.num_classes) for _ in heads)
        self.neighbours = ConvNormAct(dim, dim, 3, act=F.silu)
        self.dense_head = ProposalHead(dim, cfg.num_classes)

    def predict(
        self, levels: Sequence[Float[Tensor, "B D _ _"]], targets: Targets | None
    ) -> Prediction:
        """Predict from the maps of the memory."""
        main = super().predict(levels, targets)
        if not self.training or targets is None:
            return main
        *masked, last = self.group_heads
        parts = {f.name: getattr(main, f.name) for f in fields(main)}
        share, count = self.cfg.perturbation, main.logits.shape[1]
        return TrainingPrediction(
            **parts,
            groups=tuple(self._group(head, count, share, levels) for head in masked),
            many=self._group(last, self.cfg.num_many, 0.0, levels),
            dense=self._dense(levels),
        )

    def _group(
        self, head: nn.Module, count: int, share: float, levels: Sequence[Tensor]
    ) -> Prediction:
        shapes, memory = [(m.shape[-2], m.shape[-1]) for m in levels], tokens_from_maps(levels)
        found = head(memory, shapes)
        chosen = QuerySelection(TopScore(count))(found.tokens, found.logits, found.box_logits)
        blocked = random_blocks(count, share, memory.device)
        layers = self.decoder(chosen.content, chosen.reference_logits, memory, shapes, blocked)
        return Prediction(layers[-1].logits, layers[-1].boxes, layers, found.at(chosen.index))

    def _dense(self, levels: Sequence[Tensor]) -> DensePrediction:
        shapes = [(m.shape[-2], m.shape[-1]) for m in levels]
        tokens = tokens_from_maps([self.neighbours(m) for m in levels])
        found = self.dense_head(tokens, shapes)
        start, _ = anchors(tuple(shapes), tokens.device, self.dense_head.norm.weight.dtype)
        return DensePrediction(found.logits, found.box_logits.sigmoid(), start.sigmoid()[:, :2])


def random_blocks(
    count: int, share: float, device: torch.device | str = "cpu"
) -> Bool[Tensor, "Q Q"]:
    """Draw a mask: row i must not attend to column j. A query always sees itself (Eq. 23.1)."""
    drawn = torch.rand(count, count, device=device) < share
    return drawn & ~torch.eye(count, dtype=torch.bool, device=device)


def as_rtdetrv3(cfg: rtdetr.RTDETRConfig) -> RTDETRv3Config:
    """Train an RT-DETR in this way. One-to-many gets one and a half times its queries."""
    judge, many = extend(cfg.criterion, DenseCriterionConfig), cfg.selection.num_queries * 3 // 2
    return extend(cfg, RTDETRv3Config, criterion=judge, num_many=many)


def rtdetrv3_r18(num_classes: int = 80) -> RTDETRv3Config:
    """v3 of r18: 48.1 AP (v1: 46.5)."""
    return as_rtdetrv3(rtdetr.rtdetr_r18(num_classes))


def rtdetrv3_r34(num_classes: int = 80) -> RTDETRv3Config:
    """v3 of r34: 49.9 AP (v1: 48.9)."""
    return as_rtdetrv3(rtdetr.rtdetr_r34(num_classes))


def rtdetrv3_r50(num_classes: int = 80) -> RTDETRv3Config:
    """v3 of r50: 53.4 AP (v1: 53.1)."""
    return as_rtdetrv3(rtdetr.rtdetr_r50(num_classes))


def rtdetrv3_r101(num_classes: int = 80) -> RTDETRv3Config:
    """v3 of r101: 54.6 AP (v1: 54.3)."""
    return as_rtdetrv3(rtdetr.rtdetr_r101(num_classes))
