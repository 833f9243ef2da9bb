r"""# Image processor: the common part of all documented processors

The results are bit for bit those of transformers' Pillow-based processors, for pictures that
`images/decode.py` can read. It rotates pictures according to EXIF, and refuses ambiguous arrays.
`processor.py` has the defaults and the postprocessing of each processor.

All our processors resize with Pillow. Some options are documented only for processors that resize
with torchvision. A few of them have a meaning here too, some would change nothing, and the others
raise an error that names the option.

| option                                | here                                              |
|---------------------------------------|---------------------------------------------------|
| `device`                              | tensors are moved to it                           |
| `disable_grouping`                    | nothing to do: pictures are prepared one by one   |
| `do_convert_rgb=True`                 | is always done                                    |
| `do_center_crop`, `crop_size`         | refused: a crop would move boxes                  |
| `default_to_square=True`              | refused: give height and width                    |
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np

from rtdetr_lab.config import require
from rtdetr_lab.detr.model import IMAGENET_MEAN, IMAGENET_STD
from rtdetr_lab.transformers_api.annotations import (
    Annotated,
    Wanted,
    as_fractions,
    is_number,
    prepared,
    resized_annotation,
)
from rtdetr_lab.transformers_api.batches import BatchFeature, batched, formatted, on_canvas, padded
from rtdetr_lab.transformers_api.hub import FILE, OneFile
from rtdetr_lab.transformers_api.pixels import (
    as_pictures,
    in_fractions,
    resized_picture,
    without_fast,
)


@dataclass(kw_only=True)
class ImageProcessor(OneFile):
    """Converts pictures to `pixel_values` and annotations to `labels`."""

    format: str = "coco_detection"
    do_resize: bool = True
    size: Mapping[str, int] | int | None = None
    resample: int = 2
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = False
    image_mean: float | Sequence[float] | None = None
    image_std: float | Sequence[float] | None = None
    do_convert_annotations: bool | None = None
    do_pad: bool = False
    pad_size: Mapping[str, int] | None = None
    return_segmentation_masks: bool | None = None

    formats: ClassVar[tuple[str, ...]] = ("coco_detection",)
    default_size: ClassVar[dict[str, int]] = {"height": 640, "width": 640}
    kind: ClassVar[str] = ""
    filename: ClassVar[str] = FILE
    called: ClassVar[str] = "image processor"
    model_input_names: ClassVar[list[str]] = ["pixel_values", "pixel_mask"]

    def __post_init__(self) -> None:
        self.size = dict(self.default_size) if self.size is None else self.size
        self.image_mean = _spread(IMAGENET_MEAN if self.image_mean is None else self.image_mean)
        self.image_std = _spread(IMAGENET_STD if self.image_std is None else self.image_std)
        known = f"use one of {', '.join(map(repr, self.formats))}"
        at = f"{type(self).__name__}[format]"
        self.format = str(getattr(self.format, "value", self.format))
        require(self.format in self.formats, at, f"is {self.format!r}", known)
        _check_numbers(self)

    def __call__(self, images: Any, annotations: Any = None, **options: Any) -> BatchFeature:
        """Call `preprocess`."""
        return self.preprocess(images, annotations, **options)

    def preprocess(
        self,
        images: Any,
        annotations: Any = None,
        return_segmentation_masks: bool | None = None,
        masks_path: Any = None,
        *,
        return_tensors: str | None = None,
        data_format: str = "channels_first",
        input_data_format: str | None = None,
        **options: Any,
    ) -> BatchFeature:
        """Return `pixel_values`, with padding also `pixel_mask`, with annotations also `labels`.

        You can set any documented option for this call. Raises `ImageError`, `DataError` or
        `ConfigError`.
        """
        told = without_fast({**options, "return_segmentation_masks": return_segmentation_masks})
        device, remedy = told.pop("device", None), 'set return_tensors="pt"'
        what = "is given, but only tensors can be moved to a device"
        require(device is None or return_tensors == "pt", "device", what, remedy)
        self._check_names(told)
        for_this: Any = replace(self, **told)
        pictures = as_pictures(images, input_data_format)
        masks, asked = for_this.return_segmentation_masks, told.get("return_segmentation_masks")
        wanted = Wanted(for_this.format, masks, masks_path, bool(asked))
        labels = prepared(annotations, pictures, wanted)
        given = zip(pictures, labels, in_fractions(images), strict=True)
        found: BatchFeature = for_this._processed(given, return_tensors, data_format)
        return found if device is None else found.to(device)

    def pad(
        self, images: Sequence[Any], return_pixel_mask: bool = True, return_tensors: Any = None
    ) -> BatchFeature:
        """Put prepared pictures (C H W, of any sizes) on one canvas, for a `collate_fn`."""
        return padded(images, self.pad_size, return_pixel_mask, return_tensors)

    def _processed(self, given: Any, return_tensors: str | None, data_format: str) -> BatchFeature:
        done = [self._one(*one) for one in given]
        arrays, targets = [one[0] for one in done], [one[1] for one in done]
        found: dict[str, Any] = {}
        if self.do_pad:
            convert = bool(self.do_convert_annotations)
            arrays, mask, targets = on_canvas(arrays, targets, self.pad_size, convert)
            found["pixel_mask"] = batched(mask, return_tensors)
        found["pixel_values"] = batched([formatted(a, data_format) for a in arrays], return_tensors)
        if told := [target for target in targets if target is not None]:
            found["labels"] = [
                BatchFeature({k: batched(v, return_tensors) for k, v in t.items()}) for t in told
            ]
        return BatchFeature(found)

    def _one(
        self, rgb: np.ndarray, label: Annotated, fraction: bool
    ) -> tuple[np.ndarray, Annotated]:
        before = rgb.shape[:2]
        if self.do_resize:
            rgb = resized_picture(rgb, self.size, self.resample)
            label = resized_annotation(label, before, rgb.shape[:2])
        values: Any = rgb
        if self.do_rescale or fraction:  # `decode` converted floats in [0, 1] to bytes
            factor = self.rescale_factor if self.do_rescale else 1 / 255
            values = (values.astype(np.float64) * factor).astype(np.float32)
        if self.do_normalize:
            values = values.astype(np.float32) if values.dtype == np.uint8 else values
            values = values - np.asarray(self.image_mean, values.dtype)
            values = values / np.asarray(self.image_std, values.dtype)
        values = values.transpose(2, 0, 1)
        convert = self.do_convert_annotations is not False
        return values, as_fractions(label, rgb.shape[:2]) if convert else label

    @classmethod
    def _check_names(cls, options: Mapping[str, Any]) -> None:
        unknown = ", ".join(sorted(set(options) - {f.name for f in fields(cls)}))
        require(not unknown, cls.__name__, f"has no option {unknown}", "correct the name")

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any], **changes: Any) -> Any:
        """Read their `preprocessor_config.json`."""
        cls._check_names(changes)
        names = {f.name for f in fields(cls)}
        told = {name: value for name, value in tree.items() if name in names}
        own = (*names, "image_processor_type", "feature_extractor_type")
        extra = {name: value for name, value in tree.items() if name not in own}
        return cls(**{**told, "extra": extra, **changes})

    def to_dict(self) -> dict[str, Any]:
        """Return the values of their `preprocessor_config.json`."""
        tree = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "extra"}
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in tree.items()}
        if plain["return_segmentation_masks"] is None:
            plain.pop("return_segmentation_masks")
        return {**self.extra, "image_processor_type": self.kind, **plain}


def _spread(values: float | Sequence[float]) -> float | tuple[float, ...]:
    return values if isinstance(values, int | float) else tuple(values)


def _check_numbers(processor: ImageProcessor) -> None:
    """Raise `ConfigError` for numbers that cannot prepare a picture.

    Without this check numpy would broadcast a wrong number of means, or divide by zero.
    """
    at = f"{type(processor).__name__}[{{}}]".format
    factor = processor.rescale_factor
    positive = is_number(factor) and factor > 0
    require(positive, at("rescale_factor"), f"is {factor!r}", "give a positive number (1 / 255)")
    for name, least in (("image_mean", -math.inf), ("image_std", 0.0)):
        values = getattr(processor, name)
        listed = values if isinstance(values, list | tuple) else (values,)
        fits = len(listed) in (1, 3) and all(is_number(v) and v > least for v in listed)
        remedy = "give one number, or one per colour (three); image_std must be positive"
        require(fits, at(name), f"is {values!r}", remedy)
    room = processor.pad_size
    sides = room is None or (isinstance(room, Mapping) and {"height", "width"} <= set(room))
    require(sides, at("pad_size"), f"is {room!r}", 'give {"height": …, "width": …}')
    known = isinstance(processor.size, Mapping | int)
    require(known, at("size"), f"is {processor.size!r}", "give a mapping or one number")
