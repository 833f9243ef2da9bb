r"""# Denoising: teach with objects that are nearly right

- **Paper**     DN-DETR (Li et al. 2022) §4; contrastive: DINO §3.3; the numbers: RT-DETR Table A
- **Notebook**  `notebooks/12_denoising.ipynb`
- **Elsewhere** `get_contrastive_denoising_training_group` (authors and transformers)

Early in training the matching is nearly random: a query is given a cat now and a remote in the next
epoch, and learns neither. Denoising queries know their object from the start. We take the ground
truth, spoil it a little, and ask for the original back: no matching needed. A second copy is spoilt
a lot, and has to be rejected: that is the *contrast*, and it teaches the decoder which of several
near boxes is the one.

$$ \text{positive: } |\Delta| < \tfrac12 \lambda\, s, \qquad
   \text{negative: } \tfrac12 \lambda\, s \le |\Delta| < \lambda\, s $$

for every corner coordinate, with $s$ the width or height of the box and $\lambda$ = `box_noise`;
the sign is a coin's, and what leaves the picture is cut off. Corners of a negative that both move
inwards pass each other, and the box collapses: a quarter of all negatives have no width, a quarter
no height. A label is redrawn with probability `label_noise` / 2 = 0.25, from all classes, so now
and then it is drawn right.

**Groups.** With $T$ objects in the fullest picture there is room for $\max(1, \lfloor 100 / T
\rfloor)$ groups of $T$ positives and $T$ negatives each. `num_queries` counts positives, so about
200 queries come out (the "200" of Table A):

| objects $T$ | 1   | 7   | 49  | 51  | 100 | 300 | 700 |
|-------------|-----|-----|-----|-----|-----|-----|-----|
| groups      | 100 | 14  | 2   | 1   | 1   | 1   | 1   |
| queries $R$ | 200 | 196 | 196 | 102 | 200 | 600 | 600 |

**Nobody may copy.** Queries meet in self-attention only, so one mask is enough. A matching query
that saw a denoising query would read the answer off it, and at inference there is nothing to read.
So matching queries never see denoising ones, and groups never see each other. Denoising queries do
see the matching ones, and all of their own group.

```
                  group 0   group 1   matching
     group 0         ·      blocked      ·
     group 1      blocked      ·         ·
     matching     blocked   blocked      ·
```

**Padding.** A picture with fewer objects than the fullest fills up with rows of label $C$, whose
embedding is zero, at a box of no size. As in the papers' code they are visible to their own group,
and are taught to say "nothing". In a batch without any object there is nothing else: it gets one
such group, whose loss the criterion counts as exactly zero, so that the label embedding always has
a gradient.

**Crowds.** The references put no bound on $R$: 700 objects make 1,400 queries, and self-attention
grows with the square. Where a picture holds more than `max_queries` / 2 objects, so many of them,
chosen anew at random every time, are denoised. The default of 600 stands for 300 objects, as many
as 300 matching queries could ever find; up to there nothing differs from the references.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rtdetr_lab.boxes import cxcywh_from_xyxy, inverse_sigmoid, xyxy_from_cxcywh
from rtdetr_lab.config import require_at_least, require_between
from rtdetr_lab.structures import CDNBatch, Targets
from rtdetr_lab.structures.ranks import max_over_ranks


@dataclass(frozen=True)
class DenoisingConfig:
    """`num_queries` is the budget of positives over all groups; `max_queries` caps all of them.

    `label_noise` is twice the probability. A model with `denoising=None` trains without.
    """

    num_queries: int = 100
    label_noise: float = 0.5
    box_noise: float = 1.0
    max_queries: int = 600

    def __post_init__(self) -> None:
        require_at_least(1, "denoising", num_queries=self.num_queries)
        require_at_least(2, "denoising", max_queries=self.max_queries)
        require_at_least(0, "denoising", box_noise=self.box_noise)
        require_between(0, 2, "denoising", label_noise=self.label_noise)

    def build(self, num_classes: int, dim: int) -> "ContrastiveDenoising":
        return ContrastiveDenoising(self, num_classes, dim)

    def num_groups(self, size: int) -> int:
        """Groups for `size` objects in the fullest picture: at least one. Eq. 12.3"""
        return max(1, min(self.num_queries // size, self.max_queries // (2 * size)))


class ContrastiveDenoising(nn.Module):
    """Spoilt copies of the ground truth as extra decoder queries."""

    def __init__(self, cfg: DenoisingConfig, num_classes: int, dim: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.num_classes = num_classes
        # One row more than classes: padding, which is zero and stays zero.
        self.label_embedding = nn.Embedding(num_classes + 1, dim, padding_idx=num_classes)

    def forward(self, targets: Targets, num_matching: int) -> CDNBatch:
        """Draws from torch's global generator, in the order of transformers' function: the same
        seed and default dtype give the same queries there and here."""
        device = self.label_embedding.weight.device
        true_labels, boxes, index = self._padded(targets.to(device))
        size = true_labels.shape[1]
        groups = self.cfg.num_groups(size) if max_over_ranks(targets.num_boxes, device) else 1
        repeat = 2 * groups
        negative = torch.arange(size * repeat, device=device) % (2 * size) >= size

        index = index.repeat(1, repeat)
        labels = self._noised_labels(true_labels.repeat(1, repeat), index >= 0)
        boxes = self._noised_boxes(boxes.repeat(1, repeat, 1), negative)
        return CDNBatch(
            content=self.label_embedding(labels),
            reference_logits=inverse_sigmoid(boxes),
            blocked=who_may_not_see(size, groups, num_matching, device),
            labels=labels,
            is_positive=~negative & (index >= 0),
            target_index=index,
            num_groups=groups,
        )

    def _padded(
        self, targets: Targets
    ) -> tuple[Int[Tensor, "B T"], Float[Tensor, "B T 4"], Int[Tensor, "B T"]]:
        """Labels, boxes and object numbers as rectangles; padding has label C and number -1."""
        room = self.cfg.max_queries // 2
        device = self.label_embedding.weight.device
        # The fullest picture of all processes, so that each makes as many groups as one would.
        fullest = max_over_ranks(max(targets.counts, default=0), device)
        size = max(1, min(room, fullest))
        labels = torch.full((len(targets), size), self.num_classes, device=device)
        boxes = torch.zeros(len(targets), size, 4, device=device)
        index = torch.full((len(targets), size), -1, device=device)
        for row, count in enumerate(targets.counts):
            # Random only for a crowd: otherwise the draw would shift all that are drawn after it.
            kept = torch.arange(count) if count <= room else torch.randperm(count)[:room]
            kept = kept.to(device)
            labels[row, : len(kept)] = targets.labels[row][kept]
            boxes[row, : len(kept)] = targets.boxes[row][kept].to(boxes.dtype)
            index[row, : len(kept)] = kept
        return labels, boxes, index

    def _noised_labels(
        self, labels: Int[Tensor, "B R"], real: Bool[Tensor, "B R"]
    ) -> Int[Tensor, "B R"]:
        if self.cfg.label_noise == 0:
            return labels
        # float32 and int32 as in the reference, so that one seed draws the same numbers in both.
        redraw = torch.rand_like(labels, dtype=torch.float32) < self.cfg.label_noise * 0.5
        other = torch.randint_like(labels, 0, self.num_classes, dtype=torch.int32).long()
        return torch.where(redraw & real, other, labels)

    def _noised_boxes(
        self, boxes: Float[Tensor, "B R 4"], negative: Bool[Tensor, "R"]
    ) -> Float[Tensor, "B R 4"]:
        """Eq. 12.1, on all four corner coordinates."""
        if self.cfg.box_noise == 0:
            return boxes
        half_size = boxes[..., 2:].repeat(1, 1, 2) * 0.5 * self.cfg.box_noise
        sign = torch.randint_like(boxes, 0, 2) * 2.0 - 1.0
        amount = torch.rand_like(boxes) + negative.to(boxes.dtype)[:, None]
        corners = xyxy_from_cxcywh(boxes) + sign * amount * half_size
        return cxcywh_from_xyxy(corners.clamp(0, 1))


def who_may_not_see(
    size: int, num_groups: int, num_matching: int, device: torch.device | str = "cpu"
) -> Bool[Tensor, "S S"]:
    """Row i must not attend to column j; groups of 2·size denoising queries come first. Eq. 12.2"""
    group = torch.arange(2 * size * num_groups, device=device) // (2 * size)
    group = torch.cat([group, torch.full((num_matching,), -1, device=device)])
    looks, seen = group[:, None], group[None, :]
    return (looks != seen) & (seen >= 0)
