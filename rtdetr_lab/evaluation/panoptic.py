r"""# Panoptic quality: how well is every pixel accounted for?

- **Paper**     Kirillov et al. 2019, "Panoptic Segmentation", arXiv 1801.00868, §4

A found segment $p$ and a true segment $g$ *match* if they have the same category and their IoU
exceeds 0.5. Segments do not overlap, so no segment matches twice, and no search is needed. Per
category

$$ \mathrm{PQ} = \underbrace{\frac{\sum_{(p,g)\in TP} \mathrm{IoU}(p, g)}{|TP|}}_{\mathrm{SQ}}
   \cdot \underbrace{\frac{|TP|}{|TP| + \frac12 |FP| + \frac12 |FN|}}_{\mathrm{RQ}}
   \tag{18.2} $$

averaged over the categories that occur: over all of them, over things, or over stuff.

**Void** (§4.3): pixels without an annotation count in no union. A found segment is not counted as
wrong if more than half of its area lies on such pixels. The same holds for a **crowd** of the same
category: a crowd is never matched and never missed.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from rtdetr_lab.config import require
from rtdetr_lab.data.coco_panoptic import PanopticDataset
from rtdetr_lab.data.segment_map import SegmentMap, TrueSegment
from rtdetr_lab.errors import DataError
from rtdetr_lab.evaluation.evaluate import inference
from rtdetr_lab.images.panoptic import Rule
from rtdetr_lab.images.predict import Look, look_for_segments, predict_segments
from rtdetr_lab.model import declared


@dataclass
class Count:
    """Sum of the IoU of all matches of one category, and the numbers of TP, FP and FN."""

    iou: float = 0.0
    tp: int = 0
    fp: int = 0
    fn: int = 0

    @property
    def occurs(self) -> bool:
        """True if the category is in the truth or in the predictions."""
        return self.tp + self.fp + self.fn > 0

    @property
    def sq(self) -> float:
        """Segmentation quality: the mean IoU of matches."""
        return self.iou / self.tp if self.tp else 0.0

    @property
    def rq(self) -> float:
        """Recognition quality: the F1 score."""
        return self.tp / (self.tp + self.fp / 2 + self.fn / 2) if self.occurs else 0.0

    @property
    def pq(self) -> float:
        """Panoptic quality: the product of both. Eq. 18.2"""
        return self.sq * self.rq


@dataclass
class PanopticQuality:
    """Sums over pictures. `stuff_ids` are the categories that are stuff."""

    stuff_ids: Collection[int] = ()
    counts: dict[int, Count] = field(default_factory=lambda: defaultdict(Count))

    def add(self, truth: SegmentMap, found: SegmentMap) -> None:
        """Add one picture. Raises `DataError` for maps of different sizes."""
        true_size, size = tuple(truth.ids.shape), tuple(found.ids.shape)
        what = f"the truth has size {true_size}, the prediction {size}"
        require(true_size == size, "panoptic map", what, "predict at the truth's size", DataError)
        overlap = _overlaps(truth, found).double()
        area, shared, void = overlap.sum(0)[1:], overlap[1:, 1:], overlap[0, 1:]
        iou = shared / (overlap.sum(1)[1:, None] + area - shared - void)
        is_crowd = torch.tensor([[true.is_crowd] for true in truth.segments]).view(-1, 1)
        true_ids = torch.tensor([true.category_id for true in truth.segments]).view(-1, 1)
        same = true_ids == torch.tensor([one.category_id for one in found.segments])
        matches = same & (iou > 0.5) & ~is_crowd
        for true, row, ious in zip(truth.segments, matches, iou, strict=True):
            count = self.counts[true.category_id]
            count.tp += int(row.sum())
            count.iou += float(ious[row].sum())
            count.fn += not true.is_crowd and not bool(row.any())
        excused = void + (shared * (same & is_crowd)).sum(0)
        wrong = (area > 0) & (excused <= area / 2) & ~matches.any(0)
        for one, is_wrong in zip(found.segments, wrong.tolist(), strict=True):
            self.counts[one.category_id].fp += is_wrong

    def scores(self) -> dict[str, float]:
        """Compute PQ, SQ and RQ: over all that occurs, over things (`_th`), over stuff (`_st`)."""
        occurring = {c: count for c, count in self.counts.items() if count.occurs}
        stuff = {c: n for c, n in occurring.items() if c in self.stuff_ids}
        things = {c: n for c, n in occurring.items() if c not in self.stuff_ids}
        groups = (("", occurring), ("_th", things), ("_st", stuff))
        return {key: v for suffix, group in groups for key, v in _means(suffix, group).items()}


def evaluate_panoptic(
    model: nn.Module,
    data: PanopticDataset,
    rule: Rule | None = None,
    *,
    batch_size: int = 1,
    look: Look | None = None,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> dict[str, float]:
    """Compute the panoptic quality of a segmentation model, in pixels of the stored pictures.

    `rule` decides which segment gets a pixel (`images/panoptic.py`). `look` resizes the pictures;
    the default is that of the checkpoint, else that of the paper. Labels are compared by category
    id: those in the model's `metadata`, else those of the data.
    """
    metadata = declared(model).metadata
    look = look or look_for_segments(model)
    ids = metadata.category_ids or data.category_ids
    stuff = {label for label, category in enumerate(ids) if category in data.stuff_ids}
    quality = PanopticQuality(data.stuff_ids)
    with inference(model):
        for first in progress(range(0, len(data), batch_size)):
            batch = range(first, min(first + batch_size, len(data)))
            pictures = [data.picture(i) for i in batch]
            found = predict_segments(model, pictures, look, stuff, rule)
            for i, one in zip(batch, found, strict=True):
                said = tuple(TrueSegment(s.id, ids[s.label]) for s in one.segments)
                quality.add(data.truth(i), SegmentMap(one.ids.cpu(), said))
    return quality.scores()


def _overlaps(truth: SegmentMap, found: SegmentMap) -> Int[Tensor, "g p"]:
    """Count the pixels that a true segment (row) and a found segment (column) share.

    Row 0 and column 0 are the pixels without a segment.
    """
    rows, columns = _places(truth), _places(found)
    width = len(found.segments) + 1
    pairs = (rows * width + columns).flatten()
    counts = pairs.bincount(minlength=(len(truth.segments) + 1) * width)
    return counts.view(-1, width)


def _places(one: SegmentMap) -> Int[Tensor, "H W"]:
    known, inverse = one.ids.unique(return_inverse=True)
    place = {s.id: i for i, s in enumerate(one.segments, 1)} | {0: 0}
    unknown = [i for i in known.tolist() if i not in place]
    what = f"{len(unknown)} of {len(known)} ids have no segment: {unknown[:3]}"
    remedy = "list every segment that has a pixel"
    require(not unknown, "panoptic map", what, remedy, DataError)
    return torch.tensor([place[i] for i in known.tolist()])[inverse]


def _means(suffix: str, group: Mapping[int, Count]) -> dict[str, float]:
    def mean(name: str) -> float:
        values: list[Any] = [getattr(count, name) for count in group.values()]
        return sum(values) / len(values) if values else float("nan")

    return {f"{name.upper()}{suffix}": mean(name) for name in ("pq", "sq", "rq")}
