"""One small model of every family, and a batch each can learn from."""

import torch
from small import SMALL_DFINE, SMALL_HGNET, pictures, shaken, small, targets
from small_detr import DETECTOR as DETR
from small_detr import SEGMENTER as SEGMENTATION
from small_detr import corner, objects

from rtdetr_lab.config import replace_at
from rtdetr_lab.detr.positions import LearnedPositions
from rtdetr_lab.masks.query_masks import QueryMasks, with_masks
from rtdetr_lab.query_selection import LearnedContent
from rtdetr_lab.samplers import Discrete

FAMILIES = {
    "rtdetr": small(),
    "rtdetr_learned_content": small({"selection": LearnedContent(10)}),
    "rtdetr_four_levels": small({"decoder.num_levels": 4}),
    "rtdetr_hgnet": small({"backbone": replace_at(SMALL_HGNET, "affine", True)}),
    "rtdetr_dfine": SMALL_DFINE,
    "rtdetr_masks": with_masks(small(), QueryMasks(8)),
    "rtdetr_dfine_masks": with_masks(SMALL_DFINE, QueryMasks(8)),
    "rtdetrv2_points": small({"decoder.num_points": (4, 2, 1)}),
    "rtdetrv2_discrete": small({"decoder.sampler": Discrete()}),
    "detr": DETR,
    "detr_learned_positions": replace_at(DETR, "positions", LearnedPositions()),
    "detr_dilated": replace_at(DETR, "backbone.dilated", True),
    "segmentation": SEGMENTATION,
}


def is_detr(name):
    return not name.startswith("rtdetr")


def built(name, dtype=torch.float64):
    return shaken(FAMILIES[name].build()).to(dtype).eval()


def batch(name, dtype=torch.float64):
    """What `model(*…)` takes of a family: pictures, targets and, where it is read, padding."""
    images = pictures().to(dtype)
    if not is_detr(name):
        return images, objects(3, 1) if name.endswith("masks") else targets(3, 1)
    return images, objects(3, 1), corner()
