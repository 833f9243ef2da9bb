"""# The whole set: faults that only show in all boxes of a split together

Each annotation can be valid, and a model may still learn nothing from the set. All boxes may be
crowds, fractions in place of pixels, or corners in place of sizes. Such a set can be read, but not
used for training or evaluation: `data check`, `train` and `eval` stop with these findings.

All boxes of a split together show whether the four numbers mean what the format says:

| boxes are written as        | so, if we read them as left, top, width, height …                  |
|-----------------------------|--------------------------------------------------------------------|
| fractions of the picture    | most are smaller than a pixel                                      |
| corners, or swapped corners | some reach over the edge; read as corners, all lie in the picture  |
| centre and size             | some reach over the edge; read as centres, all lie in the picture  |
| another picture's pixels    | most reach over the edge, or lie outside                           |
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
from jaxtyping import Float

from rtdetr_lab.data import findings as rules
from rtdetr_lab.data.annotated import Annotated, Annotations, Picture, Reading
from rtdetr_lab.data.findings import Finding, Rule, Severity

Boxes = Float[np.ndarray, "A _"]

SLACK = 1.0
"""Pixels that a box may reach over the edge without a finding: rounding does this in COCO."""

ENOUGH, PLENTY = 4, 10
"""The fewest boxes for a finding about what they share (`ENOUGH`), or their scale (`PLENTY`)."""

FAR, MOST, SOME, NEARLY_ALL = 0.02, 0.5, 0.1, 0.99
"""`FAR`: too far over the edge for rounding, a part of the side. The others: shares of boxes."""

SMALL_PART = 0.5
"""If no box leaves this part of width and height, boxes may be percent, or pixels of a copy."""


def judged(annotations: Annotations) -> Annotations:
    """Return the annotations, with the findings about the whole set added."""
    found = annotations.findings
    if any(f.rule.severity is Severity.ERROR for f in found) and not annotations.pictures:
        return annotations  # nothing was read, so there are no boxes
    reading = Reading(annotations.path)
    _look_at_categories(annotations, reading)
    _look_at_boxes(annotations, reading)
    _look_at_set(annotations, reading)
    return replace(annotations, findings=(*found, *reading.findings))


def other_classes(splits: Mapping[str, Annotations]) -> Iterator[Finding]:
    """Yield a finding for each split that has other classes than the first split."""
    (name, first), *others = splits.items()
    for other_name, other in others:
        if first.names and other.names and first.names != other.names:
            what = f"{name} has the classes {', '.join(first.names)}, "
            what += f"{other_name} has {', '.join(other.names)}"
            yield Finding(rules.OTHER_CLASSES, str(other.path), what)


def too_many_objects(annotations: Annotations, num_queries: int) -> Iterator[Finding]:
    """Yield a finding if a picture has more objects than a model has queries."""
    over = [p for p in annotations.pictures if len(p.objects) > num_queries]
    if over:
        most = max(over, key=lambda p: len(p.objects))
        what = f"has {len(most.objects)} objects, but {num_queries} queries find at most "
        what += f"{num_queries} (too many in {len(over)} pictures)"
        yield Finding(rules.TOO_MANY, str(annotations.path), what, "picture", most.id)


def _look_at_categories(annotations: Annotations, reading: Reading) -> None:
    ids, names = annotations.category_ids, annotations.names
    if ids[:1] == (0,):
        reading.find(rules.ZERO_CATEGORY, f"{names[0]!r} has it", "category", 0)
    gaps = (n for one, following in pairwise(ids) for n in range(one + 1, following))
    some = list(islice(gaps, 12))
    if some:
        missing = ids[-1] - ids[0] + 1 - len(ids)
        listed = ", ".join(map(str, some)) + (" …" if missing > len(some) else "")
        what = f"from {ids[0]} to {ids[-1]}, {missing} numbers are not used: {listed}"
        reading.find(rules.GAPS, what)
    counts = Counter(a.label for p in annotations.pictures for a in p.objects)
    for label, name in enumerate(names):
        if not counts[label]:
            reading.find(rules.NO_BOXES, f"{name!r} has no boxes", "category", ids[label])
    for name, count in Counter(names).items():
        if count > 1:
            same = [i for i, n in zip(ids, names, strict=True) if n == name]
            reading.find(rules.SAME_NAME, f"ids {same} are called {name!r}", "category", same[1])
    if len(counts) == 1 and len(names) > 1 and counts.total() >= ENOUGH:
        (label,) = counts
        what = f"all {counts.total()} boxes are {names[label]!r}, one of {len(names)} classes"
        reading.find(rules.ONE_CLASS, what)


def _look_at_boxes(annotations: Annotations, reading: Reading) -> None:
    """Report single pictures and boxes that look wrong."""
    for picture in annotations.pictures:
        if not picture.annotations:
            reading.find(rules.NO_OBJECTS, "has no objects", "picture", picture.id)
        seen: dict[tuple[object, ...], int] = {}
        for a in picture.annotations:
            twin = seen.setdefault((a.label, a.box_xywh, a.is_crowd), a.id)
            for rule, what in _about_box(a, picture, twin):
                reading.find(rule, what, "annotation", a.id, picture=picture.id)


def _about_box(a: Annotated, picture: Picture, twin: int) -> Iterator[tuple[Rule, str]]:
    height, width = picture.size
    x, y, w, h = a.box_xywh
    box, on = list(a.box_xywh), f"picture {picture.id} of {width}×{height}"
    if a.id == 0:
        yield rules.ZERO_ANNOTATION, "has the id 0"
    over = max(-x, -y, x + w - width, y + h - height)
    if over > SLACK:
        yield rules.OVER_EDGE, f"{box} reaches {over:.3g} px over {on}"
    if min(w, h) < 1:
        yield rules.TINY, f"has the bbox {box} on {on}"
    if twin != a.id:
        yield rules.SAME_BOX, f"has the class and the bbox {box} of annotation {twin} on {on}"


def _look_at_set(annotations: Annotations, reading: Reading) -> None:
    """Report what makes a whole set useless, or suspicious."""
    pictures = annotations.pictures
    if not pictures:
        reading.find(rules.NO_PICTURES, "has no picture that can be used")
        return
    seen = [(a.box_xywh, p.size[::-1]) for p in pictures for a in p.objects]
    dropped = Counter(f.rule for f in annotations.findings if f.rule.severity is Severity.DROPPED)
    if not seen:
        why = ", ".join(f"{rule.name}: {count}" for rule, count in dropped.items())
        said = f"has {len(pictures)} pictures and no box that training sees"
        advice = "" if annotations.files else "put a text file per picture into labels/ (YOLO)"
        reading.find(rules.NOTHING, f"{said} ({why})" if why else said, advice=advice)
        return
    boxes, edges = (np.array(column, dtype=np.float64) for column in zip(*seen, strict=True))
    unusable = sum(dropped[rule] for rule in (rules.NO_AREA, rules.NEGATIVE, rules.OUTSIDE))
    for rule, what, advice in other_meaning(boxes, edges, unusable):
        reading.find(rule, what, advice=advice)
    empty = sum(not p.annotations for p in pictures)
    if empty > MOST * len(pictures):
        what = f"has {len(pictures)} pictures, {empty} of them without objects"
        reading.find(rules.MOSTLY_EMPTY, what)
    if len(boxes) >= ENOUGH and len(pictures) - empty >= ENOUGH and (boxes == boxes[0]).all():
        reading.find(rules.ONE_BOX, f"all {len(boxes)} boxes are {boxes[0].tolist()}")


def other_meaning(boxes: Boxes, edges: Boxes, unusable: int) -> Iterator[tuple[Rule, str, str]]:
    """Yield rule, observation and advice; nothing if the boxes are left, top, width, height.

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
        more = f", and {unusable} more lie outside or have no area" if unusable else ""
        yield rules.MISFIT, what + more, ""
    farthest = ((boxes[:, :2] + boxes[:, 2:]) / edges).max()
    if num >= PLENTY and farthest < SMALL_PART:
        seen = f"all {num} boxes lie in the upper left {farthest:.0%} of their pictures"
        yield rules.ONE_CORNER, seen, ""


