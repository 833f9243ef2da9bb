"""# Drifts: what lower precision changes in detections, for every backend that supports it

The pictures are validation pictures of the shapes world. nano was trained on that world and finds
its objects. The other presets get random weights that give varied outputs (`spread.py`). No trained
model has scores as near to every threshold, so their drift is about as large as it gets.
"""

import copy
from functools import partial
from typing import Any

import torch
from torch import nn

from rtdetr_lab.data.shapes import DEFAULT, VAL, draw
from rtdetr_lab.deployment.bench.spread import spread
from rtdetr_lab.deployment.bench.subjects import Case, model_of
from rtdetr_lab.deployment.fastest import offered
from rtdetr_lab.deployment.precision import Drift, drift
from rtdetr_lab.errors import MissingExtraError


def drifts(case: Case, count: int, threshold: float = 0.5) -> dict[str, Drift]:
    """Measure what each lower precision of the device changes on the first `count` pictures."""
    model, pictures = model_that_finds(case), [draw(DEFAULT, VAL, i).image for i in range(count)]
    run = partial(drift, model, pictures, case.size, device=case.device, threshold=threshold)
    half = [torch.bfloat16] if case.device == "cpu" else [torch.bfloat16, torch.float16]
    found = {}
    for choice in offered(case.device, half):
        try:
            found[choice.name] = run(dtype=choice.dtype, backend=choice.backend)
        except MissingExtraError:
            continue
    return found


def model_that_finds(case: Case) -> nn.Module:
    """Return the trained nano, or random weights that give varied outputs."""
    if case.preset == "nano":
        from rtdetr_lab.checkpoints.load import load_pretrained

        return load_pretrained("nano")
    return spread(copy.deepcopy(model_of(case.preset)))


def plain_drift(found: Drift) -> dict[str, Any]:
    """Convert a drift for the JSON record."""
    counts = {k: v for k, v in vars(found).items() if isinstance(v, int | float)}
    shift, change = (v.max().item() if len(v) else 0.0 for v in (found.shifts, found.changes))
    return {**counts, "max_shift_px": shift, "max_score_change": change}
