r"""# Symptoms: what is wrong in predictions for overfitted pictures

A model that has seen one batch hundreds of times reproduces its targets. If its predictions differ
from the truth of the evaluation, it was *trained* on another truth. Then one simple change of all
predictions makes them right. So the doctor tries such changes, and compares AP50 before and after:

| change                                  | if it helps, then                                  |
|-----------------------------------------|----------------------------------------------------|
| permute labels, as the pairs suggest    | class ids are shifted or shuffled                  |
| read boxes as another format            | the model learned corners, or height before width  |
| none; only scores are checked           | boxes are right, but their scores are low          |

Boxes here are corners in thousandths of the picture, for truths and predictions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rtdetr_lab.boxes import cxcywh_from_xyxy, iou, xyxy_from_cxcywh, xyxy_from_xywh
from rtdetr_lab.data.batch import Truth
from rtdetr_lab.evaluation.coco import Metrics, coco_truth, scored
from rtdetr_lab.evaluation.mirror import labels_said
from rtdetr_lab.evaluation.table import Table
from rtdetr_lab.images.postprocess import Found
from rtdetr_lab.layers import identity

SIDE = 1000
GAIN = 0.3
"""AP50 must rise by this much before we report a change of all predictions as the fault."""

FITS, TRUSTED = 0.75, 0.3


@dataclass(frozen=True)
class Finding:
    """A fault with its numbers, and a remedy."""

    fault: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.fault}; {self.remedy}"


@dataclass(frozen=True, eq=False)
class Case:
    """The truths of some pictures, and the predictions for them."""

    truths: tuple[Truth, ...]
    found: tuple[Found, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, truths: Sequence[Truth], found: Sequence[Found], names: Sequence[str]) -> "Case":
        """Make a case from truths in pixels and predictions in thousandths of the picture."""
        square = [_in_thousandths(i, truth) for i, truth in enumerate(truths)]
        return cls(tuple(square), tuple(one.to("cpu") for one in found), tuple(names))

    def metrics(self) -> Metrics:
        """Return COCO's metrics."""
        ids = range(1, len(self.names) + 1)
        rows = [(t.image_id, f) for t, f in zip(self.truths, self.found, strict=True)]
        table = Table.of_found(rows, ids).best(100)
        return scored(coco_truth(self.truths, self.names, ids), table).metrics

    def with_boxes(self, columns: list[int], read: Callable[[Tensor], Tensor]) -> "Case":
        """Read all boxes as another format, and return the new case.

        We take four numbers in [0, 1], which should be centre and size, in the order of `columns`;
        `read` maps them to corners.
        """

        def one(found: Found) -> Found:
            numbers = cxcywh_from_xyxy(found.boxes_xyxy / SIDE)
            return replace(found, boxes_xyxy=read(numbers[:, columns]) * SIDE)

        return replace(self, found=tuple(map(one, self.found)))

    def with_labels(self, label_of: Sequence[int]) -> "Case":
        """Replace every label, and return the new case."""
        new = torch.tensor(label_of)
        changed = (replace(f, labels=new[f.labels]) for f in self.found)
        return replace(self, found=tuple(changed))


def _in_thousandths(number: int, truth: Truth) -> Truth:
    height, width = truth.size
    scale = torch.tensor([SIDE / width, SIDE / height]).repeat(2)
    areas = truth.areas * SIDE * SIDE / (height * width)
    boxes = truth.boxes_xyxy * scale.to(truth.boxes_xyxy.dtype)
    return replace(truth, image_id=number, size=(SIDE, SIDE), boxes_xyxy=boxes, areas=areas)


FORMATS: dict[str, tuple[list[int], Callable[[Tensor], Tensor]]] = {
    "(cx, cy, h, w), height before width": ([0, 1, 3, 2], xyxy_from_cxcywh),
    "(cy, cx, h, w), y before x": ([1, 0, 3, 2], xyxy_from_cxcywh),
    "corners (x1, y1, x2, y2)": ([0, 1, 2, 3], identity),
    "corner and size (x, y, w, h)": ([0, 1, 2, 3], xyxy_from_xywh),
}
"""Formats that boxes may have instead of cxcywh, and how to read them."""


def examine_answers(case: Case) -> list[Finding]:
    """Find a change of all predictions that makes them right, and right boxes with low scores."""
    now = case.metrics().AP50
    if now < 0:
        return []  # no objects: `doctor.examine_samples` reports it
    tried = (_other_labels(case, now), _other_format(case, now), _other_scores(case))
    return [finding for finding in tried if finding]


def _other_labels(case: Case, now: float) -> Finding | None:
    from scipy.optimize import linear_sum_assignment

    counts = labels_said(case.truths, case.found, len(case.names)).T
    # A label without counts stays as it is.
    said, meant = linear_sum_assignment(-(counts + 1e-3 * torch.eye(len(counts))).numpy())
    label_of = [int(m) for _, m in sorted(zip(said, meant, strict=True))]
    then = case.with_labels(label_of).metrics().AP50
    if then < now + GAIN:
        return None
    moved = sorted((m, s) for s, m in enumerate(label_of) if s != m and counts[s].sum())
    pairs = ", ".join(f"{case.names[m]} is called {case.names[s]}" for m, s in moved[:3])
    shifts = {(s - m) % len(label_of) for m, s in moved}
    by = f" by {shifts.pop()}" if len(shifts) == 1 else ""
    return Finding(
        f"labels are shifted{by}: {pairs}; with permuted labels AP50 goes {now:.2f} → {then:.2f}",
        "train with the contiguous labels of `names`, not with category ids",
    )


def _other_format(case: Case, now: float) -> Finding | None:
    scores = {name: case.with_boxes(*how).metrics().AP50 for name, how in FORMATS.items()}
    name = max(scores, key=lambda n: scores[n])
    if scores[name] < now + GAIN:
        return None
    return Finding(
        f"boxes were learned as {name}: read so, AP50 goes {now:.2f} → {scores[name]:.2f}",
        "give boxes as centre, width and height in [0, 1] (boxes.cxcywh_from_xyxy)",
    )


def _other_scores(case: Case) -> Finding | None:
    right: list[float] = []
    objects = 0
    for truth, found in zip(case.truths, case.found, strict=True):
        overlaps = iou(truth.boxes_xyxy.float(), found.boxes_xyxy.float())
        fits = (overlaps >= FITS) & (truth.labels[:, None] == found.labels[None])
        objects += len(truth.labels)
        right += [float(found.scores[row].max()) for row in fits if bool(row.any())]
    if not objects or len(right) < 0.8 * objects:
        return None
    median = float(torch.tensor(right).median())
    if median >= TRUSTED:
        return None
    return Finding(
        f"{len(right)} of {objects} objects have the right box and label, but a median score of "
        f"{median:.2f}",
        "train longer, because boxes are learned first; then check class_weight and the class loss",
    )
