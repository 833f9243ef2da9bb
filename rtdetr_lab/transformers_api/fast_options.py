r"""# Fast options: what is documented for processors that resize with torchvision

There is one processor here, and it resizes with Pillow (`image_processor.py`). Of the other kind's
options some mean something here too, some would change nothing, and the rest is refused by name.

| option                                | here                                              |
|---------------------------------------|---------------------------------------------------|
| `device`                              | tensors end up there                              |
| `disable_grouping`                    | nothing to do: pictures are prepared one by one   |
| `do_convert_rgb=True`                 | is always done                                    |
| `do_center_crop`, `crop_size`         | refused: a crop would move boxes                  |
| `default_to_square=True`              | refused: say height and width                     |
"""

from collections.abc import Mapping
from typing import Any

from rtdetr_lab.config import require

ONLY: dict[str, Any] = {
    "do_convert_rgb": True,
    "do_center_crop": False,
    "crop_size": None,
    "default_to_square": False,
}
"""The one value that is what happens anyway."""


def without_fast(
    options: Mapping[str, Any], return_tensors: str | None
) -> tuple[dict[str, Any], Any]:
    """The other options, and the device to move to, if any. Raises `ConfigError`."""
    rest = dict(options)
    rest.pop("disable_grouping", None)
    for name, value in ONLY.items():
        found = rest.pop(name, None)
        what = f"is {found!r}, and only {value!r} is done here"
        require(found in (None, value), name, what, "leave it out")
    device = rest.pop("device", None)
    remedy = 'say return_tensors="pt"'
    require(
        device is None or return_tensors == "pt",
        "device",
        "is given, and nothing but tensors can be moved",
        remedy,
    )
    return rest, device
