r"""# Processors: RTDetrImageProcessor and DetrImageProcessor

`image_processor.py` has the common part. The processor of **RT-DETR** resizes to 640 × 640, and its
scores are sigmoids. `RTDetrImageProcessorFast` is another name of the same class. Theirs resizes
with torchvision, which differs from Pillow in the last bits.

The processor of **DETR** has sides of 800 and 1333, a shared canvas, and four kinds of output.
Pictures keep their aspect ratio and are padded to the largest of the batch. `pixel_mask` is 1
inside a picture. Annotations may be panoptic. `DetrImageProcessorPil` is another name of the class.

Boxes of a padded picture become fractions of the **canvas**, as in transformers, but predictions
are read as fractions of the picture. `docs/differences.md` explains why this matters.

The documented outputs of segmentation come from `images/panoptic.py`:

| documented          | here                                                     |
|---------------------|----------------------------------------------------------|
| `segmentation`      | `Segments.ids`; −1 everywhere if no score is high enough |
| `segments_info`     | `Segments.segments`                                      |
| `target_sizes=None` | the size of the masks                                    |

Our segment ids are unique. Theirs may use an id twice after joining stuff (`docs/differences.md`).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from rtdetr_lab.config import require
from rtdetr_lab.data import rle
from rtdetr_lab.images.panoptic import ByOverlap, Segments, panoptic, semantic
from rtdetr_lab.images.postprocess import at_least_single, postprocess
from rtdetr_lab.model import by_sigmoid, by_softmax
from rtdetr_lab.notation import Size
from rtdetr_lab.structures import Prediction
from rtdetr_lab.transformers_api.batches import BatchFeature
from rtdetr_lab.transformers_api.image_processor import ImageProcessor
from rtdetr_lab.transformers_api.pixels import as_dictionaries, sizes_of


@dataclass(kw_only=True)
class RTDetrImageProcessor(ImageProcessor):
    """Converts pictures to `pixel_values`, annotations to `labels`, and outputs to boxes."""

    do_convert_annotations: bool | None = True

    kind: ClassVar[str] = "RTDetrImageProcessor"

    def post_process_object_detection(
        self,
        outputs: Any,
        threshold: float = 0.5,
        target_sizes: Any = None,
        use_focal_loss: bool = True,
    ) -> list[dict[str, Tensor]]:
        """Return `scores`, `labels` and `boxes` per picture.

        Boxes are corners, in pixels if sizes are given.
        """
        prediction, sizes = answer_of(outputs, target_sizes)
        rank = by_sigmoid if use_focal_loss else by_softmax
        return as_dictionaries(postprocess(prediction, sizes, threshold, rank=rank))


RTDetrImageProcessorFast = RTDetrImageProcessor
RTDetrImageProcessorPil = RTDetrImageProcessor
RTDetrV2ImageProcessor = RTDetrImageProcessor


@dataclass(kw_only=True)
class DetrImageProcessor(ImageProcessor):
    """Converts pictures to `pixel_values` and `pixel_mask`, and annotations to `labels`.

    It converts outputs to boxes, semantic maps, instances and panoptic segments.
    """

    do_normalize: bool = True
    do_pad: bool = True
    max_size: int | None = None

    formats: ClassVar[tuple[str, ...]] = ("coco_detection", "coco_panoptic")
    default_size: ClassVar[dict[str, int]] = {"shortest_edge": 800, "longest_edge": 1333}
    kind: ClassVar[str] = "DetrImageProcessor"

    def __post_init__(self) -> None:
        if isinstance(self.size, int):
            self.size = {"shortest_edge": self.size, "longest_edge": self.max_size or 1333}
        elif self.max_size is not None:
            what = "is given together with a complete size"
            require(self.size is None, "max_size", what, "give longest_edge in size")
            self.size = {**self.default_size, "longest_edge": self.max_size}
        self.max_size = None
        if self.do_convert_annotations is None:
            self.do_convert_annotations = self.do_normalize
        super().__post_init__()

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any], **changes: Any) -> Any:
        """Read their `preprocessor_config.json`, also that of the first release (2020)."""
        told = dict(tree)
        if isinstance(told.get("size"), Mapping):
            told.pop("max_size", None)
        if (padded := told.pop("pad_and_return_pixel_mask", None)) is not None:
            told.setdefault("do_pad", padded)
        return super().from_dict(told, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the values of their `preprocessor_config.json`."""
        tree = super().to_dict()
        tree.pop("max_size")
        return tree

    def pad_and_create_pixel_mask(
        self, pixel_values_list: Sequence[Any], return_tensors: str | None = None
    ) -> BatchFeature:
        """Call `pad`, under the name of the first releases."""
        return self.pad(pixel_values_list, return_tensors=return_tensors)

    def post_process_object_detection(
        self, outputs: Any, threshold: float = 0.5, target_sizes: Any = None
    ) -> list[dict[str, Tensor]]:
        """Return `scores`, `labels` and `boxes` per picture, in the order of the queries.

        Boxes are corners, in pixels if sizes are given.
        """
        prediction, sizes = answer_of(outputs, target_sizes)
        found = postprocess(prediction, sizes, threshold, rank=by_softmax)
        return as_dictionaries(one.at(one.queries.argsort()) for one in found)

    def post_process_semantic_segmentation(
        self, outputs: Any, target_sizes: Any = None
    ) -> list[Tensor]:
        """Return the class of every pixel, per picture."""
        return list(semantic(*drawn(outputs, target_sizes)))

    def post_process_instance_segmentation(
        self,
        outputs: Any,
        threshold: float = 0.5,
        mask_threshold: float = 0.5,
        overlap_mask_area_threshold: float = 0.8,
        target_sizes: Any = None,
        return_coco_annotation: bool | None = False,
    ) -> list[dict[str, Any]]:
        """Return `segmentation` (an object id per pixel) and `segments_info` per picture."""
        rule = ByOverlap(threshold, mask_threshold, overlap_mask_area_threshold)
        found = segments(outputs, target_sizes, rule, ())
        for one in found if return_coco_annotation else ():
            if bool((one["segmentation"] >= 0).any()):
                one["segmentation"] = run_lengths(one["segmentation"])
        return found

    def post_process_panoptic_segmentation(
        self,
        outputs: Any,
        threshold: float = 0.5,
        mask_threshold: float = 0.5,
        overlap_mask_area_threshold: float = 0.8,
        label_ids_to_fuse: Collection[int] | None = None,
        target_sizes: Any = None,
    ) -> list[dict[str, Any]]:
        """Return the fields as for instances; a class in `label_ids_to_fuse` is one segment."""
        rule = ByOverlap(threshold, mask_threshold, overlap_mask_area_threshold)
        fuse = label_ids_to_fuse if label_ids_to_fuse is not None else ()
        what, remedy = f"is {fuse!r}", "give a set of labels"
        require(isinstance(fuse, Collection), "label_ids_to_fuse", what, remedy)
        return segments(outputs, target_sizes, rule, fuse)


