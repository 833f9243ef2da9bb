r"""# Metadata in checkpoints: names, category ids and sizes, read and made up

A label is a number until somebody says that 15 is a cat, and a COCO result needs the category id 17
that COCO gave it. Both travel with the weights, as do the picture size they were trained for, their
licence, and where they came from. The record is `rtdetr_lab.model.Metadata`, which every model has
from birth; here is how one is read from JSON, and guessed where nobody wrote one.
"""

from dataclasses import fields
from typing import Any

from rtdetr_lab.checkpoints.coco_names import COCO_CLASSES as COCO_CLASSES
from rtdetr_lab.checkpoints.coco_names import COCO_IDS as COCO_IDS
from rtdetr_lab.config_json import fits, hints_of
from rtdetr_lab.errors import CheckpointError
from rtdetr_lab.model import Metadata as Metadata

_OLD_NAMES = {"motorbike": "motorcycle", "aeroplane": "airplane", "sofa": "couch"}
_OLD_NAMES |= {"pottedplant": "potted plant", "diningtable": "dining table", "tvmonitor": "tv"}

REMEDIES = {
    "names": "give a list of str",
    "category_ids": "give a list of int",
    "image_size": "give (height, width) in pixels",
    "edges": "give two numbers of pixels",
    "canvas_boxes": "give true or false",
}
"""What to give for what is no text."""


def metadata_from_dict(tree: Any, where: str) -> Metadata:
    """The reverse of `to_dict`, for what may have been edited by hand."""
    where, known = f"{where}[metadata]", {f.name for f in fields(Metadata)}
    if not isinstance(tree, dict) or set(tree) - known:
        extra = sorted(set(tree) - known) if isinstance(tree, dict) else tree
        raise CheckpointError(where, f"unknown: {extra}", f"use {', '.join(sorted(known))}")
    told: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in tree.items() if v is not None
    }
    hints = hints_of(Metadata)
    for name, value in told.items():
        if not fits(value, hints[name]):
            remedy = REMEDIES.get(name, "give a text, or null")
            raise CheckpointError(where, f"{name} is {tree[name]!r}", remedy)
    return Metadata(**told)


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
