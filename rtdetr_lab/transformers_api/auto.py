r"""# Auto: the class for the `model_type` of a folder"""

from typing import Any

from rtdetr_lab.checkpoints.files import read_json
from rtdetr_lab.config import require
from rtdetr_lab.transformers_api.detr import DetrForObjectDetection
from rtdetr_lab.transformers_api.hub import file_of, taken
from rtdetr_lab.transformers_api.processor import DetrImageProcessor, RTDetrImageProcessor
from rtdetr_lab.transformers_api.rtdetr import RTDetrForObjectDetection, RTDetrV2ForObjectDetection

MODELS: dict[str, Any] = {
    "rt_detr": RTDetrForObjectDetection,
    "rt_detr_v2": RTDetrV2ForObjectDetection,
    "detr": DetrForObjectDetection,
}
PROCESSORS: dict[str, Any] = {"RTDetr": RTDetrImageProcessor, "Detr": DetrImageProcessor}
"""First letters of their class names → our class."""


def _tree(name: Any, file: str, options: dict[str, Any]) -> dict[str, Any]:
    return read_json(file_of(name, file, **taken(options)))


def _model(kind: str, where: Any) -> Any:
    known = f"give one of {', '.join(MODELS)}"
    require(kind in MODELS, f"{where}[model_type]", f"is {kind!r}", known)
    return MODELS[kind]


class AutoConfig:
    """Loader for all configurations of detectors: only `from_pretrained`."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **options: Any) -> Any:
        """Read the configuration of a hub id or folder, in the class of its `model_type`."""
        name = pretrained_model_name_or_path
        tree = _tree(name, "config.json", options)
        return _model(tree.get("model_type", ""), name).config_class.from_dict(tree, **options)


class AutoModelForObjectDetection:
    """Loader for all detectors: `from_pretrained`, and `from_config` for a new model."""

    @classmethod
    def from_config(cls, config: Any) -> Any:
        """Build a new model, in the class of the configuration's `model_type`."""
        return _model(getattr(config, "model_type", ""), "config")(config)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **options: Any) -> Any:
        """Load the model of a hub id or folder, in the class of its `model_type`."""
        name = pretrained_model_name_or_path
        kind = _tree(name, "config.json", dict(options)).get("model_type", "")
        return _model(kind, name).from_pretrained(name, **options)


class AutoImageProcessor:
    """Loader for all image processors: only `from_pretrained`."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **options: Any) -> Any:
        """Load the processor of a hub id or folder, in the class that wrote it."""
        name = pretrained_model_name_or_path
        tree = _tree(name, "preprocessor_config.json", options)
        kind = str(tree.get("image_processor_type", tree.get("feature_extractor_type")))
        fitting = [one for start, one in PROCESSORS.items() if kind.startswith(start)]
        remedy = "give the processor of an RT-DETR or a DETR"
        require(fitting, f"{name}[image_processor_type]", f"is {kind!r}", remedy)
        return fitting[0].from_dict(tree, **options)