DetrImageProcessorPil = DetrImageProcessor


def segments(
    outputs: Any, target_sizes: Any, rule: ByOverlap, fuse: Collection[int]
) -> list[dict[str, Any]]:
    """Return `segmentation` and `segments_info` per picture."""
    prediction, sizes = drawn(outputs, target_sizes)
    found = panoptic(prediction, sizes, fuse, rule)
    scores, labels = at_least_single(prediction.logits).softmax(-1).max(-1)
    nothing = prediction.logits.shape[-1] - 1
    sure = ((scores > rule.threshold) & (labels != nothing)).any(1).tolist()
    return [_described(one, fuse, any_at_all) for one, any_at_all in zip(found, sure, strict=True)]


def _described(found: Segments, fuse: Collection[int], any_at_all: bool) -> dict[str, Any]:
    ids = found.ids if any_at_all else torch.full_like(found.ids, -1)
    info = [
        {
            "id": s.id,
            "label_id": s.label,
            "was_fused": s.label in fuse,
            "score": round(s.score, 6),
        }
        for s in found.segments
    ]
    return {"segmentation": ids.to(torch.int32), "segments_info": info}


def answer_of(outputs: Any, target_sizes: Any) -> tuple[Prediction, list[Size]]:
    """Return the prediction of a model, and the size of every picture."""
    given = outputs if isinstance(outputs, Mapping) else vars(outputs)  # pipelines give the former
    prediction = Prediction(given["logits"], given["pred_boxes"], (), masks=given.get("pred_masks"))
    return prediction, sizes_of(target_sizes, len(prediction.logits))


def drawn(outputs: Any, target_sizes: Any) -> tuple[Prediction, list[Size]]:
    """Return the prediction of a model with masks, and the size of every picture or mask."""
    prediction, sizes = answer_of(outputs, target_sizes)
    masks = prediction.masks
    if target_sizes is None and masks is not None:
        sizes = [(masks.shape[-2], masks.shape[-1])] * len(masks)
    return prediction, sizes


def run_lengths(ids: Int[Tensor, "H W"]) -> list[list[int]]:
    """Return the runs of every id in the map, also of 0: start (from 1, row by row) and length.

    transformers calls this format COCO annotation. `data/rle.py` writes COCO's own format.
    """
    found = []
    for number in ids.unique().tolist():
        counts = rle.run_lengths((ids == number).cpu().numpy().T)["counts"]  # down the columns
        starts = np.cumsum(counts)[:-1:2] + 1
        found.append(np.stack([starts, counts[1::2]], axis=1).flatten().tolist())
    return found
