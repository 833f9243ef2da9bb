"""# Presets: the architectures that have a name on the command line"""

from difflib import get_close_matches
from importlib import import_module
from typing import Any

from rtdetr_lab.errors import ConfigError

SIZES = ("r18", "r34", "r50_m", "r50", "r101")
DETR_SIZES = ("r50", "r101", "r50_dc5", "r101_dc5")
PRESETS = {
    "nano": ("rtdetr:rtdetr_nano", "256"),
    **{size: (f"rtdetr:rtdetr_{size}", "640") for size in SIZES},
    **{f"v2_{size}": (f"rtdetrv2:rtdetrv2_{size}", "640") for size in SIZES},
    "detr_nano": ("detr.model:detr_nano", "256"),
    **{f"detr_{size}": (f"detr.model:detr_{size}", "800") for size in DETR_SIZES},
}
"""Name → where its function is, and the size its model is made for."""


def preset_of(name: str, num_classes: int = 80, option: str = "--preset") -> Any:
    """The configuration a name stands for; raises `ConfigError`, which blames `option`."""
    if name not in PRESETS:
        near = get_close_matches(name, PRESETS, n=2, cutoff=0.6)
        nearest = f"did you mean {' or '.join(near)}? " if near else ""
        what = f"{name!r} is no preset"
        raise ConfigError(option, what, f"{nearest}use one of {', '.join(PRESETS)}")
    module, _, function = PRESETS[name][0].partition(":")
    return getattr(import_module(f"rtdetr_lab.{module}"), function)(num_classes=num_classes)
