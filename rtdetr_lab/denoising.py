r"""# Denoising: teach with objects that are nearly right

- **Paper**     DN-DETR (Li et al. 2022) §4; contrastive: DINO §3.3; the numbers: RT-DETR Table A
- **Notebook**  `notebooks/12_denoising.ipynb`
- **Elsewhere** `get_contrastive_denoising_training_group` (authors and transformers)

Early in training the matching is nearly random: a query is matched with a cat now and with a remote
control in the next epoch, and learns to find neither of them. The object of a denoising query is
known from the start. We take the ground truth, add a little noise, and train the decoder to restore
the original. This needs no matching. These are the *positives*. A second copy gets more noise, and
the decoder learns to answer "nothing" for it. These are the *negatives* ("contrastive" means that
positives and negatives stand side by side). With positives only, a query near an object never
learns to say no, so several queries may claim one object. The negatives lie just outside the range
of the positives, and teach the decoder to say no to a box that is near an object, but not near
enough.

Every corner coordinate moves by $\Delta$, in either direction with probability ½. The size of the
step is uniform within a range:

$$ \text{positive: } |\Delta| < \tfrac12 \lambda\, s, \qquad
   \text{negative: } \tfrac12 \lambda\, s \le |\Delta| < \lambda\, s \tag{12.1} $$

$s$ is the width (for x) or height (for y) of the box, and $\lambda$ = `box_noise`. Boxes are
clipped to the picture. If both edges of a negative move inwards along one axis, they pass each
other and the box collapses: a quarter of all negatives have no width, and a quarter have no height.
(DN-DETR, §4, adds noise to centre and size instead: the centre moves by at most $\lambda_1 s / 2$,
and a side is multiplied by a factor between $1 - \lambda_2$ and $1 + \lambda_2$. The centre stays
inside the object, because $\lambda_1 < 1$.)

With probability 0.25 a random label replaces the label. This is half of `label_noise` = 0.5, the
number in Table A: the authors' code multiplies it by 0.5. The random label is uniform over all
classes, so sometimes it is the right one. The target of the loss is always the true label.

**Groups.** All objects together are shown several times, in groups with different noise. With $T$
objects in the fullest picture of the batch, the number of groups and of denoising queries is

$$ G = \max\bigl(1, \min(\lfloor N / T \rfloor, \lfloor R_{\max} / (2T) \rfloor)\bigr), \qquad
   R = 2\,G\,T \tag{12.3} $$

A group has $T$ positives and $T$ negatives. $N$ = `num_queries` = 100 counts positives, so about
200 queries come out (the "200" of Table A). $R_{\max}$ = `max_queries` = 600 is a limit for crowds:
with more than $R_{\max} / 2$ objects, the formula takes $T = R_{\max} / 2$ (see below).

| objects $T$ | 1   | 7   | 49  | 51  | 100 | 300 | 700 |
|-------------|-----|-----|-----|-----|-----|-----|-----|
| groups      | 100 | 14  | 2   | 1   | 1   | 1   | 1   |
| queries $R$ | 200 | 196 | 196 | 102 | 200 | 600 | 600 |

**No copying.** Queries exchange information only in self-attention, so one mask there is enough. A
*matching* query (a usual query, not made from the ground truth) that attends to a denoising query
could copy the answer from it. At inference there are no denoising queries, so this must not be
learned. Therefore matching queries never attend to denoising queries, and groups never attend to
each other. A denoising query does attend to the matching queries and to its own group. Let $g_i$ be
the group of query $i$, and $-1$ for a matching query ($\wedge$ means *and*):

$$ \mathrm{blocked}_{ij} = (g_i \ne g_j) \wedge (g_j \ge 0) \tag{12.2} $$

```
                  group 0   group 1   matching
     group 0         ·      blocked      ·
     group 1      blocked      ·         ·
     matching     blocked   blocked      ·
```

**Padding.** A picture with fewer than $T$ objects is filled up with padding rows: label $C$, whose
embedding is zero, and a box without size. As in the papers' code, the queries of their group attend
to these rows, and the rows learn to answer "nothing". A batch without any object gets one group of
padding only. The criterion counts its loss as exactly zero; the group is there so that the label
embedding always has a gradient.

**Crowds.** The authors' code and transformers do not limit $R$: 700 objects make 1,400 queries, and
the cost of self-attention grows with the square. We limit it to `max_queries`. If a picture holds
more than `max_queries` / 2 objects, we denoise only that many, drawn at random in every step. The
default of 600 queries is enough for 300 objects, as many as 300 matching queries can find. Up to
300 objects our code makes the same queries as theirs.
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
    """Settings of denoising.

    `num_queries` is the number of positives over all groups; `max_queries` limits positives and
    negatives together. `label_noise` is twice the probability of a new label. A model with
    `denoising=None` trains without denoising.
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
        """Number of groups for `size` objects in the fullest picture (Eq. 12.3)."""
        return max(1, min(self.num_queries // size, self.max_queries // (2 * size)))


class ContrastiveDenoising(nn.Module):
    """Make extra decoder queries from noisy copies of the ground truth."""

    def __init__(self, cfg: DenoisingConfig, num_classes: int, dim: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.num_classes = num_classes
        # One row more than classes, for padding: it is zero and stays zero.
        self.label_embedding = nn.Embedding(num_classes + 1, dim, padding_idx=num_classes)

    def forward(self, targets: Targets, num_matching: int) -> CDNBatch:
        """Make the queries of a batch.

        Random numbers come from torch's global generator, in the order of transformers' function:
        the same seed and default dtype give the same queries there and here.
        """
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
        """Labels, boxes and object numbers, padded to T per picture (label C, number -1)."""
        room = self.cfg.max_queries // 2
        device = self.label_embedding.weight.device
        # The fullest picture of all processes: then every process makes the same number of groups.
        fullest = max_over_ranks(max(targets.counts, default=0), device)
        size = max(1, min(room, fullest))
        labels = torch.full((len(targets), size), self.num_classes, device=device)
        boxes = torch.zeros(len(targets), size, 4, device=device)
        index = torch.full((len(targets), size), -1, device=device)
        for row, count in enumerate(targets.counts):
            # Draw only for a crowd: a draw for every picture would change all later random numbers.
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
        # float32 and int32 as in transformers, so that one seed draws the same numbers in both.
        redraw = torch.rand_like(labels, dtype=torch.float32) < self.cfg.label_noise * 0.5
        other = torch.randint_like(labels, 0, self.num_classes, dtype=torch.int32).long()
        return torch.where(redraw & real, other, labels)

    def _noised_boxes(
        self, boxes: Float[Tensor, "B R 4"], negative: Bool[Tensor, "R"]
    ) -> Float[Tensor, "B R 4"]:
        """Add the noise of Eq. 12.1 to all four corner coordinates."""
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
    """Mask of Eq. 12.2: row i must not attend to column j; denoising groups come first."""
    group = torch.arange(2 * size * num_groups, device=device) // (2 * size)
    group = torch.cat([group, torch.full((num_matching,), -1, device=device)])
    looks, seen = group[:, None], group[None, :]
    return (looks != seen) & (seen >= 0)
