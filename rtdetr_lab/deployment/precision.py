r"""# Precision: what rounding changes in what is found

    drift(model, pictures, size=(640, 640), dtype=torch.bfloat16)

Logits that differ by a hundredth say little: does a cat become a dog, does a box move, does
anything come or go? So the same pictures go through an engine in single precision and through one
in the lower precision, and what they find is matched by box. A pair overlaps by at least half;
among equals the one with the same label and the nearer score is taken.

Nobody looks below the threshold, but partners are looked for there: a detection that is lost has
most often not gone away, its score has only sunk from 0.51 to 0.49. `Drift` tells the two apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rtdetr_lab.boxes import iou
from rtdetr_lab.deployment.backends import Backend
from rtdetr_lab.deployment.engine import Engine
from rtdetr_lab.detections import Detections
from rtdetr_lab.notation import Size
from rtdetr_lab.writing import markdown_table

MIN_IOU = 0.5
"""Boxes that overlap less are not the same detection."""


@dataclass(frozen=True, eq=False)
class Drift:
    """What another precision changes among detections above one threshold, over all pictures."""

    pictures: int
    threshold: float
    kept: int
    """In both."""
    sunk: int
    """Only in the exact answer: the same box is there in the other, below the threshold."""
    risen: int
    """Only in the other answer, and below the threshold in the exact one."""
    gone: int
    """Only in the exact answer, and no box of the other overlaps it enough."""
    new: int
    """Only in the other answer, likewise."""
    relabelled: int
    """Pairs with different labels."""
    shifts: Float[Tensor, " n"]
    """Pixels by which the edge of a pair that differs most has moved."""
    changes: Float[Tensor, " n"]
    """By how much the scores of a pair differ."""

    @property
    def exact(self) -> int:
        """Detections in single precision."""
        return self.kept + self.sunk + self.gone

    @property
    def cells(self) -> list[str]:
        """What a row of `drift_table` says."""
        shift, change = (_high(values) for values in (self.shifts, self.changes))
        return [
            f"{self.pictures}",
            f"{self.exact}",
            f"{self.kept}",
            f"{self.sunk} / {self.risen}",
            f"{self.gone} / {self.new}",
            f"{self.relabelled}",
            f"{shift[0]:.2f} / {shift[1]:.2f}",
            f"{change[0]:.4f} / {change[1]:.4f}",
        ]


HEAD = ["", "pictures", "found in fp32", "in both", "sunk / risen", "gone / new", "other label"]
HEAD += ["shift px, median / max", "score, median / max"]


def drift_table(found: Mapping[str, Drift]) -> str:
    """Markdown: what each precision changes."""
    return markdown_table(HEAD, ([name, *one.cells] for name, one in found.items()))


def drift(
    model: nn.Module,
    pictures: Sequence[Any],
    size: Size | None = None,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str | None = None,
    *,
    backend: Backend | None = None,
    threshold: float = 0.5,
) -> Drift:
    """`pictures` (paths or arrays) through an engine in single precision and one in `dtype`."""
    exact = Engine(model, size, 1, torch.float32, device)
    other = Engine(model, size, 1, dtype, device, backend=backend)
    pairs = [(exact(one, 0.0), other(one, 0.0)) for one in pictures]
    return drift_of(pairs, threshold)


def drift_of(pairs: Sequence[tuple[Detections, Detections]], threshold: float) -> Drift:
    """Of (exact, other) answers with everything in them, down to score 0."""
    kept = sunk = risen = gone = new = relabelled = 0
    shifts, changes = [torch.zeros(0)], [torch.zeros(0)]
    for exact, other in pairs:
        above = exact.above(threshold)
        i, j = matched(above, other)
        stays = other.scores[j] > threshold
        kept, sunk = kept + int(stays.sum()), sunk + int((~stays).sum())
        gone += len(above) - len(i)
        relabelled += int((above.labels[i] != other.labels[j]).sum())
        shifts.append((above.boxes_xyxy[i] - other.boxes_xyxy[j]).abs().amax(-1))
        changes.append((above.scores[i] - other.scores[j]).abs())
        above = other.above(threshold)
        i, j = matched(above, exact)
        risen += int((exact.scores[j] <= threshold).sum())
        new += len(above) - len(i)
    counts = (kept, sunk, risen, gone, new, relabelled)
    return Drift(len(pairs), threshold, *counts, torch.cat(shifts), torch.cat(changes))


def matched(a: Detections, b: Detections) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Rows of `a` and their partners in `b`, one to one."""
    from scipy.optimize import linear_sum_assignment

    overlap = iou(a.boxes_xyxy, b.boxes_xyxy)
    same = a.labels[:, None] == b.labels
    nearer = overlap + 0.1 * same - 0.5 * (a.scores[:, None] - b.scores).abs()
    # What cannot be a pair must not cost another row its partner.
    nearer = nearer.where(overlap >= MIN_IOU, -1e3)
    i, j = (torch.from_numpy(v) for v in linear_sum_assignment(-nearer.double().numpy()))
    enough = overlap[i, j] >= MIN_IOU
    return i[enough], j[enough]


def _high(values: Tensor) -> tuple[float, float]:
    """Median and largest."""
    return (values.median().item(), values.max().item()) if len(values) else (0.0, 0.0)
