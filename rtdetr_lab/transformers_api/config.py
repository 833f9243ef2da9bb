r"""# RTDetrConfig and its relatives: the documented parameters, one by one

`rtdetr_lab.RTDetrConfig` is transformers' flat configuration; `rtdetr_lab.RTDETRConfig` is ours,
and `RTDetrConfig(...).to_lab()` is the way from one to the other.

| parameter                                | here                                           |
|------------------------------------------|------------------------------------------------|
| `learn_initial_query=True`               | works (theirs fails to build)                  |
| `initializer_bias_prior_prob`            | works, class biases of a new model             |
| `auxiliary_loss=False`                   | works: only the last layer is judged           |
| `with_box_refine=False`, `eval_size`, …  | refused by name                                |
| v2's `decoder_n_levels`                  | must agree with `num_feature_levels`           |
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rtdetr_lab.backbone import ResNetDConfig
from rtdetr_lab.checkpoints.transformers_config import from_transformers
from rtdetr_lab.config import require
from rtdetr_lab.transformers_api.options import DetectorOptions, Options


@dataclass(kw_only=True)
class RTDetrResNetConfig(Options):
    """The backbone: a ResNet-D."""

    num_channels: int = 3
    embedding_size: int = 64
    hidden_sizes: list[int] | tuple[int, ...] = (256, 512, 1024, 2048)
    depths: list[int] | tuple[int, ...] = (3, 4, 6, 3)
    layer_type: str = "bottleneck"
    hidden_act: str = "relu"
    downsample_in_first_stage: bool = False
    downsample_in_bottleneck: bool = False
    out_features: list[str] | None = None
    out_indices: list[int] | tuple[int, ...] | None = None

    model_type: ClassVar[str] = "rt_detr_resnet"

    def __post_init__(self) -> None:
        self.hidden_sizes, self.depths = list(self.hidden_sizes), list(self.depths)
        self.stage_names = ["stem", *(f"stage{i + 1}" for i in range(len(self.depths)))]
        self._align()
        super().__post_init__()

    def to_lab(self) -> ResNetDConfig:
        """Our `ResNetDConfig`."""
        inner = {**self.to_dict(), "model_type": "rt_detr_resnet"}
        outputs = [self.hidden_sizes[i - 1] for i in self.out_indices or () if i]
        tree = {
            "model_type": "rt_detr",
            "backbone_config": inner,
            "encoder_in_channels": outputs,
            "feat_strides": [2 ** (i + 1) for i in self.out_indices or ()],
            "encode_proj_layers": [len(outputs) - 1],
            "decoder_in_channels": [256] * len(outputs),
            "num_feature_levels": max(3, len(outputs)),
        }
        return from_transformers(tree, type(self).__name__)[0].backbone

    @property
    def channels(self) -> list[int]:
        """Channels of the maps it gives."""
        return [self.hidden_sizes[i - 1] for i in self.out_indices or ()]

    def _align(self) -> None:
        names = self.stage_names
        if self.out_indices is None and self.out_features is None:
            self.out_indices = [len(names) - 1]
        if self.out_indices is None:
            unknown = [name for name in self.out_features or () if name not in names]
            known = f"give some of {', '.join(names)}"
            require(not unknown, self._at("out_features"), f"names {unknown}", known)
            self.out_indices = [names.index(name) for name in self.out_features or ()]
        indices = [i + len(names) if i < 0 else i for i in self.out_indices]
        inside = bool(indices) and all(0 < i < len(names) for i in indices)
        remedy = f"give stages 1 … {len(names) - 1}"
        require(inside, self._at("out_indices"), f"is {self.out_indices}", remedy)
        wanted = [names[i] for i in indices]
        agree = self.out_features is None or list(self.out_features) == wanted
        require(agree, self._at("out_features"), "contradicts out_indices", "give one of the two")
        self.out_indices, self.out_features = indices, wanted


@dataclass(kw_only=True)
class RTDetrConfig(DetectorOptions):
    """RT-DETR, with all documented parameters."""

    initializer_range: float = 0.01
    initializer_bias_prior_prob: float | None = None
    layer_norm_eps: float = 1e-5
    batch_norm_eps: float = 1e-5
    backbone_config: dict[str, Any] | RTDetrResNetConfig | None = None
    backbone: str | None = None
    use_pretrained_backbone: bool = False
    use_timm_backbone: bool = False
    freeze_backbone_batch_norms: bool = True
    backbone_kwargs: dict[str, Any] | None = None
    encoder_hidden_dim: int = 256
    encoder_in_channels: list[int] | tuple[int, ...] = (512, 1024, 2048)
    feat_strides: list[int] | tuple[int, ...] = (8, 16, 32)
    encoder_layers: int = 1
    encoder_ffn_dim: int = 1024
    encoder_attention_heads: int = 8
    dropout: float = 0.0
    activation_dropout: float = 0.0
    encode_proj_layers: list[int] | tuple[int, ...] = (2,)
    positional_encoding_temperature: int = 10000
    encoder_activation_function: str = "gelu"
    activation_function: str = "silu"
    eval_size: tuple[int, int] | list[int] | None = None
    normalize_before: bool = False
    hidden_expansion: float = 1.0
    d_model: int = 256
    num_queries: int = 300
    decoder_in_channels: list[int] | tuple[int, ...] = (256, 256, 256)
    decoder_ffn_dim: int = 1024
    num_feature_levels: int = 3
    decoder_n_points: int = 4
    decoder_layers: int = 6
    decoder_attention_heads: int = 8
    decoder_activation_function: str = "relu"
    attention_dropout: float = 0.0
    num_denoising: int = 100
    label_noise_ratio: float = 0.5
    box_noise_scale: float = 1.0
    learn_initial_query: bool = False
    anchor_image_size: tuple[int, int] | list[int] | None = None
    disable_custom_kernels: bool = True
    with_box_refine: bool = True
    is_encoder_decoder: bool = True
    matcher_alpha: float = 0.25
    matcher_gamma: float = 2.0
    matcher_class_cost: float = 2.0
    matcher_bbox_cost: float = 5.0
    matcher_giou_cost: float = 2.0
    use_focal_loss: bool = True
    auxiliary_loss: bool = True
    focal_loss_alpha: float = 0.75
    focal_loss_gamma: float = 2.0
    weight_loss_vfl: float = 1.0
    weight_loss_bbox: float = 5.0
    weight_loss_giou: float = 2.0
    eos_coefficient: float = 1e-4

    model_type: ClassVar[str] = "rt_detr"
    only: ClassVar[Sequence[str]] = [
        "initializer_range",
        "backbone",
        "use_pretrained_backbone",
        "use_timm_backbone",
        "backbone_kwargs",
        "anchor_image_size",
        "disable_custom_kernels",
        "is_encoder_decoder",
        "eos_coefficient",
    ]

    def __post_init__(self) -> None:
        given = self.backbone_config
        if given is None:
            given = RTDetrResNetConfig(out_indices=[2, 3, 4])
        if isinstance(given, dict):
            given = RTDetrResNetConfig.from_dict(given)
        what = f"is {type(given).__name__}"
        known = isinstance(given, RTDetrResNetConfig)
        require(known, self._at("backbone_config"), what, "give an RTDetrResNetConfig or its dict")
        self.backbone_config = given
        prior = self.initializer_bias_prior_prob
        possible = prior is None or 0 < prior < 1
        at = self._at("initializer_bias_prior_prob")
        require(possible, at, f"is {prior}", "give a probability between 0 and 1")
        super().__post_init__()

    def to_lab(self) -> Any:
        """Our `RTDETRConfig`."""
        return from_transformers(self.to_dict(), type(self).__name__)[0]


@dataclass(kw_only=True)
class RTDetrV2ResNetConfig(RTDetrResNetConfig):
    """The same backbone."""


@dataclass(kw_only=True)
class RTDetrV2Config(RTDetrConfig):
    """RT-DETRv2: what v1 has, and how the decoder samples."""

    decoder_n_levels: int = 3
    decoder_offset_scale: float = 0.5
    decoder_method: str = "default"

    model_type: ClassVar[str] = "rt_detr_v2"
    special_cases: ClassVar[tuple[str, ...]] = ("rt_detr",)

    def check(self) -> None:
        """As v1, and the two numbers of levels must agree."""
        what = f"is {self.decoder_n_levels}, num_feature_levels is {self.num_feature_levels}"
        agree = self.decoder_n_levels == self.num_feature_levels
        require(agree, self._at("decoder_n_levels"), what, "let them agree")
        super().check()
