r"""# Losses: what should a score be taught?

- **Paper**     RT-DETR §4.3, Table A; varifocal: Zhang et al. 2021; focal: Lin et al. 2017
- **Study**     `rtdetr-lab ablate losses`

Two ideas are mixed in varifocal: the IoU as target, and weights that silence the easy background.
Three losses, each with and without the IoU as target, take them apart.
"""

from collections.abc import Callable

from rtdetr_lab.ablations.variant import Put, Variant
from rtdetr_lab.losses import BinaryCrossEntropy, ClassLoss, Focal, Varifocal

_REASONS: tuple[tuple[str, Callable[[bool], ClassLoss], str], ...] = (
    (
        "varifocal",
        lambda target: Varifocal(iou_target=target),
        "Hard background counts, easy background does not, and good boxes count most.",
    ),
    (
        "focal",
        lambda target: Focal(iou_target=target),
        "Weights that fade on both sides: objects that are found already teach less.",
    ),
    (
        "BCE",
        lambda target: BinaryCrossEntropy(iou_target=target),
        "Every class of every query counts the same: the background outvotes the objects.",
    ),
)

LOSSES = tuple(
    Variant(
        f"{name}, target {'IoU' if target else '1'}",
        Put("criterion.classification", make(target)),
        f"{reason} " + ("Scores rank by quality." if target else "Scores only say: it is there."),
    )
    for name, make, reason in _REASONS
    for target in (True, False)
)
"""Three losses × two targets; the first is the base."""
