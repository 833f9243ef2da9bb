r"""# RTDetrImageProcessor: 640 × 640, and boxes out of sigmoids

`RTDetrImageProcessorFast` is another name of the same class: theirs resizes with torchvision and
differs from Pillow in the last bits.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from rtdetr_lab.images.postprocess import postprocess
from rtdetr_lab.model import by_sigmoid, by_softmax
from rtdetr_lab.structures import Prediction
from rtdetr_lab.transformers_api.image_processor import ImageProcessor
from rtdetr_lab.transformers_api.pixels import as_dictionaries, sizes_of


@dataclass(kw_only=True)
class RTDetrImageProcessor(ImageProcessor):
    """Pictures to `pixel_values`, annotations to `labels`, and outputs to boxes."""

    do_convert_annotations: bool | None = True

    kind: ClassVar[str] = "RTDetrImageProcessor"

    def post_process_object_detection(
        self,
        outputs: Any,
        threshold: float = 0.5,
        target_sizes: Any = None,
        use_focal_loss: bool = True,
    ) -> list[dict[str, Tensor]]:
        """Per picture `scores`, `labels` and `boxes` (corners; in pixels if sizes are given)."""
        prediction = Prediction(outputs.logits, outputs.pred_boxes, ())
        sizes = sizes_of(target_sizes, len(outputs.logits))
        rank = by_sigmoid if use_focal_loss else by_softmax
        return as_dictionaries(postprocess(prediction, sizes, threshold, rank=rank))


RTDetrImageProcessorFast = RTDetrImageProcessor
RTDetrV2ImageProcessor = RTDetrImageProcessor
