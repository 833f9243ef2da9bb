"""# Presets: the architectures that the command line can name"""

from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from rtdetr_lab.config import require

SIZES = ("r18", "r34", "r50_m", "r50", "r101")
HGNET_SIZES = ("l", "x")
DFINE_WORDS = ("nano", "small", "medium", "large", "xlarge")
"""D-FINE's sizes, as the names of its checkpoints say them."""
DFINE_SIZES = tuple(f"dfine_{word[0]}" for word in DFINE_WORDS)
V3_SIZES = ("r18", "r34", "r50", "r101")
NANOS = ("nano", "dfine_nano")
DETR_SIZES = ("r50", "r101", "r50_dc5", "r101_dc5")
PRESETS = {
    "nano": ("rtdetr:rtdetr_nano", "256"),
    **{size: (f"rtdetr:rtdetr_{size}", "640") for size in SIZES},
    **{f"v2_{size}": (f"rtdetrv2:rtdetrv2_{size}", "640") for size in SIZES},
    **{size: (f"successors.hgnetv2:rtdetr_{size}", "640") for size in HGNET_SIZES},
    **{size: (f"successors.dfine:{size}", "640") for size in DFINE_SIZES},
    **{f"v3_{size}": (f"successors.rtdetrv3:rtdetrv3_{size}", "640") for size in V3_SIZES},
    "dfine_nano": ("successors.dfine:dfine_nano", "256"),
    "nano_seg": ("masks.query_masks:rtdetr_nano_seg", "256"),
    "detr_nano": ("detr.model:detr_nano", "256"),
    **{f"detr_{size}": (f"detr.model:detr_{size}", "800") for size in DETR_SIZES},
}
"""Name → module and function of the preset, and the picture size of its model."""


def function_of(name: str, option: str = "--preset") -> Callable[..., Any]:
    """Return the preset with this name; the `ConfigError` of an unknown name points to `option`."""
    near = get_close_matches(name, PRESETS, n=2, cutoff=0.6)
    nearest = f"did you mean {' or '.join(near)}? " if near else ""
    remedy = f"{nearest}use one of {', '.join(PRESETS)}"
    require(name in PRESETS, option, f"{name!r} is not a preset", remedy)
    module, _, function = PRESETS[name][0].partition(":")
    found: Callable[..., Any] = getattr(import_module(f"rtdetr_lab.{module}"), function)
    return found


def preset_of(name: str, num_classes: int = 80, option: str = "--preset") -> Any:
    """Return the configuration of the preset with this name."""
    return function_of(name, option)(num_classes=num_classes)
