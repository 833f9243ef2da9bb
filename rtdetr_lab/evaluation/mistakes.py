"""# Mistakes: what is wrong with the detections in one picture

AP is one number; to repair a detector we must see *what* it does. At a threshold of the score and
an IoU of 0.5, every detection and every object gets one of five names:

| kind         | given to          | meaning                                                     |
|--------------|-------------------|-------------------------------------------------------------|
| `RIGHT`      | detection, object | the best-scored free one that fits an object of its class   |
| `CONFUSION`  | detection, object | fits an object that is not found yet, but has another class |
| `DUPLICATE`  | detection         | fits only objects that are found already                    |
| `BACKGROUND` | detection         | fits nothing                                                |
| `MISS`       | object            | no detection fits it                                        |

Right detections choose before confused ones, so that a wrong class does not hide a right one. A
detection that lies in a crowd and fits nothing else is no mistake. The number of mistakes is the
sum of confusions, duplicates, background and misses.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from rtdetr_lab.boxes import iou
from rtdetr_lab.data.batch import Truth
from rtdetr_lab.images.postprocess import Found, covered

RIGHT, CONFUSION, DUPLICATE = "right", "confusion", "duplicate"
BACKGROUND, MISS, IN_CROWD = "background", "miss", "in a crowd"
MISTAKES = (MISS, CONFUSION, DUPLICATE, BACKGROUND)


@dataclass(frozen=True, eq=False)
class Judgement:
    """The kind of every detection and object in one picture, and (object, detection) pairs."""

    truth: Truth
    found: Found
    of_found: tuple[str, ...]
    of_objects: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]

    @property
    def counts(self) -> Counter[str]:
        """Number of mistakes of every kind."""
        return Counter(k for k in (*self.of_found, *self.of_objects) if k in MISTAKES) - Counter(
            {CONFUSION: self.of_objects.count(CONFUSION)}  # one mistake has two sides
        )

    @property
    def num_mistakes(self) -> int:
        """Number of all mistakes, by which the worst pictures are found."""
        return self.counts.total()


def judge(truth: Truth, found: Found, min_iou: float = 0.5) -> Judgement:
    """Classify what was `found` in a picture, in the order of scores, the best first."""
    found = found.at(found.scores.argsort(descending=True, stable=True))
    overlaps = iou(found.boxes_xyxy.cpu().double(), truth.boxes_xyxy.double())
    same = found.labels.cpu()[:, None] == truth.labels[None]
    fits = (overlaps >= min_iou) & ~truth.is_crowd[None]
    pairs = _greedy(overlaps, fits & same, {})
    right = dict(pairs)
    pairs |= _greedy(overlaps, fits & ~same, pairs)
    owner = {answer: n for n, answer in pairs.items()}
    crowds = truth.boxes_xyxy[truth.is_crowd].double()
    in_crowd = share_inside(found.boxes_xyxy.cpu().double(), crowds) >= min_iou
    of_found = []
    for answer in range(len(found)):
        if answer in owner:
            of_found.append(RIGHT if owner[answer] in right else CONFUSION)
        elif bool(fits[answer].any()):
            of_found.append(DUPLICATE)
        else:
            of_found.append(IN_CROWD if bool(in_crowd[answer]) else BACKGROUND)
    crowd = truth.is_crowd.tolist()
    of_objects = [
        IN_CROWD if crowd[n] else RIGHT if n in right else CONFUSION if n in pairs else MISS
        for n in range(len(crowd))
    ]
    return Judgement(truth, found, tuple(of_found), tuple(of_objects), tuple(pairs.items()))


def _greedy(overlaps: torch.Tensor, may: torch.Tensor, taken: dict[int, int]) -> dict[int, int]:
    """Match detections to objects, in order: each takes the free object that it overlaps most."""
    chosen, busy = dict[int, int](), set(taken.values())
    for answer in range(len(may)):
        free = [n for n in may[answer].nonzero().flatten().tolist() if n not in taken | chosen]
        if free and answer not in busy:
            chosen[max(free, key=lambda n: float(overlaps[answer, n]))] = answer
    return chosen


def share_inside(
    boxes: Float[torch.Tensor, "n 4"], crowds: Float[torch.Tensor, "m 4"]
) -> Float[torch.Tensor, "n"]:
    """Return the largest part of every box that lies in one crowd; corners in pixels."""
    return covered(boxes, crowds).amax(1) if len(crowds) else boxes.new_zeros(len(boxes))


def confusion_matrix(judgements: list[Judgement], num_classes: int) -> Int[np.ndarray, "R K"]:
    """Count detections and objects by class.

    Rows are true classes, "found already" and "nothing there"; columns are predicted classes and
    "not found".
    """
    counts = np.zeros((num_classes + 2, num_classes + 1), dtype=np.int64)
    for one in judgements:
        truth, labels = one.truth.labels.tolist(), one.found.labels.tolist()
        for n, answer in one.pairs:
            counts[truth[n], labels[answer]] += 1
        for label, kind in zip(truth, one.of_objects, strict=True):
            counts[label, num_classes] += kind == MISS
        for label, kind in zip(labels, one.of_found, strict=True):
            counts[num_classes, label] += kind == DUPLICATE
            counts[num_classes + 1, label] += kind == BACKGROUND
    return counts
