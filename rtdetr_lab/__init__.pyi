"""The front door: every public name, and the module it lives in.

`__init__.py` reads this file to find a name when it is first used; type checkers and editors read
it as they read any stub.
"""

from .checkpoints.backbone import load_backbone as load_backbone
from .checkpoints.load import load_pretrained as load_pretrained
from .checkpoints.save import save_pretrained as save_pretrained
from .commands.explore import explore as explore
from .commands.readings import heatmap as heatmap
from .config import diff as diff
from .config import replace_at as replace_at
from .deployment.form import deploy as deploy
from .detections import Detections as Detections
from .detector import Detector as Detector
from .detector import panoptic as panoptic
from .detr.model import DETRConfig as DETRConfig
from .detr.model import detr_nano as detr_nano
from .detr.model import detr_r50 as detr_r50
from .detr.model import detr_r50_dc5 as detr_r50_dc5
from .detr.model import detr_r101 as detr_r101
from .detr.model import detr_r101_dc5 as detr_r101_dc5
from .detr.segmentation import detr_r50_panoptic as detr_r50_panoptic
from .evaluation.evaluate import evaluate as evaluate
from .model import DetectionModel as DetectionModel
from .model import Metadata as Metadata
from .rtdetr import RTDETRConfig as RTDETRConfig
from .rtdetr import rtdetr_nano as rtdetr_nano
from .rtdetr import rtdetr_r18 as rtdetr_r18
from .rtdetr import rtdetr_r34 as rtdetr_r34
from .rtdetr import rtdetr_r50 as rtdetr_r50
from .rtdetr import rtdetr_r50_m as rtdetr_r50_m
from .rtdetr import rtdetr_r101 as rtdetr_r101
from .rtdetrv2 import rtdetrv2_r18 as rtdetrv2_r18
from .rtdetrv2 import rtdetrv2_r34 as rtdetrv2_r34
from .rtdetrv2 import rtdetrv2_r50 as rtdetrv2_r50
from .rtdetrv2 import rtdetrv2_r50_m as rtdetrv2_r50_m
from .rtdetrv2 import rtdetrv2_r101 as rtdetrv2_r101
from .structures import Prediction as Prediction
from .structures import Targets as Targets
from .successors.dfine import DFINEConfig as DFINEConfig
from .successors.dfine import dfine_l as dfine_l
from .successors.dfine import dfine_m as dfine_m
from .successors.dfine import dfine_n as dfine_n
from .successors.dfine import dfine_nano as dfine_nano
from .successors.dfine import dfine_s as dfine_s
from .successors.dfine import dfine_x as dfine_x
from .successors.hgnetv2 import rtdetr_l as rtdetr_l
from .successors.hgnetv2 import rtdetr_x as rtdetr_x
from .taps import record as record
from .taps import tap as tap
from .training import train as train
from .transformers_api.auto import AutoImageProcessor as AutoImageProcessor
from .transformers_api.auto import AutoModelForObjectDetection as AutoModelForObjectDetection
from .transformers_api.config import DetrConfig as DetrConfig
from .transformers_api.config import RTDetrConfig as RTDetrConfig
from .transformers_api.config import RTDetrResNetConfig as RTDetrResNetConfig
from .transformers_api.config import RTDetrV2Config as RTDetrV2Config
from .transformers_api.config import RTDetrV2ResNetConfig as RTDetrV2ResNetConfig
from .transformers_api.detr import DetrForObjectDetection as DetrForObjectDetection
from .transformers_api.detr import DetrForSegmentation as DetrForSegmentation
from .transformers_api.detr import DetrModel as DetrModel
from .transformers_api.panoptic_annotations import rgb_to_id as rgb_to_id
from .transformers_api.processor import DetrImageProcessor as DetrImageProcessor
from .transformers_api.processor import DetrImageProcessorPil as DetrImageProcessorPil
from .transformers_api.processor import RTDetrImageProcessor as RTDetrImageProcessor
from .transformers_api.processor import RTDetrImageProcessorFast as RTDetrImageProcessorFast
from .transformers_api.processor import RTDetrV2ImageProcessor as RTDetrV2ImageProcessor
from .transformers_api.rtdetr import RTDetrForObjectDetection as RTDetrForObjectDetection
from .transformers_api.rtdetr import RTDetrModel as RTDetrModel
from .transformers_api.rtdetr import RTDetrResNetBackbone as RTDetrResNetBackbone
from .transformers_api.rtdetr import RTDetrResnetBackbone as RTDetrResnetBackbone
from .transformers_api.rtdetr import RTDetrV2ForObjectDetection as RTDetrV2ForObjectDetection
from .transformers_api.rtdetr import RTDetrV2Model as RTDetrV2Model
from .transformers_api.rtdetr import RTDetrV2ResNetBackbone as RTDetrV2ResNetBackbone

__version__: str
