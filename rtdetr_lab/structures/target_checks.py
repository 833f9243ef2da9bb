r"""# Target checks: can a detector learn from this batch?

Wrong targets do not crash: the model learns from them. Examples are boxes in pixels, corners
instead of centre and size, and labels that are category ids. So every batch is checked when it is
made. At that point it is easiest to name the wrong picture and box.

| problem                                  | the error names                  |
|------------------------------------------|----------------------------------|
| different numbers of labels, boxes and masks | `targets`, `targets.boxes[1]` |
| a shape other than T × 4, T × H × W      | `targets.boxes[1]`, `.masks[1]`  |
| labels that are not whole numbers        | `targets.labels[1]`              |
| NaN or infinite coordinates              | `targets.boxes[1][4]`            |
| a coordinate outside [0, 1]: pixels      | `targets.boxes[1][4]`            |
| no width or no height                    | `targets.boxes[1][4]`            |
| a label that is no class of the model    | `targets.labels[1][4]`           |

For a good batch, one comparison covers all its boxes. Only a bad batch is searched box by box.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rtdetr_lab.errors import TargetError, converting

SLACK = 1e-3
"""Rounding may move a coordinate this far out of the picture."""


def as_labels(values: Any, picture: int) -> Tensor:
    """Convert labels to whole numbers; raise `TargetError` if that would change them."""
    labels = _tensor(values, f"targets.labels[{picture}]").reshape(-1)
    if labels.is_complex() or bool((labels != labels.long()).any()):
        what = f"{labels.tolist()[:3]} are not whole numbers"
        raise TargetError(f"targets.labels[{picture}]", what, "give one class number per object")
    return labels.long()


def as_boxes(values: Any, picture: int) -> Tensor:
    """Convert boxes to floats of shape T × 4; four plain numbers are one box."""
    boxes = _tensor(values, f"targets.boxes[{picture}]") * 1.0
    alone = boxes.ndim == 1 and len(boxes) == 4
    return boxes.reshape(-1, 4) if alone or not boxes.numel() else boxes


def as_masks(values: Any, picture: int) -> Tensor:
    """Convert masks to truth values of shape T × H × W; raise `TargetError` for other shapes."""
    masks = _tensor(values, f"targets.masks[{picture}]")
    if masks.ndim != 3:
        what = f"has shape {tuple(masks.shape)}"
        raise TargetError(f"targets.masks[{picture}]", what, "masks are (T, height, width)")
    return masks.bool()


def _tensor(values: Any, where: str) -> Tensor:
    kinds = (TypeError, ValueError, RuntimeError)  # torch raises any of these
    what = f"is a {type(values).__name__} without numbers ({{}})"
    with converting(kinds, TargetError, where, what, "give a tensor or a list"):
        return torch.as_tensor(values)


def check_pictures(
    labels: Sequence[Tensor], boxes: Sequence[Tensor], masks: Sequence[Tensor] | None
) -> None:
    """Raise `TargetError` unless every picture has as many labels as boxes (and masks).

    Every box must also be a centre and a size in fractions of its picture.
    """
    for name, others in (("boxes", boxes), ("masks", masks)):
        if others is not None and len(others) != len(labels):
            raise TargetError(
                "targets",
                f"{len(labels)} pictures have labels and {len(others)} have {name}",
                f"give {name} for every picture, and an empty entry for a picture without objects",
            )
    for picture, one in enumerate(boxes):
        where = f"targets.boxes[{picture}]"
        if one.ndim != 2 or one.shape[-1] != 4:
            raise TargetError(where, f"has shape {tuple(one.shape)}", "boxes are (T, 4)")
        counts = {"boxes": len(one), "labels": len(labels[picture])}
        if masks is not None:
            counts["masks"] = len(masks[picture])
        if len(set(counts.values())) > 1:
            found = " and ".join(f"{count} {name}" for name, count in counts.items())
            raise TargetError(where, f"there are {found}", "give every object one of each")
    if boxes and not _are_plausible(torch.cat(list(boxes))):
        raise _first_bad_box(boxes)


def _are_plausible(boxes: Tensor) -> bool:
    # A comparison with NaN is false, so this also rejects NaN and infinity.
    inside = (boxes >= -SLACK) & (boxes <= 1 + SLACK)
    return bool(inside.all() & (boxes[:, 2:] > 0).all())


def _first_bad_box(boxes: Sequence[Tensor]) -> TargetError:
    picture = next(i for i, one in enumerate(boxes) if not _are_plausible(one))
    bad = next(i for i, box in enumerate(boxes[picture]) if not _are_plausible(box[None]))
    where, values = f"targets.boxes[{picture}][{bad}]", boxes[picture][bad].tolist()
    box = f"({', '.join(f'{v:g}' for v in values)})"
    if not bool(torch.isfinite(boxes[picture][bad]).all()):
        return TargetError(where, f"{box} is not finite", "remove the broken box")
    if not all(-SLACK <= v <= 1 + SLACK for v in values):
        return TargetError(
            where,
            f"{box} leaves the picture; centre, width and height are fractions of it, in [0, 1]",
            "divide pixels by the picture's width and height, and turn corners into centre and "
            "size with boxes.cxcywh_from_xyxy",
        )
    return TargetError(where, f"{box} has no width or no height", "drop boxes without area")


def check_labels(labels: Sequence[Tensor], num_classes: int) -> None:
    """Raise `TargetError` unless every label is one of the model's classes."""
    if not labels:
        return
    together = torch.cat(list(labels))
    if not bool(((together < 0) | (together >= num_classes)).any()):
        return
    for picture, one in enumerate(labels):
        for i, label in enumerate(one.tolist()):
            if not 0 <= label < num_classes:
                raise TargetError(
                    f"targets.labels[{picture}][{i}]",
                    f"label {label} is outside 0 … {num_classes - 1}",
                    "map category ids to contiguous labels, or build with more num_classes",
                )
