r"""# Detector: the front door

    detector = Detector.from_pretrained("r18")
    found = detector("kitchen.jpg", threshold=0.5)
    several = detector(["a.jpg", "b.png", array, tensor])

The steps are `decode → Preprocess → model → postprocess`, with the names of the classes. You can
use every step alone. A detector keeps no state between calls, so threads may share it. The
detections of a picture do not depend on the other pictures of its batch (up to the last bits of
floating point). With a DETR they depend on them a little: pictures keep their aspect ratio and
share a canvas (`images/preprocess.py`), and the model sees its borders. A model with masks
(`masks/query_masks.py`, `detr/segmentation.py`) returns `Detections` with a mask per box.
`panoptic` gives each pixel to one segment, and finds stuff, too.

A picture that cannot be read raises `ImageError`. For ten thousand pictures use `each`: it yields,
in order, a `Detections` or the `ImageError` for every source.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from os import PathLike
from typing import Any, Literal, overload

import torch
from torch import nn

from rtdetr_lab.config import require
from rtdetr_lab.detections import Detections, SegmentedPicture, classes_of
from rtdetr_lab.errors import ConfigError, ImageError, converting
from rtdetr_lab.images.arrays import RGBs
from rtdetr_lab.images.decode import DEFAULT_LIMITS, Limits, Photo, photo_or_error, read_photo
from rtdetr_lab.images.panoptic import Rule
from rtdetr_lab.images.postprocess import Found, Fractions, suppress
from rtdetr_lab.images.predict import look_for_segments, look_of, predict, predict_segments
from rtdetr_lab.images.preprocess import Preprocess
from rtdetr_lab.images.tiling import Tiling
from rtdetr_lab.model import declared
from rtdetr_lab.notation import Edges, Size


class Detector:
    """Detector from pictures to `Detections`.

    `model` is any module in eval mode that returns a `Prediction` for a batch. `names` and `size`
    default to those of the checkpoint, else to "class 0" … and 640 × 640. For a DETR, `edges`
    (shortest, longest) keep the aspect ratio of pictures instead, and `fractions` defines what its
    boxes are fractions of (`images/postprocess.py`). Both default to those of the checkpoint.
    `threshold` "auto" is the one that the model's validation recommends.
    `tiling` detects in windows of large pictures, `max_iou` removes overlapping boxes of any class.
    Both are off by default, and are not part of RT-DETR.
    """

    def __init__(
        self,
        model: nn.Module,
        names: Iterable[str] | None = None,
        *,
        threshold: float | Literal["auto"] = 0.5,
        size: Size | None = None,
        device: torch.device | str | None = None,
        tiling: Tiling | None = None,
        max_iou: float | None = None,
        limits: Limits = DEFAULT_LIMITS,
        edges: Edges | None = None,
        fractions: Fractions | None = None,
    ) -> None:
        self.model = model if device is None else _moved(model, device)
        self.classes = classes_of(model, names)
        self.threshold = threshold_of(model, threshold)
        self.preprocess = look_of(model, size, edges)
        self.fractions = fractions
        self.tiling, self.limits = tiling, limits
        self.max_iou = None if max_iou is None else _checked("max_iou", max_iou)

    @classmethod
    def from_pretrained(
        cls,
        id_or_path: str | PathLike[str],
        device: torch.device | str | None = None,
        threshold: float | Literal["auto"] = 0.5,
        size: Size | None = None,
        *,
        revision: str | None = None,
        num_classes: int | None = None,
        tiling: Tiling | None = None,
        max_iou: float | None = None,
        edges: Edges | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> "Detector":
        """Load a short name ("r18", "nano"), a hub id, a folder, a file of weights, or an ONNX file
        that we exported (`deployment/onnx_model.py`; onnxruntime runs it on the CPU).

        Without `device` it uses the GPU, if there is one. Raises `ConfigError` for another device
        than the CPU with an ONNX file. For other options of `load_pretrained`,
        call that function and give its model to `Detector`.
        """
        from rtdetr_lab.deployment.onnx_model import device_for, model_to_run

        model = model_to_run(id_or_path, revision, num_classes)
        return cls(
            model,
            threshold=threshold,
            size=size,
            device=device_for(model, device),
            tiling=tiling,
            max_iou=max_iou,
            edges=edges,
            limits=limits,
        )

    @overload
    def __call__(self, pictures: list[Any], threshold: float | None = None) -> list[Detections]: ...

    @overload
    def __call__(self, pictures: Any, threshold: float | None = None) -> Detections: ...

    def __call__(
        self, pictures: Any, threshold: float | None = None
    ) -> Detections | list[Detections]:
        """Detect in one picture, or in each of a list or tuple; a list gives a list.

        Raises `ImageError` with the picture's path or its index in the list.
        """
        many = isinstance(pictures, list | tuple)
        results = []
        for result in self.each(pictures if many else [pictures], threshold):
            if isinstance(result, ImageError):
                raise result
            results.append(result)
        return results if many else results[0]

    def each(
        self, sources: Iterable[Any], threshold: float | None = None, batch_size: int = 8
    ) -> Iterator[Detections | ImageError]:
        """Yield, in order, the detections of every source, or the error of reading it.

        It reads and detects `batch_size` pictures at a time, so a stream may have any length.
        """
        require(batch_size >= 1, "batch_size", f"{batch_size} pictures", "take at least one")
        threshold = self.threshold if threshold is None else _checked("threshold", threshold)
        pending = enumerate(sources)
        while chunk := list(islice(pending, batch_size)):
            photos = [photo_or_error(index, source, self.limits) for index, source in chunk]
            pictures = [photo.rgb for photo in photos if isinstance(photo, Photo)]
            found = iter(self._detect(pictures, threshold, batch_size))
            for photo in photos:
                if isinstance(photo, Photo):
                    yield Detections.of(next(found), photo, self.classes)
                else:
                    yield photo

    def _detect(self, pictures: RGBs, threshold: float, batch_size: int) -> list[Found]:
        """Cut pictures into windows, detect in batches of windows, and merge the results."""
        sizes = [(rgb.shape[0], rgb.shape[1]) for rgb in pictures]
        windows = [self.tiling.windows(s) if self.tiling else [(0, 0, *s)] for s in sizes]
        crops = (
            rgb[top:bottom, left:right]
            for rgb, mine in zip(pictures, windows, strict=True)
            for top, left, bottom, right in mine
        )
        answers: list[Found] = []
        while batch := list(islice(crops, batch_size)):
            answers += self._forward(batch, threshold)
        results = []
        for size, mine in zip(sizes, windows, strict=True):
            parts, answers = answers[: len(mine)], answers[len(mine) :]
            found = self.tiling.merge(parts, mine, size) if self.tiling else parts[0]
            results.append(found if self.max_iou is None else suppress(found, self.max_iou))
        return results

    @torch.inference_mode()
    def _forward(self, pictures: RGBs, threshold: float) -> list[Found]:
        what = "the model is in training mode: dropout and batch statistics would be active"
        require(not self.model.training, "Detector", what, "call model.eval()")
        like = next(self.model.parameters(), torch.zeros(()))
        sizes = [(rgb.shape[0], rgb.shape[1]) for rgb in pictures]
        images = [self.preprocess(rgb) for rgb in pictures]
        return predict(
            self.model, images, sizes, threshold, to=like, fractions=self.fractions, with_masks=True
        )

    def __repr__(self) -> str:
        seen = self.preprocess
        size = "{} × {}".format(*seen.size) if isinstance(seen, Preprocess) else f"{seen.edges}"
        return f"Detector({type(self.model).__name__}, {len(self.classes)} classes, {size})"


def _moved(model: nn.Module, device: torch.device | str) -> nn.Module:
    kinds, what = (RuntimeError, AssertionError), f"{device} cannot be used: {{}}"
    with converting(kinds, ConfigError, "device", what, 'try "cpu"'):
        return model.to(device)


def threshold_of(model: nn.Module, given: float | Literal["auto"]) -> float:
    """Return the given threshold, or for "auto" the one that is stored with the model.

    Raises `ConfigError` if it is no score, and if the model stores none.
    """
    if given != "auto":
        return _checked("threshold", given)
    known = declared(model).metadata.threshold
    what = "is auto, but the model stores no threshold"
    require(known is not None, "threshold", what, "give a number; `train` stores one")
    assert known is not None
    return known


def _checked(where: str, fraction: float) -> float:
    require(0 <= fraction <= 1, where, f"{fraction} is not a score", "take a number from 0 to 1")
    return fraction


def panoptic(
    model: nn.Module,
    picture: Any,
    *,
    stuff: Iterable[str] = (),
    rule: Rule | None = None,
    edges: Edges | None = None,
    names: Iterable[str] | None = None,
) -> SegmentedPicture:
    """Segment a picture (of any kind that `Detector` takes). A class in `stuff` has one segment.

    `rule` decides which query gets a pixel (`images/panoptic.py`): `ByOverlap()` as in
    transformers, or the authors' `ByArea()`. `edges` (shortest, longest) default to those of the
    checkpoint, else to the paper's. Raises `ConfigError` for a model without masks or in training
    mode and for an unknown class, and `ImageError` for a picture that cannot be read.
    """
    require(not model.training, "model", "is in training mode", "call model.eval()")
    classes = classes_of(model, names)
    labels = {classes.label_of(name) for name in stuff}
    look = look_for_segments(model, edges)
    photo = read_photo(picture)
    (found,) = predict_segments(model, [photo.rgb], look, labels, rule)
    return SegmentedPicture(found.ids.cpu(), found.segments, classes, photo.frame, photo.rgb)
