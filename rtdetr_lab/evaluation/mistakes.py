"""# Mistakes: what is wrong with the answers to one picture

AP is one number; to repair a detector one has to see *what* it does. At a threshold of the score
and an IoU of 0.5 every answer and every object gets one of five names:

| kind         | who            | what                                                            |
|--------------|----------------|-----------------------------------------------------------------|
| `RIGHT`      | answer, object | the best-scored free answer of the object's class that fits it  |
| `CONFUSION`  | answer, object | fits an object nobody has found, but under another class        |
| `DUPLICATE`  | answer         | fits only objects that are found already                        |
| `BACKGROUND` | answer         | fits nothing                                                    |
| `MISS`       | object         | nobody fits it                                                  |

Right answers choose before confused ones, so that a wrong name does not hide a right one. An answer
that lies in a crowd and fits nothing else is no mistake. The number of mistakes is that of
confusions, duplicates, background and misses together.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from rtdetr_lab.boxes import iou
from rtdetr_lab.data.batch import Truth
from rtdetr_lab.images.postprocess import Found

RIGHT, CONFUSION, DUPLICATE = "right", "confusion", "duplicate"
BACKGROUND, MISS, IN_CROWD = "background", "miss", "in a crowd"
MISTAKES = (MISS, CONFUSION, DUPLICATE, BACKGROUND)


@dataclass(frozen=True, eq=False)
class Judgement:
    """One picture: a kind per answer and per object, and (object, answer) pairs."""

    truth: Truth
    found: Found
    of_found: tuple[str, ...]
    of_objects: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]

    @property
    def counts(self) -> Counter[str]:
        """How many mistakes of every kind."""
        return Counter(k for k in (*self.of_found, *self.of_objects) if k in MISTAKES) - Counter(
            {CONFUSION: self.of_objects.count(CONFUSION)}  # one mistake has two sides
        )

    @property
    def num_mistakes(self) -> int:
        """By this the worst pictures are found."""
        return self.counts.total()


def judge(truth: Truth, found: Found, min_iou: float = 0.5) -> Judgement:
    """What is wrong with what was `found` in a picture, best first."""
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
    """Object → answer: answers in order, each takes the free object it overlaps most."""
    chosen, busy = dict[int, int](), set(taken.values())
    for answer in range(len(may)):
        free = [n for n in may[answer].nonzero().flatten().tolist() if n not in taken | chosen]
        if free and answer not in busy:
            chosen[max(free, key=lambda n: float(overlaps[answer, n]))] = answer
    return chosen


def share_inside(
    boxes: Float[torch.Tensor, "n 4"], crowds: Float[torch.Tensor, "m 4"]
) -> Float[torch.Tensor, "n"]:
    """The largest part of a box that lies in one crowd; corners in pixels."""
    if not len(crowds):
        return boxes.new_zeros(len(boxes))
    low = torch.maximum(boxes[:, None, :2], crowds[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], crowds[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(-1).clamp(min=1e-9)
    return (shared / area[:, None]).amax(1)


def confusion_matrix(judgements: list[Judgement], num_classes: int) -> Int[np.ndarray, "K K"]:
    """Rows are true classes and "nothing there", columns answers and "not found"."""
    counts = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    for one in judgements:
        truth, labels = one.truth.labels.tolist(), one.found.labels.tolist()
        for n, answer in one.pairs:
            counts[truth[n], labels[answer]] += 1
        for label, kind in zip(truth, one.of_objects, strict=True):
            counts[label, num_classes] += kind == MISS
        for label, kind in zip(labels, one.of_found, strict=True):
            counts[num_classes, label] += kind in (DUPLICATE, BACKGROUND)
    return counts
