r"""# DetrConfig: the documented parameters of DETR

| parameter                                     | here                                          |
|-----------------------------------------------|-----------------------------------------------|
| `encoder_layerdrop`, `decoder_layerdrop`      | work (theirs reads neither)                   |
| `dilation=True` over a `ResNetConfig`         | refused (theirs ignores it)                   |
| `use_pretrained_backbone=True` of a new model | refused: there is no download inside `__init__` |
| `attention_dropout`, `init_std`, …            | refused by name unless they are the default   |

Without a `backbone_config` the backbone is timm's ResNet-50, under timm's names in a file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rtdetr_lab.checkpoints.transformers_config import from_transformers
from rtdetr_lab.config import require
from rtdetr_lab.detr.model import DETRConfig
from rtdetr_lab.transformers_api.options import DetectorOptions


@dataclass(kw_only=True)
class DetrConfig(DetectorOptions):
    """DETR, with all documented parameters."""

    backbone_config: Any = None
    backbone: str | None = None
    use_timm_backbone: bool = True
    use_pretrained_backbone: bool = False
    backbone_kwargs: dict[str, Any] | None = None
    num_channels: int = 3
    num_queries: int = 100
    encoder_layers: int = 6
    encoder_ffn_dim: int = 2048
    encoder_attention_heads: int = 8
    decoder_layers: int = 6
    decoder_ffn_dim: int = 2048
    decoder_attention_heads: int = 8
    encoder_layerdrop: float | int = 0.0
    decoder_layerdrop: float | int = 0.0
    is_encoder_decoder: bool = True
    activation_function: str = "relu"
    d_model: int = 256
    dropout: float | int = 0.1
    attention_dropout: float | int = 0.0
    activation_dropout: float | int = 0.0
    init_std: float | int = 0.02
    init_xavier_std: float | int = 1.0
    auxiliary_loss: bool = False
    position_embedding_type: str = "sine"
    dilation: bool = False
    class_cost: float | int = 1
    bbox_cost: float | int = 5
    giou_cost: float | int = 2
    mask_loss_coefficient: float | int = 1
    dice_loss_coefficient: float | int = 1
    bbox_loss_coefficient: float | int = 5
    giou_loss_coefficient: float | int = 2
    eos_coefficient: float | int = 0.1

    model_type: ClassVar[str] = "detr"
    only: ClassVar[Sequence[str]] = [
        "num_channels",
        "is_encoder_decoder",
        "attention_dropout",
        "activation_dropout",
        "init_std",
        "init_xavier_std",
    ]

    def __post_init__(self) -> None:
        given = self.backbone_config
        if given is not None and not isinstance(given, Mapping):
            what, remedy = f"is {type(given).__name__}", "give a ResNetConfig or its dict"
            require(
                callable(getattr(given, "to_dict", None)), self._at("backbone_config"), what, remedy
            )
            given = given.to_dict()
        self.backbone_config = self._default() if given is None else dict(given)
        super().__post_init__()

    def _default(self) -> dict[str, Any]:
        if not self.use_timm_backbone:
            return {"model_type": "resnet", "out_features": ["stage4"], "out_indices": [4]}
        timm = {
            "model_type": "timm_backbone",
            "backbone": self.backbone or "resnet50",
            "num_channels": self.num_channels,
            "features_only": True,
            "use_pretrained_backbone": False,
            "out_indices": [1, 2, 3, 4],
            **(self.backbone_kwargs or {}),
        }
        return timm | ({"output_stride": 16} if self.dilation else {})

    def check(self) -> None:
        """Raise `ConfigError` for what cannot be built, or is not done here."""
        for part in ("encoder", "decoder"):
            key, remedy = f"{part}_attention_heads", "give a number that divides d_model"
            heads = getattr(self, key)
            fits = heads >= 1 and self.d_model % heads == 0
            require(fits, self._at(key), f"is {heads}, d_model is {self.d_model}", remedy)
        super().check()

    @property
    def speaks_timm(self) -> bool:
        """Are the tensors of the backbone named as timm names them?"""
        return self.backbone_config.get("model_type") == "timm_backbone"

    @property
    def num_hidden_layers(self) -> int:
        """Another name of `encoder_layers`."""
        return self.encoder_layers

    def to_lab(self, masks: bool = False) -> DETRConfig:
        """Our `DETRConfig`, or with `masks` our `SegmentationConfig`."""
        found: DETRConfig = from_transformers(self.to_dict(), type(self).__name__, masks)[0]
        return found
