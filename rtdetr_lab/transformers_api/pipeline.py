r"""# Pipeline: pictures in, plain Python values out

    found = rtdetr_lab.pipeline("object-detection", model="PekingU/rtdetr_r50vd")("street.jpg")

There are two tasks, with the results of `transformers.pipeline`: for every object its `score`, its
`label`, and a `box` (corners as whole pixels) or a `mask` (255 on the object). It works without
transformers. `Detector` does more: tiles, batches, exact boxes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import torch
from PIL import Image

from rtdetr_lab.config import require
from rtdetr_lab.errors import ImageError
from rtdetr_lab.images.decode import decode
from rtdetr_lab.notation import Size
from rtdetr_lab.transformers_api.auto import AutoImageProcessor, AutoModelForObjectDetection
from rtdetr_lab.transformers_api.detr import DetrForSegmentation

MODELS: dict[str, Any] = {
    "object-detection": AutoModelForObjectDetection,
    "image-segmentation": DetrForSegmentation,
}
"""Task → the class that loads its model."""

LARGEST = 64 * 2**20
"""Bytes of a picture that we read from an address."""


def pipeline(
    task: str,
    model: Any,
    image_processor: Any = None,
    device: Any = None,
    device_map: Any = None,
    dtype: Any = None,
    **options: Any,
) -> "Pipeline":
    """Make the pipeline of a task; `model` and `image_processor` are objects, folders or hub ids.

    `options` go to `from_pretrained` (`revision`, `token` …). Raises `ConfigError` or what loading
    raises.
    """
    require(task in MODELS, "task", f"is {task!r}", f"give one of {', '.join(MODELS)}")
    if not callable(model):
        name = model
        place = {None: device_map, -1: "cpu"}.get(device, device)
        model = MODELS[task].from_pretrained(name, device_map=place, dtype=dtype, **options)
        image_processor = name if image_processor is None else image_processor
    what, remedy = "is missing, and the model is an object", "give the processor too"
    require(image_processor is not None, "image_processor", what, remedy)
    if not callable(image_processor):
        image_processor = AutoImageProcessor.from_pretrained(image_processor)
    return Pipeline(task, model, image_processor)


@dataclass(frozen=True)
class Pipeline:
    """A task, its model and its processor; `pipeline` makes it."""

    task: str
    model: Any
    image_processor: Any

    def __call__(self, inputs: Any, timeout: float | None = None, **options: Any) -> list[Any]:
        """Return a list per picture, or one list if `inputs` is one picture.

        A picture is a path, an address (http or https), or an opened picture. `options` are those
        of the task: `threshold`, and for masks `subtask`, `mask_threshold` and
        `overlap_mask_area_threshold`. Raises `ImageError` for what is no picture.
        """
        if isinstance(inputs, list | tuple):
            return [self(one, timeout, **options) for one in inputs]
        answer = self._boxes if self.task == "object-detection" else self._masks
        rgb = decode(fetched(inputs, timeout))
        batch = self.image_processor(rgb, return_tensors="pt").to(self.model.device)
        batch["pixel_values"] = batch["pixel_values"].to(self.model.dtype)
        with torch.inference_mode():
            outputs = self.model(**batch)
        return answer(outputs, rgb.shape[:2], **options)

    def _boxes(self, outputs: Any, size: Size, threshold: float = 0.5) -> list[dict[str, Any]]:
        processed = self.image_processor.post_process_object_detection(outputs, threshold, [size])
        found, corners = processed[0], ("xmin", "ymin", "xmax", "ymax")
        rows = zip(found["scores"].tolist(), found["labels"].tolist(), found["boxes"], strict=True)
        return [
            {
                "score": score,
                "label": self._name(label),
                "box": dict(zip(corners, box.int().tolist(), strict=True)),
            }
            for score, label, box in rows
        ]

    def _masks(
        self,
        outputs: Any,
        size: Size,
        subtask: str | None = None,
        threshold: float = 0.9,
        mask_threshold: float = 0.5,
        overlap_mask_area_threshold: float = 0.5,
    ) -> list[dict[str, Any]]:
        subtask, known = subtask or "panoptic", ("panoptic", "instance", "semantic")
        require(subtask in known, "subtask", f"is {subtask!r}", f"give one of {', '.join(known)}")
        process: Callable[..., Any] = getattr(
            self.image_processor, f"post_process_{subtask}_segmentation"
        )
        if subtask == "semantic":
            (labels,) = process(outputs, [size])
            named = [(None, label, labels == label) for label in labels.unique().tolist()]
        else:
            rules = (threshold, mask_threshold, overlap_mask_area_threshold)
            (found,) = process(outputs, *rules, target_sizes=[size])
            ids, segments = found["segmentation"], found["segments_info"]
            named = [(s["score"], s["label_id"], ids == s["id"]) for s in segments]
        return [
            {"score": score, "label": self._name(label), "mask": drawn(mask)}
            for score, label, mask in named
        ]

    def _name(self, label: int) -> str:
        return str(self.model.config.id2label.get(label, f"LABEL_{label}"))


def drawn(mask: torch.Tensor) -> Image.Image:
    """Convert a mask (bool, H W) to a picture: 255 on the object."""
    return Image.fromarray(mask.cpu().numpy().astype("uint8") * 255)


def fetched(source: Any, timeout: float | None) -> Any:
    """Read the bytes behind an address; return anything else as it is. Raises `ImageError`."""
    if not (isinstance(source, str) and source.startswith(("http://", "https://"))):
        return source
    try:
        with urlopen(source, timeout=timeout) as answer:
            content = answer.read(LARGEST + 1)
    except (URLError, OSError) as error:
        raise ImageError(source, f"cannot be read: {error}", "correct the address") from error
    what = f"has more than {LARGEST // 2**20} MB"
    require(len(content) <= LARGEST, source, what, "give a smaller picture", ImageError)
    return BytesIO(content)