def _corners(boxes: Boxes) -> Boxes:
    """Convert left, top, width, height to left, top, right, bottom."""
    return np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])


def _moved(boxes: Boxes, by: float) -> Boxes:
    """Move boxes by a part of their width and height."""
    return np.hstack([boxes[:, :2] + by * boxes[:, 2:], boxes[:, 2:]])


MEANINGS: dict[str, Callable[[Boxes], Boxes]] = {
    "left, top, right, bottom": lambda boxes: boxes,
    "right, bottom, left, top": lambda boxes: boxes[:, [2, 3, 0, 1]],
    "top, left, bottom, right": lambda boxes: boxes[:, [1, 0, 3, 2]],
    "top, left, height, width": lambda boxes: _corners(boxes[:, [1, 0, 3, 2]]),
    "centre, width, height": lambda boxes: _corners(_moved(boxes, -0.5)),
    # The last two stood in YOLO's text in place of a centre, so we had moved them by half a side.
    "left, top, width, height": lambda boxes: _corners(_moved(boxes, 0.5)),
    "left, top, right, bottom in YOLO's text": lambda boxes: _moved(boxes, 0.5),
}
"""Other meanings of four numbers, and how to get the corners from them."""


def _reach(corners: Boxes, edges: Boxes) -> Float[np.ndarray, "A"]:
    """Return by how many pixels boxes reach over the edge of their pictures; infinite for a box
    without area."""
    over = np.maximum(-corners[:, :2], corners[:, 2:] - edges).max(1)
    return np.where((corners[:, 2:] > corners[:, :2]).all(1), over, np.inf)
