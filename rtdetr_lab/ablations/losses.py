r"""# Losses: what should a score learn?

- **Paper**     RT-DETR §4.3, Table A; varifocal: Zhang et al. 2021; focal: Lin et al. 2017
- **Study**     `rtdetr-lab ablate losses`

The varifocal loss mixes two ideas: the IoU as target, and small weights for easy background. Three
losses, each with and without the IoU as target, separate the two.
"""

from typing import Any

from rtdetr_lab.ablations.variant import Put, Variant
from rtdetr_lab.losses import BinaryCrossEntropy, Focal, Varifocal

_LOSSES: dict[str, Any] = {"varifocal": Varifocal, "focal": Focal, "BCE": BinaryCrossEntropy}
_REASONS = {
    "varifocal": "Hard background counts, easy background does not, and good boxes count most.",
    "focal": "Weights fall on both sides: objects that are already found teach less.",
    "BCE": "Every class of every query has the same weight: the background dominates the objects.",
}

LOSSES = tuple(
    Variant(
        f"{name}, target {'IoU' if target else '1'}",
        Put("criterion.classification", loss(iou_target=target)),
        f"{_REASONS[name]} "
        + ("Scores rank by quality." if target else "Scores only mean that an object is there."),
    )
    for name, loss in _LOSSES.items()
    for target in (True, False)
)
"""Three losses × two targets; the first is the base."""
