r"""# Metadata in checkpoints: names, category ids and sizes, read and made up

A label is a number until somebody says that 15 is a cat, and a COCO result needs the category id 17
that COCO gave it. Both travel with the weights, as do the picture size they were trained for, their
licence, and where they came from. The record is `rtdetr_lab.model.Metadata`, which every model has
from birth; here is how one is read from JSON, and guessed where nobody wrote one.
"""

from dataclasses import fields
from typing import Any

from rtdetr_lab.errors import CheckpointError
from rtdetr_lab.model import Metadata as Metadata

COCO_NAMES = (
    "person bicycle car motorcycle airplane bus train truck boat|traffic light|fire hydrant|"
    "stop sign|parking meter|bench bird cat dog horse sheep cow elephant bear zebra giraffe "
    "backpack umbrella handbag tie suitcase frisbee skis snowboard|sports ball|kite|baseball bat|"
    "baseball glove|skateboard surfboard|tennis racket|bottle|wine glass|cup fork knife spoon bowl "
    "banana apple sandwich orange broccoli carrot|hot dog|pizza donut cake chair couch|"
    "potted plant|bed|dining table|toilet tv laptop mouse remote keyboard|cell phone|microwave "
    "oven toaster sink refrigerator book clock vase scissors|teddy bear|hair drier|toothbrush"
)
TWO_WORDS = {"traffic", "fire", "stop", "parking", "sports", "baseball", "tennis", "wine", "hot"}
TWO_WORDS |= {"potted", "dining", "cell", "teddy", "hair"}


def _names() -> tuple[str, ...]:
    names = []
    for part in COCO_NAMES.split("|"):
        names += [part] if part.split()[0] in TWO_WORDS else part.split()
    return tuple(names)


COCO_CLASSES = _names()
"""The 80 classes of COCO's detection task, in the order of their ids."""

_UNUSED = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
COCO_IDS = tuple(i for i in range(1, 91) if i not in _UNUSED)
"""COCO's own category ids of these classes: 1 to 90 with ten gaps."""

_OLD_NAMES = {"motorbike": "motorcycle", "aeroplane": "airplane", "sofa": "couch"}
_OLD_NAMES |= {"pottedplant": "potted plant", "diningtable": "dining table", "tvmonitor": "tv"}


def metadata_from_dict(tree: Any, where: str) -> Metadata:
    """The reverse of `to_dict`, for what may have been edited by hand."""
    where, known = f"{where}[metadata]", {f.name for f in fields(Metadata)}
    if not isinstance(tree, dict) or set(tree) - known:
        extra = sorted(set(tree) - known) if isinstance(tree, dict) else tree
        raise CheckpointError(where, f"unknown: {extra}", f"use {', '.join(sorted(known))}")
    kinds = (("names", str), ("category_ids", int), ("image_size", int), ("edges", int))
    for name, kind in kinds:
        values = tree.get(name) or []
        if not isinstance(values, list) or any(type(v) is not kind for v in values):
            raise CheckpointError(where, f"{name} is {values}", f"give a list of {kind.__name__}")
    if len(tree.get("image_size") or "hw") != 2:
        what = f"image_size is {tree['image_size']}"
        raise CheckpointError(where, what, "give (height, width) in pixels")
    if len(tree.get("edges") or "sl") != 2 or type(tree.get("canvas_boxes", False)) is not bool:
        what = f"edges are {tree.get('edges')}, canvas_boxes is {tree.get('canvas_boxes')}"
        raise CheckpointError(where, what, "give two numbers of pixels, and true or false")
    for name in ("licence", "source", "revision", "sha256"):
        if not isinstance(tree.get(name), str | None):
            raise CheckpointError(where, f"{name} is {tree[name]!r}", "give a text, or null")
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in tree.items()}
    return Metadata(**plain)


def metadata_for(num_classes: int, names: tuple[str, ...] = (), **known: Any) -> Metadata:
    """Metadata for a model of which only the class names, or only their number, is known.

    80 unnamed classes, and classes named like COCO's (in the spelling of 2014 or of VOC), get
    COCO's category ids; others are numbered from 0. Any other number of unnamed classes stays
    unnamed: nobody says what they are.
    """
    modern = tuple(_OLD_NAMES.get(n, n) for n in names)
    if not names and num_classes == len(COCO_CLASSES):
        names = modern = COCO_CLASSES
    ids = COCO_IDS if modern == COCO_CLASSES else tuple(range(len(names)))
    return Metadata(names=names, category_ids=ids, **known)


def check_names(metadata: Metadata, num_classes: int, where: str) -> None:
    """Raise `CheckpointError` unless every class has a name, or none has."""
    if metadata.names and len(metadata.names) != num_classes:
        what = f"has {len(metadata.names)} class names for {num_classes} classes"
        raise CheckpointError(where, what, "correct the names beside the weights")
