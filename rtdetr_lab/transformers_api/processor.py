r"""# RTDetrImageProcessor: every documented option

Bit for bit what transformers' `RTDetrImageProcessorPil` gives, on pictures `images/decode.py` can
read (which turns them as their EXIF says, and refuses arrays it would have to guess about).
`RTDetrImageProcessorFast` is another name of the same class: theirs resizes with torchvision and
differs from Pillow in the last bits.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from rtdetr_lab.checkpoints.files import read_json, write_text
from rtdetr_lab.config import require
from rtdetr_lab.images.postprocess import postprocess
from rtdetr_lab.images.softmax import postprocess_softmax
from rtdetr_lab.structures import Prediction
from rtdetr_lab.transformers_api.annotations import Annotated, prepared, resized_annotation
from rtdetr_lab.transformers_api.hub import Where, file_of
from rtdetr_lab.transformers_api.pixels import (
    BatchFeature,
    as_pictures,
    batched,
    formatted,
    on_canvas,
    resized_picture,
    sizes_of,
)

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(kw_only=True)
class RTDetrImageProcessor:
    """Pictures to `pixel_values`, annotations to `labels`, and outputs to boxes."""

    format: str = "coco_detection"
    do_resize: bool = True
    size: Mapping[str, int] | int | None = None
    resample: int = 2
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = False
    image_mean: float | Sequence[float] | None = None
    image_std: float | Sequence[float] | None = None
    do_convert_annotations: bool = True
    do_pad: bool = False
    pad_size: Mapping[str, int] | None = None
    return_segmentation_masks: bool = False

    def __post_init__(self) -> None:
        self.size = {"height": 640, "width": 640} if self.size is None else self.size
        self.image_mean = IMAGENET[0] if self.image_mean is None else self.image_mean
        self.image_std = IMAGENET[1] if self.image_std is None else self.image_std
        known = self.format in ("coco_detection",)
        what = f"is {self.format!r}"
        require(known, f"{type(self).__name__}[format]", what, "use 'coco_detection'")
        what, remedy = "is set, and RT-DETR draws no masks", "use DetrImageProcessor"
        at = f"{type(self).__name__}[return_segmentation_masks]"
        require(not self.return_segmentation_masks, at, what, remedy)

    def __call__(self, images: Any, annotations: Any = None, **options: Any) -> BatchFeature:
        """As `preprocess`."""
        return self.preprocess(images, annotations, **options)

    def preprocess(
        self,
        images: Any,
        annotations: Any = None,
        *,
        masks_path: Any = None,
        return_tensors: str | None = None,
        data_format: str = "channels_first",
        input_data_format: str | None = None,
        **options: Any,
    ) -> BatchFeature:
        """`pixel_values`, with padding `pixel_mask`, with annotations `labels`.

        Any documented option may be given for this call. Raises `ImageError`, `DataError` or
        `ConfigError`.
        """
        self = replace(self, **{n: v for n, v in options.items() if v is not None})
        pictures = as_pictures(images, input_data_format)
        labels = prepared(annotations, pictures, self.format)
        done = [self._one(rgb, label) for rgb, label in zip(pictures, labels, strict=True)]
        arrays, targets = [one[0] for one in done], [one[1] for one in done]
        found: dict[str, Any] = {}
        if self.do_pad:
            arrays, mask, targets = on_canvas(
                arrays, targets, self.pad_size, self.do_convert_annotations
            )
            found["pixel_mask"] = batched(mask, return_tensors)
        found["pixel_values"] = batched([formatted(a, data_format) for a in arrays], return_tensors)
        if annotations is not None:
            found["labels"] = [
                BatchFeature({k: batched(v, return_tensors) for k, v in (t or {}).items()})
                for t in targets
            ]
        return BatchFeature(found)

    def _one(self, rgb: np.ndarray, label: Annotated) -> tuple[np.ndarray, Annotated]:
        before = rgb.shape[:2]
        if self.do_resize:
            rgb = resized_picture(rgb, self.size, self.resample)
            label = resized_annotation(label, before, rgb.shape[:2])
        values = rgb.transpose(2, 0, 1)
        if self.do_rescale:
            values = (values.astype(np.float64) * self.rescale_factor).astype(np.float32)
        if self.do_normalize:
            values = values.astype(np.float32) if values.dtype == np.uint8 else values
            mean = np.broadcast_to(np.asarray(self.image_mean, values.dtype), 3)[:, None, None]
            std = np.broadcast_to(np.asarray(self.image_std, values.dtype), 3)[:, None, None]
            values = (values - mean) / std
        if label is not None and self.do_convert_annotations:
            height, width = rgb.shape[:2]
            x0, y0, x1, y1 = label["boxes"].T
            centres = np.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], axis=-1)
            size = np.asarray([width, height, width, height], dtype=np.float32)
            label = {**label, "boxes": centres / size}
        return values, label

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
        decode = postprocess if use_focal_loss else postprocess_softmax
        return [
            {"scores": found.scores, "labels": found.labels, "boxes": found.boxes_xyxy}
            for found in decode(prediction, sizes, threshold)
        ]

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any], **changes: Any) -> Any:
        """Read their `preprocessor_config.json`."""
        known = {f.name for f in fields(cls)}
        told = {k: v for k, v in tree.items() if k in known}
        unknown = sorted(set(changes) - known)
        require(not unknown, cls.__name__, f"has no {', '.join(unknown)}", "correct the name")
        return cls(**{**told, **changes})

    @classmethod
    def from_pretrained(
        cls,
        name: Any,
        *,
        revision: str | None = None,
        cache_dir: Any = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        **changes: Any,
    ) -> Any:
        """The processor of a hub id or folder, with `changes`."""
        where = Where(revision, cache_dir, token, local_files_only)
        return cls.from_dict(read_json(file_of(name, "preprocessor_config.json", where)), **changes)

    def to_dict(self) -> dict[str, Any]:
        """As their `preprocessor_config.json` has it."""
        tree = {f.name: getattr(self, f.name) for f in fields(self)}
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in tree.items()}
        plain.pop("return_segmentation_masks")
        return {"image_processor_type": "RTDetrImageProcessor", **plain}

    def save_pretrained(self, folder: Any) -> None:
        """Write `preprocessor_config.json` into a folder."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_dict(), indent=2) + "\n"
        write_text(Path(folder) / "preprocessor_config.json", text)


RTDetrImageProcessorFast = RTDetrImageProcessor
RTDetrV2ImageProcessor = RTDetrImageProcessor
