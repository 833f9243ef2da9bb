r"""# Processor checks: numbers that no picture can be prepared with

They are looked at when a processor is made, and when a call changes an option: afterwards numpy
would broadcast two means over three colours, or divide by zero, or complain about a `ufunc`.
"""

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

from rtdetr_lab.config import require


def check_numbers(processor: Any) -> None:
    """Raise `ConfigError` naming the option that is wrong."""
    at = f"{type(processor).__name__}[{{}}]".format
    factor = processor.rescale_factor
    require(_positive(factor), at("rescale_factor"), f"is {factor!r}", "give a number, as 1 / 255")
    for name, least in (("image_mean", -math.inf), ("image_std", 0.0)):
        values = getattr(processor, name)
        listed = values if isinstance(values, list | tuple) else (values,)
        fits = len(listed) in (1, 3) and all(_number(v) and v > least for v in listed)
        remedy = "give one number, or one for each of three colours; a spread is positive"
        require(fits, at(name), f"is {values!r}", remedy)
    room = processor.pad_size
    sides = room is None or (isinstance(room, Mapping) and {"height", "width"} <= set(room))
    remedy = 'give {"height": …, "width": …}'
    require(sides, at("pad_size"), f"is {room!r}", remedy)
    known = isinstance(processor.size, Mapping | int)
    require(known, at("size"), f"is {processor.size!r}", "give a mapping, or one number")


def _number(value: Any) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def _positive(value: Any) -> bool:
    return _number(value) and value > 0
