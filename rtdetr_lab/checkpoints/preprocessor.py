r"""# Preprocessor: what transformers' folders say about pixels

`preprocessor_config.json` describes how a picture becomes a tensor. We read the size from it and
refuse what would silently change every number: RT-DETR sees RGB in [0, 1] and nothing else.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtdetr_lab.checkpoints.files import read_json
from rtdetr_lab.errors import CheckpointError
from rtdetr_lab.notation import Size


def image_size_of(path: Path) -> Size:
    """(height, width) in their `preprocessor_config.json`, 640² where there is none.

    Raises `CheckpointError` if it asks for normalised pixels: ours are RGB in [0, 1].
    """
    tree = read_json(path) if path.is_file() else {}
    if tree.get("do_normalize", False) or abs(tree.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
        what = "asks for pixels that are normalised, or scaled to another range than [0, 1]"
        raise CheckpointError(str(path), what, "train without, as all published RT-DETRs were")
    size = tree.get("size", {"height": 640, "width": 640})
    sides: list[Any] = (
        [size.get(side) for side in ("height", "width")] if isinstance(size, Mapping) else []
    )
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        what = f"size is {size}"
        raise CheckpointError(str(path), what, 'give {"height": 640, "width": 640}')
    return (sides[0], sides[1])


def preprocessor_config(image_size: Size) -> dict[str, Any]:
    """Their `preprocessor_config.json` for this picture size."""
    height, width = image_size
    return {
        "image_processor_type": "RTDetrImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": False,
        "do_pad": False,
    }
