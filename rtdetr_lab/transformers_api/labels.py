r"""# Labels: theirs to our `Targets`

One mapping per picture, with `class_labels`, `boxes` (cxcywh, fractions) and, for masks, `masks`.
What `Targets` and the model refuse (pixels, unknown classes, masks of another size, other counts)
they refuse with a `TargetError`; here is only what can be wrong before that.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from rtdetr_lab.errors import TargetError
from rtdetr_lab.structures import Targets

NAMES = ("class_labels", "boxes")


def targets_of(labels: Any, device: torch.device, masks: bool = False) -> Targets:
    """Our `Targets` of their `labels`. Raises `TargetError`."""
    if isinstance(labels, Mapping) or not isinstance(labels, Sequence):
        what = f"is a {type(labels).__name__}"
        raise TargetError("labels", what, "give a list with one dictionary per picture")
    pictures = []
    needed = (*NAMES, "masks") if masks else NAMES
    for i, one in enumerate(labels):
        missing = [n for n in needed if n not in one] if isinstance(one, Mapping) else needed
        if missing:
            what = f"has no {', '.join(missing)}"
            raise TargetError(f"labels[{i}]", what, "give the dictionaries the processor makes")
        named = {"labels": one["class_labels"], "boxes": one["boxes"]}
        pictures.append(named | ({"masks": one["masks"]} if masks else {}))
    return Targets.of(pictures).to(device)
