"""# rtdetr_lab: real-time detection transformers to read, run and take apart

    import rtdetr_lab as lab

The names below are the front door. They are looked up when first used, so that importing the
package costs next to nothing beyond `import torch`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:  # the same names for type checkers and editors; a test compares the two lists
    from rtdetr_lab.config import diff as diff
    from rtdetr_lab.config import replace_at as replace_at
    from rtdetr_lab.structures import Prediction as Prediction
    from rtdetr_lab.structures import Targets as Targets
    from rtdetr_lab.taps import record as record
    from rtdetr_lab.taps import tap as tap

_HOME = {
    "diff": "config",
    "replace_at": "config",
    "Prediction": "structures",
    "Targets": "structures",
    "record": "taps",
    "tap": "taps",
}

__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rtdetr_lab' has no attribute '{name}'")
    value = getattr(import_module(f"rtdetr_lab.{_HOME[name]}"), name)
    globals()[name] = value  # found once, a plain attribute from then on
    return value


def __dir__() -> list[str]:
    return __all__
