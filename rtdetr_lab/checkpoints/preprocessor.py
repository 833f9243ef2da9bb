r"""# Preprocessor: the treatment of pixels in transformers' folders

`preprocessor_config.json` describes how a picture becomes a tensor. We read the size from it. We
refuse settings that would change every result without a warning: RT-DETR gets RGB in [0, 1] and
nothing else. A DETR's mean and spread become part of its configuration, and the model normalises.

| model   | `size`                                   | here                         |
|---------|------------------------------------------|------------------------------|
| RT-DETR | `height`, `width`                        | `image_size`                 |
| DETR    | `shortest_edge`, `longest_edge`          | `edges`                      |
| DETR    | 800 and `max_size` 1333, as in 2020      | `edges`                      |
| DETR    | `height`, `width`                        | `image_size`, no `edges`     |
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rtdetr_lab.checkpoints.files import read_json
from rtdetr_lab.checkpoints.metadata import PUBLISHED_NAMES, Metadata, metadata_for
from rtdetr_lab.config import require
from rtdetr_lab.detr.model import IMAGENET_MEAN, IMAGENET_STD, RGB
from rtdetr_lab.errors import CheckpointError
from rtdetr_lab.images.preprocess import PAPER_EDGES, Edges
from rtdetr_lab.notation import Size


def image_size_of(path: Path) -> Size:
    """Read (height, width) from their `preprocessor_config.json`; 640 × 640 without one.

    Raises `CheckpointError` if it normalises pixels: ours are RGB in [0, 1].
    """
    tree = read_json(path) if path.is_file() else {}
    plain = not tree.get("do_normalize", False) and _is_fraction(tree)
    what = "normalises pixels, or scales them to another range than [0, 1]"
    remedy = "train with plain pixels, as all published RT-DETRs were"
    require(plain, path, what, remedy, CheckpointError)
    size = tree.get("size", {"height": 640, "width": 640})
    sides = _sides(size, "height", "width")
    if sides is None:
        remedy = 'give {"height": 640, "width": 640}'
        raise CheckpointError(str(path), f"size is {size}", remedy)
    return sides


def _is_fraction(tree: Mapping[str, Any]) -> bool:
    return bool(abs(tree.get("rescale_factor", 1 / 255) * 255 - 1) <= 1e-6)


def _sides(size: Any, first: str, second: str) -> Size | None:
    """Return two numbers of pixels by their names, if both are there."""
    sides: Any = (size.get(first), size.get(second)) if isinstance(size, Mapping) else (None, None)
    return sides if all(type(side) is int and side > 0 for side in sides) else None


@dataclass(frozen=True)
class Pixels:
    """Input of a DETR: its edges or a fixed size, and how colours are normalised."""

    edges: Edges | None = PAPER_EDGES
    image_size: Size = (800, 800)
    mean: RGB = IMAGENET_MEAN
    std: RGB = IMAGENET_STD


def pixels_of(path: Path) -> Pixels:
    """Read their `preprocessor_config.json` for a DETR; without one, use the paper's values."""
    tree = read_json(path) if path.is_file() else {}
    alone = "prepare pictures yourself and call the model"
    whole = tree.get("do_rescale", True) and tree.get("do_resize", True) and _is_fraction(tree)
    what = "does not resize, or scales pixels to another range than [0, 1]"
    require(whole, path, what, alone, CheckpointError)
    plain = tree.get("resample", 2) == 2 and not tree.get("pad_size")
    what = "does not resize bilinearly, or pads to a fixed size"
    require(plain, path, what, alone, CheckpointError)
    normalised = tree.get("do_normalize", True)
    mean = _three(tree, "image_mean", IMAGENET_MEAN, path) if normalised else (0.0, 0.0, 0.0)
    std = _three(tree, "image_std", IMAGENET_STD, path) if normalised else (1.0, 1.0, 1.0)
    size = tree.get("size", {"shortest_edge": 800, "longest_edge": 1333})
    if type(size) is int:
        size = {"shortest_edge": size, "longest_edge": tree.get("max_size", 1333)}
    if (edges := _sides(size, "shortest_edge", "longest_edge")) is not None:
        return Pixels(edges, (edges[0], edges[0]), mean, std)
    if (fixed := _sides(size, "height", "width")) is not None:
        return Pixels(None, fixed, mean, std)
    remedy = 'give {"shortest_edge": 800, "longest_edge": 1333}'
    raise CheckpointError(str(path), f"size is {size}", remedy)


PAPER_PIXELS = Pixels()


def detr_metadata(
    num_classes: int, names: tuple[str, ...] = (), pixels: Pixels = PAPER_PIXELS
) -> Metadata:
    """Return the metadata of a DETR: its labels are COCO's category ids, gaps included."""
    names = names or PUBLISHED_NAMES.get(num_classes, ())
    known = metadata_for(num_classes, names, edges=pixels.edges, image_size=pixels.image_size)
    return replace(known, category_ids=tuple(range(num_classes))) if len(names) > 80 else known


def detr_preprocessor_config(pixels: Pixels) -> dict[str, Any]:
    """Return their `preprocessor_config.json` for a DETR."""
    colours = {"image_mean": list(pixels.mean), "image_std": list(pixels.std)}
    tree = _described("DetrImageProcessor", pixels.image_size)
    if pixels.edges:
        tree["size"] = {"shortest_edge": pixels.edges[0], "longest_edge": pixels.edges[1]}
    return {**tree, "format": "coco_detection", "do_normalize": True, **colours, "do_pad": True}


def preprocessor_config(image_size: Size) -> dict[str, Any]:
    """Return their `preprocessor_config.json` for an RT-DETR of this picture size."""
    tree = _described("RTDetrImageProcessor", image_size)
    return {**tree, "do_normalize": False, "do_pad": False}


def _described(kind: str, image_size: Size) -> dict[str, Any]:
    height, width = image_size
    return {
        "image_processor_type": kind,
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
    }


def _three(tree: Mapping[str, Any], key: str, default: RGB, path: Path) -> RGB:
    found = tree.get(key, default)
    if isinstance(found, list | tuple) and len(found) == 3:
        red, green, blue = found
        if all(type(v) in (int, float) for v in found):
            return (float(red), float(green), float(blue))
    raise CheckpointError(f"{path}[{key}]", f"is {found!r}", "give three numbers")
