"""What counts as a configuration, and when two measured models differ."""

import dataclasses
import math


def is_configuration(item, module):
    """Frozen, compared by value, and defined there."""
    if not dataclasses.is_dataclass(item) or item.__module__ != module.__name__:
        return False
    return item.__dataclass_params__.frozen and item.__dataclass_params__.eq


def differ(a, b):
    if a["weights"] != b["weights"] or len(a["answer"]) != len(b["answer"]):
        return True
    numbers = [*zip(a["answer"], b["answer"], strict=True)]
    for part in ("terms", "gradients"):
        if a[part].keys() != b[part].keys():
            return True
        numbers += [(a[part][n], b[part][n]) for n in a[part]]
    return any(not math.isclose(x, y, rel_tol=1e-4, abs_tol=1e-6) for x, y in numbers)
