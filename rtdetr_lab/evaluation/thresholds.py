r"""# Thresholds: above which score should a detection count?

AP needs no threshold, because it looks at the whole curve. A program that uses the detections needs
one. Each threshold gives a precision $P$ (the share of the detections above it that are right) and
a recall $R$ (the share of the objects that they find). One number weighs both:

$$ F_1 = \frac{2 P R}{P + R} $$

A detection is right at an IoU of 0.5, as in COCO: in the order of scores, it takes the free object
of its class that it overlaps most. So whether it is right does not depend on the threshold.
Detections in a crowd do not count.

The best threshold of a class has the largest $F_1$. If several in a row have it, we take the middle
one: it is the farthest from a change. The *recommended* threshold is one for all classes, with the
largest mean $F_1$. It must come from validation pictures; on test pictures it would be fitted to
the answer.

**Calibration.** Of the detections with a score near 0.7, are 70 % right? We sort all detections
into ten bins by their score. With $n_b$ detections in bin $b$, their mean score $\bar s_b$ and the
share $a_b$ of them that is right, the expected calibration error (Guo et al. 2017) is

$$ \mathrm{ECE} = \sum_b \frac{n_b}{\sum_c n_c}\, |\bar s_b - a_b| $$

A varifocal score learns the IoU of its box, not the chance to be right at an IoU of 0.5. Nano's
detections with scores above 0.8 are right more often than their score says, those below 0.6 less.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from rtdetr_lab.data.batch import Truth
from rtdetr_lab.evaluation.mistakes import IN_CROWD, RIGHT, judge
from rtdetr_lab.images.postprocess import Found

GRID = np.arange(2, 100) / 100
"""The thresholds that we try."""

BINS = 10


@dataclass(frozen=True)
class OperatingPoint:
    """Precision, recall and F1 of a class above a threshold; -1 where there is no object."""

    name: str
    threshold: float
    precision: float
    recall: float
    F1: float


@dataclass(frozen=True, eq=False)
class Calibration:
    """Detections in `BINS` equal bins of their score: number, mean score, and share that is right.

    Empty bins have zeros. Only scores above the lowest threshold of `GRID` count.
    """

    count: Int[np.ndarray, "10"]
    score: Float[np.ndarray, "10"]
    right: Float[np.ndarray, "10"]

    @property
    def error(self) -> float | None:
        """Return the expected calibration error, from 0 (best) to 1; None without detections."""
        gaps = self.count * np.abs(self.score - self.right)
        return float(gaps.sum() / self.count.sum()) if self.count.any() else None


@dataclass(frozen=True, eq=False)
class Curves:
    """Precision, recall and F1 by (threshold of `GRID`, class); NaN where there is no object."""

    names: tuple[str, ...]
    precision: Float[np.ndarray, "98 K"]
    recall: Float[np.ndarray, "98 K"]
    calibration: Calibration

    @property
    def F1(self) -> Float[np.ndarray, "98 K"]:
        """Return the harmonic mean of precision and recall."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / np.where(both > 0, both, 1)

    @property
    def mean_F1(self) -> Float[np.ndarray, "98"]:
        """Return the mean over the classes that have objects; NaN if none has."""
        known = ~np.isnan(self.recall[0])
        return self.F1[:, known].mean(1) if known.any() else np.full(len(GRID), np.nan)

    @property
    def recommended(self) -> float | None:
        """Return the threshold for all classes; None if nothing was found, or is there."""
        mean = self.mean_F1
        return _middle_of_best(mean) if np.nan_to_num(mean).max() > 0 else None

    @property
    def best(self) -> tuple[OperatingPoint, ...]:
        """Return every class at its best threshold."""
        points = []
        for k, name in enumerate(self.names):
            F1 = self.F1[:, k]
            if not np.nan_to_num(F1).max() > 0:
                found = 0.0 if not np.isnan(F1[0]) else -1.0
                points.append(OperatingPoint(name, -1.0, found, found, found))
                continue
            place = int(np.searchsorted(GRID, _middle_of_best(F1)))
            values = (float(self.precision[place, k]), float(self.recall[place, k]))
            points.append(OperatingPoint(name, float(GRID[place]), *values, float(F1[place])))
        return tuple(points)


@dataclass(frozen=True, eq=False)
class Marks:
    """Which detections are right in some pictures, in columns; and their objects by class."""

    scores: Float[np.ndarray, "n"]
    labels: Int[np.ndarray, "n"]
    right: Bool[np.ndarray, "n"]
    objects: Int[np.ndarray, "K"]

    @classmethod
    def of(cls, truths: Sequence[Truth], found: Sequence[Found], num_classes: int) -> "Marks":
        """Mark the detections in some pictures."""
        seen = [judge(t, f.at(f.scores > GRID[0])) for t, f in zip(truths, found, strict=True)]
        kinds = np.array([kind for one in seen for kind in one.of_found], dtype=str)
        counts = kinds != IN_CROWD
        scores = torch.cat([one.found.scores for one in seen]).double().cpu().numpy()
        labels = torch.cat([one.found.labels for one in seen]).cpu().numpy()
        wanted = torch.cat([truth.labels[~truth.is_crowd] for truth in truths])
        objects = torch.bincount(wanted, minlength=num_classes).numpy()
        return cls(scores[counts], labels[counts], kinds[counts] == RIGHT, objects)


def curves_of(marks: Sequence[Marks], names: Sequence[str]) -> Curves:
    """Compute precision and recall of every class above every threshold."""
    precision = np.full((len(GRID), len(names)), np.nan)
    recall = precision.copy()
    objects = sum((one.objects for one in marks), np.zeros(len(names), dtype=np.int64))
    for k in np.nonzero(objects)[0]:
        scores = np.concatenate([one.scores[one.labels == k] for one in marks])
        right = np.concatenate([one.right[one.labels == k] for one in marks])
        above = scores[:, None] > GRID
        hits = (above & right[:, None]).sum(0)
        precision[:, k] = hits / np.maximum(above.sum(0), 1)
        recall[:, k] = hits / objects[k]
    return Curves(tuple(names), precision, recall, calibration_of(marks))


def calibration_of(marks: Sequence[Marks]) -> Calibration:
    """Compare scores with the share of detections that is right, over all classes."""
    scores = np.concatenate([np.zeros(0), *(one.scores for one in marks)])
    right = np.concatenate([np.zeros(0), *(one.right for one in marks)])
    bins = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
    count = np.bincount(bins, minlength=BINS)
    means = (np.bincount(bins, of, BINS) / np.maximum(count, 1) for of in (scores, right))
    return Calibration(count, *means)


def _middle_of_best(F1: Float[np.ndarray, "98"]) -> float:
    """Return the threshold in the middle of the first run of equal best values."""
    best = F1 >= np.nanmax(F1) - 1e-12
    first = int(best.argmax())
    length = int(np.append(best[first:], False).argmin())
    return float(GRID[first + (length - 1) // 2])
