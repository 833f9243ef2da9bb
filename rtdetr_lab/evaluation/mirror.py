"""# Mirror: which classes become each other in a mirror?

Training mirrors half of the pictures. An arrow to the left is then an arrow to the right, but keeps
its label. So we ask the model twice, about every picture and about its mirror image, and compare
the best-scored label on each object:

| two classes on the pictures | in the mirror | so                                            |
|-----------------------------|---------------|-----------------------------------------------|
| told apart                  | exchanged     | they are mirror images of each other          |
| a quarter is exchanged      | the same      | the model cannot tell them apart: they may be |
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rtdetr_lab.boxes import iou
from rtdetr_lab.data.batch import Truth
from rtdetr_lab.images.postprocess import Found

FEW, OFTEN = 2, 0.25
"""Objects of each class that we need, and the share of them that is called the other class."""


def turned_back(found: Found, width: int) -> Found:
    """Return what was found in a mirrored picture, in the frame of the picture."""
    x0, y0, x1, y1 = found.boxes_xyxy.unbind(1)
    return replace(found, boxes_xyxy=torch.stack([width - x1, y0, width - x0, y1], 1))


def labels_said(
    truths: Sequence[Truth], found: Sequence[Found], classes: int
) -> Int[Tensor, "K K"]:
    """Count objects by their class (row) and the best-scored label on them at an IoU of 0.5."""
    counts = torch.zeros(classes, classes, dtype=torch.long)
    for truth, one in zip(truths, found, strict=True):
        fits = iou(truth.boxes_xyxy.float(), one.boxes_xyxy.float().cpu()) >= 0.5
        for label, row in zip(truth.labels.tolist(), fits, strict=True):
            if bool(row.any()):
                counts[label, int(one.labels[(one.scores.cpu() * row).argmax()])] += 1
    return counts


def about_mirror(
    plain: Int[Tensor, "K K"], mirrored: Int[Tensor, "K K"], names: Sequence[str]
) -> list[str]:
    """Return a sentence for every pair of classes that the mirror, or the model, exchanges."""
    said = []
    now, then = map(_exchanged, (plain, mirrored))
    apart, alike = (now < OFTEN) & (then > 1 - OFTEN), (now >= OFTEN) & (then >= OFTEN)
    for a, b in (apart | alike).triu(1).nonzero().tolist():
        both = f"{names[a]} and {names[b]}"
        if apart[a, b]:
            said.append(f"in a mirror, {both} become each other: do not mirror them (--no-flip)")
        else:
            why = "if they are mirror images of each other, train with --no-flip"
            said.append(f"{both} are taken for each other: {why}")
    return said


def _exchanged(counts: Int[Tensor, "K K"]) -> Float[Tensor, "K K"]:
    """Return the smaller of two shares: of a that is called b, and of b that is called a."""
    totals = counts.sum(1, keepdim=True)
    share = (counts / totals.clamp(min=1)).where(totals >= FEW, 0.0)
    return torch.minimum(share, share.T)
