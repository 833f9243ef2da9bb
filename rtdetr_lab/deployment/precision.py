"""# Precision: what rounding changes in detections

    drift(model, pictures, size=(640, 640), dtype=torch.bfloat16)

A difference of 0.01 in a logit means little. Does a cat become a dog, does a box move, does a
detection appear or disappear? To find out, we run the same pictures through an engine in single
precision and through one in the lower precision, and match their detections by box. The boxes of a
pair overlap by at least half. Among boxes that overlap equally, we take the one with the same label
and the nearer score.

Only detections above the threshold count, but we also search for partners below it. Most lost
detections have not disappeared: their score only fell from 0.51 to 0.49. `Drift` counts the two
cases separately.
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
    """Changes that another precision makes to detections above a threshold, over all pictures."""

    pictures: int
    threshold: float
    kept: int
    """Detections above the threshold in both outputs."""
    sunk: int
    """Only in the exact output; the other has the same box below the threshold."""
    risen: int
    """Only in the other output; the exact one has the same box below the threshold."""
    gone: int
    """Only in the exact output; no box of the other overlaps it enough."""
    new: int
    """Only in the other output; no box of the exact one overlaps it enough."""
    relabelled: int
    """Pairs with different labels."""
    shifts: Float[Tensor, " n"]
    """Largest distance between the edges of a pair, in pixels."""
    changes: Float[Tensor, " n"]
    """Difference between the scores of a pair."""

    @property
    def exact(self) -> int:
        """Number of detections in single precision."""
        return self.kept + self.sunk + self.gone

    @property
    def cells(self) -> list[str]:
        """Texts of a row of `drift_table`."""
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
    """Format as Markdown what each precision changes."""
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
    """Compare an engine in single precision with one in `dtype` on `pictures` (paths or arrays)."""
    exact = Engine(model, size, 1, torch.float32, device)
    other = Engine(model, size, 1, dtype, device, backend=backend)
    pairs = [(exact(one, 0.0), other(one, 0.0)) for one in pictures]
    return drift_of(pairs, threshold)


def drift_of(pairs: Sequence[tuple[Detections, Detections]], threshold: float) -> Drift:
    """Count the changes in pairs of (exact, other) detections, which go down to score 0."""
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
    """Match rows of `a` with rows of `b`, one to one, and return both indices."""
    from scipy.optimize import linear_sum_assignment

    overlap = iou(a.boxes_xyxy, b.boxes_xyxy)
    same = a.labels[:, None] == b.labels
    nearer = overlap + 0.1 * same - 0.5 * (a.scores[:, None] - b.scores).abs()
    # A row that cannot be paired must not take the partner of another row.
    nearer = nearer.where(overlap >= MIN_IOU, -1e3)
    i, j = (torch.from_numpy(v) for v in linear_sum_assignment(-nearer.double().numpy()))
    enough = overlap[i, j] >= MIN_IOU
    return i[enough], j[enough]


def _high(values: Tensor) -> tuple[float, float]:
    """Return the median and the largest value."""
    return (values.median().item(), values.max().item()) if len(values) else (0.0, 0.0)
