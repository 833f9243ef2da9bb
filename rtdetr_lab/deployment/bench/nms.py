"""# NMS: what suppression costs (RT-DETR §3.1, Fig. 2 and Table 1, in miniature)

A YOLO predicts thousands of boxes. The number that passes the confidence threshold depends on the
picture, and so does the time of the suppression. The top-k of a DETR is the same work for every
picture.

To be fair, we make the suppression as fast as torch allows:

- It first drops pairs of box and class below the confidence threshold, then keeps the 30,000 best.
- It moves boxes of different classes apart, so that one pass serves all classes.
- It walks down the sorted list in blocks. It compares a block with the boxes that are kept already,
  and then with itself. For the second step it applies one rule to the whole block until nothing
  changes: a box stays if no better box that stays overlaps it. That is the greedy rule. It takes as
  many rounds as the longest chain of boxes in which each would remove the next.
- It stops as soon as `most` boxes are kept.
"""

from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rtdetr_lab.boxes import iou, xyxy_from_cxcywh
from rtdetr_lab.deployment.bench.timing import CLOCKS, Subject, Times, interleaved
from rtdetr_lab.images.postprocess import ranked_table
from rtdetr_lab.model import by_sigmoid

BLOCK = 256
"""Boxes per block: the fastest of 64 … 1024 for lists of 50 to 4,000."""

TOP_K = "our top-k of 300 × 80"


def nms(
    boxes_xyxy: Float[Tensor, "n 4"],
    scores: Float[Tensor, "n C"],
    confidence: float,
    max_iou: float,
    most: int = 300,
    most_pairs: int = 30_000,
) -> tuple[Int[Tensor, " k"], Int[Tensor, " k"]]:
    """Suppress greedily per class: return rows and classes of the kept boxes, best first."""
    row, label = (scores > confidence).nonzero().unbind(1)
    order = scores[row, label].argsort(descending=True, stable=True)[:most_pairs]
    row, label = row[order], label[order]
    found = boxes_xyxy[row]
    span = found.max() - found.min() + 1 if len(found) else 0
    stays = greedy(found + (label * span).unsqueeze(1), max_iou, most)
    return row[stays], label[stays]


def greedy(
    boxes_xyxy: Float[Tensor, "n 4"], max_iou: float, most: int, block: int = BLOCK
) -> Int[Tensor, " k"]:
    """Return the indices of the kept boxes of a list that is sorted, best first."""
    standing, kept = boxes_xyxy[:0], torch.arange(0, device=boxes_xyxy.device)
    for first in range(0, len(boxes_xyxy), block):
        here = boxes_xyxy[first : first + block]
        free = (iou(here, standing) <= max_iou).all(1).nonzero().squeeze(1)
        free = free[settled(iou(here[free], here[free]) > max_iou)]
        kept = torch.cat([kept, free + first])
        standing = torch.cat([standing, here[free]])
        if len(kept) >= most:
            break
    return kept[:most]


def settled(overlaps: Bool[Tensor, "n n"]) -> Bool[Tensor, " n"]:
    """Return which boxes stay: a box that stays removes every later box that it overlaps."""
    removes = overlaps.triu(1)
    stays = removes.new_ones(len(removes))
    while True:
        now = ~removes[stays].any(0)
        if torch.equal(now, stays):
            return stays
        stays = now


def dense_answer(
    count: int, num_classes: int = 80, num_objects: int = 20, seed: int = 0
) -> tuple[Float[Tensor, "n 4"], Float[Tensor, "n C"]]:
    """Make an output that a dense head might give for a picture of 640².

    Every box belongs to an object and is a little off; most scores are low.
    """
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    objects = torch.cat([0.2 + 0.6 * rand(num_objects, 2), 0.05 + 0.3 * rand(num_objects, 2)], 1)
    classes = torch.randint(num_classes, (num_objects,), generator=generator)
    which = torch.randint(num_objects, (count,), generator=generator)
    size = objects[which, 2:]
    centre = objects[which, :2] + size * 0.3 * (rand(count, 2) - 0.5)
    boxes = torch.cat([centre, size * (0.7 + 0.6 * rand(count, 2))], 1)
    scores = 1e-4 * rand(count, num_classes)
    scores[torch.arange(count), classes[which]] = rand(count) ** 12
    return 640 * xyxy_from_cxcywh(boxes), scores


def bench_nms(
    counts: tuple[int, ...] = (300, 1000, 3000, 8400),
    confidences: tuple[float, ...] = (0.001, 0.01, 0.05, 0.25),
    max_ious: tuple[float, ...] = (0.5, 0.7),
    rounds: int = 5,
    clock: str = "wall",
) -> dict[str, Times]:
    """Time suppression by "boxes, confidence, IoU", and the top-k that needs none."""
    subjects: dict[str, Subject] = {}
    for count in counts:
        boxes, scores = dense_answer(count)
        for confidence in confidences:
            above = int((scores > confidence).sum())
            for most in max_ious:
                name = f"NMS of {count}, score > {confidence} ({above}), IoU ≤ {most}"
                subjects[name] = partial(nms, boxes, scores, confidence, most)
    logits, boxes = torch.randn(1, 300, 80), torch.rand(1, 300, 4)
    sizes = torch.tensor([[480.0, 640.0]])
    subjects[TOP_K] = lambda: ranked_table(by_sigmoid, logits, boxes, sizes)
    return interleaved(subjects, rounds, 1, clock=CLOCKS[clock])
