"""# rtdetr_lab: real-time detection transformers to read, run and take apart

    import rtdetr_lab as lab

The names below are the front door. They are looked up when first used, so that importing the
package costs next to nothing beyond `import torch`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:  # the same names for type checkers and editors; a test compares the two lists
    from rtdetr_lab.checkpoints.backbone import load_backbone as load_backbone
    from rtdetr_lab.checkpoints.load import load_pretrained as load_pretrained
    from rtdetr_lab.checkpoints.save import save_pretrained as save_pretrained
    from rtdetr_lab.config import diff as diff
    from rtdetr_lab.config import replace_at as replace_at
    from rtdetr_lab.deployment.form import deploy as deploy
    from rtdetr_lab.detections import Detections as Detections
    from rtdetr_lab.detector import Detector as Detector
    from rtdetr_lab.detr import DETRConfig as DETRConfig
    from rtdetr_lab.detr import detr_nano as detr_nano
    from rtdetr_lab.detr import detr_r50 as detr_r50
    from rtdetr_lab.detr import detr_r50_dc5 as detr_r50_dc5
    from rtdetr_lab.detr import detr_r101 as detr_r101
    from rtdetr_lab.detr import detr_r101_dc5 as detr_r101_dc5
    from rtdetr_lab.evaluation.evaluate import evaluate as evaluate
    from rtdetr_lab.explored import explore as explore
    from rtdetr_lab.rtdetr import RTDETRConfig as RTDETRConfig
    from rtdetr_lab.rtdetr import rtdetr_nano as rtdetr_nano
    from rtdetr_lab.rtdetr import rtdetr_r18 as rtdetr_r18
    from rtdetr_lab.rtdetr import rtdetr_r34 as rtdetr_r34
    from rtdetr_lab.rtdetr import rtdetr_r50 as rtdetr_r50
    from rtdetr_lab.rtdetr import rtdetr_r50_m as rtdetr_r50_m
    from rtdetr_lab.rtdetr import rtdetr_r101 as rtdetr_r101
    from rtdetr_lab.rtdetrv2 import rtdetrv2_r18 as rtdetrv2_r18
    from rtdetr_lab.rtdetrv2 import rtdetrv2_r34 as rtdetrv2_r34
    from rtdetr_lab.rtdetrv2 import rtdetrv2_r50 as rtdetrv2_r50
    from rtdetr_lab.rtdetrv2 import rtdetrv2_r50_m as rtdetrv2_r50_m
    from rtdetr_lab.rtdetrv2 import rtdetrv2_r101 as rtdetrv2_r101
    from rtdetr_lab.segmentation import detr_r50_panoptic as detr_r50_panoptic
    from rtdetr_lab.segmenter import panoptic as panoptic
    from rtdetr_lab.structures import Prediction as Prediction
    from rtdetr_lab.structures import Targets as Targets
    from rtdetr_lab.taps import record as record
    from rtdetr_lab.taps import tap as tap
    from rtdetr_lab.training import train as train
    from rtdetr_lab.transformers_api.auto import AutoImageProcessor as AutoImageProcessor
    from rtdetr_lab.transformers_api.auto import (
        AutoModelForObjectDetection as AutoModelForObjectDetection,
    )
    from rtdetr_lab.transformers_api.config import RTDetrConfig as RTDetrConfig
    from rtdetr_lab.transformers_api.config import RTDetrResNetConfig as RTDetrResNetConfig
    from rtdetr_lab.transformers_api.config import RTDetrV2Config as RTDetrV2Config
    from rtdetr_lab.transformers_api.config import RTDetrV2ResNetConfig as RTDetrV2ResNetConfig
    from rtdetr_lab.transformers_api.detr import (
        DetrForObjectDetection as DetrForObjectDetection,
    )
    from rtdetr_lab.transformers_api.detr import (
        DetrForSegmentation as DetrForSegmentation,
    )
    from rtdetr_lab.transformers_api.detr import DetrModel as DetrModel
    from rtdetr_lab.transformers_api.detr_config import DetrConfig as DetrConfig
    from rtdetr_lab.transformers_api.detr_processor import (
        DetrImageProcessor as DetrImageProcessor,
    )
    from rtdetr_lab.transformers_api.detr_processor import (
        DetrImageProcessorPil as DetrImageProcessorPil,
    )
    from rtdetr_lab.transformers_api.panoptic_annotations import rgb_to_id as rgb_to_id
    from rtdetr_lab.transformers_api.processor import RTDetrImageProcessor as RTDetrImageProcessor
    from rtdetr_lab.transformers_api.processor import (
        RTDetrImageProcessorFast as RTDetrImageProcessorFast,
    )
    from rtdetr_lab.transformers_api.processor import (
        RTDetrV2ImageProcessor as RTDetrV2ImageProcessor,
    )
    from rtdetr_lab.transformers_api.rtdetr import (
        RTDetrForObjectDetection as RTDetrForObjectDetection,
    )
    from rtdetr_lab.transformers_api.rtdetr import RTDetrModel as RTDetrModel
    from rtdetr_lab.transformers_api.rtdetr import RTDetrResNetBackbone as RTDetrResNetBackbone
    from rtdetr_lab.transformers_api.rtdetr import RTDetrResnetBackbone as RTDetrResnetBackbone
    from rtdetr_lab.transformers_api.rtdetr import (
        RTDetrV2ForObjectDetection as RTDetrV2ForObjectDetection,
    )
    from rtdetr_lab.transformers_api.rtdetr import RTDetrV2Model as RTDetrV2Model
    from rtdetr_lab.transformers_api.rtdetr import RTDetrV2ResNetBackbone as RTDetrV2ResNetBackbone

_HOME = {
    "load_backbone": "checkpoints.backbone",
    "load_pretrained": "checkpoints.load",
    "save_pretrained": "checkpoints.save",
    "deploy": "deployment.form",
    "diff": "config",
    "replace_at": "config",
    "Detections": "detections",
    "Detector": "detector",
    "DETRConfig": "detr",
    "detr_nano": "detr",
    "detr_r101": "detr",
    "detr_r101_dc5": "detr",
    "detr_r50": "detr",
    "detr_r50_dc5": "detr",
    "detr_r50_panoptic": "segmentation",
    "panoptic": "segmenter",
    "evaluate": "evaluation.evaluate",
    "explore": "explored",
    "RTDETRConfig": "rtdetr",
    "rtdetr_nano": "rtdetr",
    "rtdetr_r101": "rtdetr",
    "rtdetr_r18": "rtdetr",
    "rtdetr_r34": "rtdetr",
    "rtdetr_r50": "rtdetr",
    "rtdetr_r50_m": "rtdetr",
    "rtdetrv2_r101": "rtdetrv2",
    "rtdetrv2_r18": "rtdetrv2",
    "rtdetrv2_r34": "rtdetrv2",
    "rtdetrv2_r50": "rtdetrv2",
    "rtdetrv2_r50_m": "rtdetrv2",
    "Prediction": "structures",
    "Targets": "structures",
    "record": "taps",
    "tap": "taps",
    "train": "training",
    "AutoImageProcessor": "transformers_api.auto",
    "AutoModelForObjectDetection": "transformers_api.auto",
    "RTDetrConfig": "transformers_api.config",
    "RTDetrResNetConfig": "transformers_api.config",
    "RTDetrV2Config": "transformers_api.config",
    "RTDetrV2ResNetConfig": "transformers_api.config",
    "DetrForObjectDetection": "transformers_api.detr",
    "DetrForSegmentation": "transformers_api.detr",
    "DetrModel": "transformers_api.detr",
    "DetrConfig": "transformers_api.detr_config",
    "DetrImageProcessor": "transformers_api.detr_processor",
    "DetrImageProcessorPil": "transformers_api.detr_processor",
    "rgb_to_id": "transformers_api.panoptic_annotations",
    "RTDetrImageProcessor": "transformers_api.processor",
    "RTDetrImageProcessorFast": "transformers_api.processor",
    "RTDetrV2ImageProcessor": "transformers_api.processor",
    "RTDetrForObjectDetection": "transformers_api.rtdetr",
    "RTDetrModel": "transformers_api.rtdetr",
    "RTDetrResNetBackbone": "transformers_api.rtdetr",
    "RTDetrResnetBackbone": "transformers_api.rtdetr",
    "RTDetrV2ForObjectDetection": "transformers_api.rtdetr",
    "RTDetrV2Model": "transformers_api.rtdetr",
    "RTDetrV2ResNetBackbone": "transformers_api.rtdetr",
}

__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rtdetr_lab' has no attribute '{name}'")
    value = getattr(import_module(f"rtdetr_lab.{_HOME[name]}"), name)
    globals()[name] = value  # found once, a plain attribute from then on
    return value


def __dir__() -> list[str]:
    return __all__
