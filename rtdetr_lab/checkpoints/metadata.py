r"""# Metadata in checkpoints: names, category ids and sizes, read or derived

A label is only a number: 15 is a cat because a list of names says so. A COCO result needs the
category id 17 that COCO gave to cats. Names and ids are stored with the weights. So are the picture
size of training, the licence, and the source. The record is `rtdetr_lab.model.Metadata`, which
every model has. This file reads one from JSON, and derives one if none was written.

COCO numbers 80 kinds of things from 1 to 90, with ten gaps, and 53 kinds of stuff from 92 to 200.
DETR's published models use COCO's numbers as labels: label 17 *is* category 17. The detection task
has 91 labels, and 80 of them occur. The panoptic task has 250, and 133 of them occur. A label that
does not occur is called `N/A`, as in the authors' lists.
"""

from dataclasses import fields
from pathlib import Path
from typing import Any

from rtdetr_lab.config_json import fits, hints_of
from rtdetr_lab.errors import CheckpointError
from rtdetr_lab.model import Metadata as Metadata

_FILE = Path(__file__).resolve().parents[1] / "assets" / "coco_categories.txt"
_LINES = (line.partition(" ") for line in _FILE.read_text(encoding="utf8").splitlines())
_BY_ID = {int(number): name for number, _, name in _LINES}

COCO_IDS = tuple(i for i in _BY_ID if i <= 90)
"""COCO's category ids of the detection task."""

COCO_CLASSES = tuple(_BY_ID[i] for i in COCO_IDS)
"""Their names, in the same order."""

PUBLISHED_NAMES = {n: tuple(_BY_ID.get(i, "N/A") for i in range(n)) for n in (91, 250)}
"""Number of classes → their names, as the published DETRs have them."""

_OLD_NAMES = {"motorbike": "motorcycle", "aeroplane": "airplane", "sofa": "couch"}
_OLD_NAMES |= {"pottedplant": "potted plant", "diningtable": "dining table", "tvmonitor": "tv"}

REMEDIES = {
    "names": "give a list of str",
    "category_ids": "give a list of int",
    "image_size": "give (height, width) in pixels",
    "edges": "give two numbers of pixels",
    "canvas_boxes": "give true or false",
    "threshold": "give a score from 0 to 1, or null",
}
"""Remedies for values that are not text."""


def metadata_from_dict(tree: Any, where: str) -> Metadata:
    """Read metadata back from `to_dict`; the values may have been edited by hand."""
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
            remedy = REMEDIES.get(name, "give text, or null")
            raise CheckpointError(where, f"{name} is {tree[name]!r}", remedy)
    return Metadata(**told)


def metadata_for(num_classes: int, names: tuple[str, ...] = (), **known: Any) -> Metadata:
    """Return metadata for a model from its class names, or only from their number.

    80 unnamed classes get COCO's names and category ids. Classes named like COCO's (in the spelling
    of 2014 or of VOC) get COCO's category ids. Others are numbered from 0. Any other number of
    unnamed classes stays unnamed.
    """
    modern = tuple(_OLD_NAMES.get(n, n) for n in names)
    if not names and num_classes == len(COCO_CLASSES):
        names = modern = COCO_CLASSES
    ids = COCO_IDS if modern == COCO_CLASSES else tuple(range(len(names)))
    return Metadata(names=names, category_ids=ids, **known)


def check_names(metadata: Metadata, num_classes: int, where: str) -> None:
    """Raise `CheckpointError` unless every class has a name, or no class has one."""
    if metadata.names and len(metadata.names) != num_classes:
        what = f"has {len(metadata.names)} class names for {num_classes} classes"
        raise CheckpointError(where, what, "correct the names beside the weights")
