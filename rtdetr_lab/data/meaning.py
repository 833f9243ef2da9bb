"""# Meaning: whether four numbers are what the format says, judged by all boxes of a split

| boxes are written as        | and so, read as left, top, width, height …                         |
|-----------------------------|--------------------------------------------------------------------|
| fractions of the picture    | most are smaller than a pixel                                      |
| corners, or corners swapped | some reach over the edge; read as corners, all lie in the picture  |
| centre and size             | some reach over the edge; read as centres, all lie in the picture  |
| another picture's pixels    | most reach over the edge, or lie outside                           |
"""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float

from rtdetr_lab.data import findings as rules
from rtdetr_lab.data.findings import Rule

Boxes = Float[np.ndarray, "A _"]

SLACK = 1.0
"""Pixels a box may reach over the edge before we mention it: COCO's own do, by rounding."""

ENOUGH, PLENTY = 4, 10
"""From so many boxes on we say what they have in common, and that they fit nothing."""

FAR, MOST, SOME, NEARLY_ALL = 0.02, 0.5, 0.1, 0.99
"""How far over the edge is no rounding (a part of the side), and how many boxes make a rule."""

SMALL_PART = 0.5
"""Of width and height, that no box leaves: percents, or pixels of a smaller copy."""


def other_meaning(boxes: Boxes, edges: Boxes, unusable: int) -> Iterator[tuple[Rule, str, str]]:
    """Rule, what was seen, and what to do; nothing if the boxes are left, top, width, height.

    `edges` are (width, height) of the picture of each box; `unusable` boxes were dropped before.
    """
    num, small = len(boxes), int((boxes[:, 2:].min(1) < 1).sum())
    if small > MOST * num:
        what = f"{small} of {num} boxes are smaller than a pixel, such as {boxes[0].tolist()}"
        fractions = (boxes[:, :2] + boxes[:, 2:]).max() <= 1 + FAR
        advice = "multiply x and width by the picture's width, y and height by its height"
        yield rules.FRACTIONS, what, advice if fractions else ""
        return
    far = SLACK + FAR * edges.max(1)
    num_over = int((_reach(_corners(boxes), edges) > far).sum())
    what = f"{num_over} of {num} boxes reach far over the edge"
    if num >= ENOUGH and num_over > max(1, SOME * num):
        for meaning, corners in MEANINGS.items():
            if (_reach(corners(boxes), edges) <= SLACK).mean() >= NEARLY_ALL:
                yield rules.MISREAD, f"{what}; read as {meaning}, all are inside", ""
                return
    if num + unusable >= PLENTY and num_over + unusable > MOST * (num + unusable):
        more = f", {unusable} more lie outside or have no area" if unusable else ""
        yield rules.MISFIT, what + more, ""
    farthest = ((boxes[:, :2] + boxes[:, 2:]) / edges).max()
    if num >= PLENTY and farthest < SMALL_PART:
        seen = f"all {num} boxes lie in the upper left {farthest:.0%} of their pictures"
        yield rules.ONE_CORNER, seen, ""


def _corners(boxes: Boxes) -> Boxes:
    """Left, top, right, bottom of left, top, width, height."""
    return np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])


def _moved(boxes: Boxes, by: float) -> Boxes:
    """Boxes moved by a part of their width and height."""
    return np.hstack([boxes[:, :2] + by * boxes[:, 2:], boxes[:, 2:]])


MEANINGS: dict[str, Callable[[Boxes], Boxes]] = {
    "left, top, right, bottom": lambda boxes: boxes,
    "right, bottom, left, top": lambda boxes: boxes[:, [2, 3, 0, 1]],
    "top, left, bottom, right": lambda boxes: boxes[:, [1, 0, 3, 2]],
    "top, left, height, width": lambda boxes: _corners(boxes[:, [1, 0, 3, 2]]),
    "centre, width, height": lambda boxes: _corners(_moved(boxes, -0.5)),
    # From here on: what stood in YOLO's text in place of a centre, which we moved by half a side.
    "left, top, width, height": lambda boxes: _corners(_moved(boxes, 0.5)),
    "left, top, right, bottom in YOLO's text": lambda boxes: _moved(boxes, 0.5),
}
"""What else four numbers may mean, and the corners that follow."""


def _reach(corners: Boxes, edges: Boxes) -> Float[np.ndarray, "A"]:
    """By how many pixels boxes reach over the edge of their pictures; infinite without an area."""
    over = np.maximum(-corners[:, :2], corners[:, 2:] - edges).max(1)
    return np.where((corners[:, 2:] > corners[:, :2]).all(1), over, np.inf)
