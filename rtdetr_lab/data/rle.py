"""# Run lengths: masks as COCO's JSON stores them

A segmentation is a list of polygons, or run lengths along the columns, plain or compressed. The
library that measures COCO's AP reads and writes all of them; we call it. Plain run lengths are
simple counts and need no library.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from rtdetr_lab.errors import DataError, converting, import_extra
from rtdetr_lab.notation import Size


def encode_mask(mask: Bool[np.ndarray, "H W"]) -> dict[str, Any]:
    """Return compressed run lengths, ready for JSON."""
    library = import_extra("faster_coco_eval", "eval").mask
    code = library.encode(np.asfortranarray(mask.astype(np.uint8)))
    counts = code["counts"]
    text = counts.decode("ascii") if isinstance(counts, bytes) else str(counts)
    return {"size": [int(n) for n in code["size"]], "counts": text}


def areas_of(codes: Sequence[Any]) -> list[float]:
    """Count the pixels of masks in compressed run lengths."""
    return [float(n) for n in import_extra("faster_coco_eval", "eval").mask.area(list(codes))]


def run_lengths(mask: Bool[np.ndarray, "H W"]) -> dict[str, Any]:
    """Return plain run lengths: numbers of pixels outside, inside, outside …, down the columns."""
    flat = mask.T.ravel()
    turns = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate([[0], turns, [flat.size]])).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[:1].any() else counts}


def decode_mask(segmentation: Any, size: Size, where: str) -> Bool[np.ndarray, "H W"]:
    """Return the mask of polygons or run lengths; raises `DataError` with `where`."""
    library = import_extra("faster_coco_eval", "eval").mask
    what, remedy = "its segmentation cannot be read ({})", "give polygons or run lengths"
    with converting(Exception, DataError, where, what, remedy):  # the library raises many types
        code = library.frPyObjects(segmentation, *size) if _is_raw(segmentation) else segmentation
        if isinstance(code, list):
            code = library.merge(code)
        mask = np.asarray(library.decode(code), dtype=bool)
    if (found := mask.shape) != tuple(size):
        what = f"its mask is {found[0]}×{found[1]}, but the picture is {size[0]}×{size[1]}"
        raise DataError(where, what, "correct the segmentation's size")
    return mask


def _is_raw(segmentation: Any) -> bool:
    return isinstance(segmentation, list) or isinstance(segmentation.get("counts"), list)
