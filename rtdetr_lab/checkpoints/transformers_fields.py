r"""# Fields: every parameter that transformers documents

A line has the parameter's name, its type, its default, and its meaning here. transformers does not
write a value to `config.json` if it equals the default of the release that writes the file. So a
missing key means their default, never ours.

| written as              | means                                                                  |
|-------------------------|------------------------------------------------------------------------|
| `at(default, path, …)`  | the value of our configuration at that path, or at several             |
| `only(value)`           | no other value is supported: broken upstream, or never trained         |
| `unread(value)`         | no computation reads it; the documented classes refuse other values    |
| a plain default         | means more than one value: see `transformers_config.py` and similar    |

`transformers_table.py` reads and writes a `config.json` with these lines, and
`transformers_api/config.py` makes the documented classes from them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


def at(default: Any, *paths: str) -> Any:
    """Declare a field that is the value of our configuration at these paths."""
    return field(default=default, metadata={"paths": paths})


def only(value: Any) -> Any:
    """Declare a field with a single possible value here, in files too."""
    return field(default=value, metadata={"only": True, "in_files": True})


def unread(value: Any) -> Any:
    """Declare a field that no computation reads."""
    return field(default=value, metadata={"only": True})


@dataclass(kw_only=True)
class ResNetFields:
    """Fields of the backbone: a ResNet-D, or DETR's ResNet."""

    num_channels: int = only(3)
    embedding_size: int = at(64, "backbone.stem_width")
    hidden_sizes: Sequence[int] = at((256, 512, 1024, 2048), "backbone.widths")
    depths: Sequence[int] = at((3, 4, 6, 3), "backbone.depths")
    layer_type: str = at("bottleneck", "backbone.block")
    hidden_act: str = at("relu", "backbone.act")
    downsample_in_first_stage: bool = only(False)
    downsample_in_bottleneck: bool = only(False)
    out_features: list[str] | None = None
    out_indices: Sequence[int] | None = None


@dataclass(kw_only=True)
class HGNetV2Fields:
    """Fields of an HGNetv2."""

    num_channels: int = only(3)
    embedding_size: int = unread(64)
    hidden_sizes: Sequence[int] = (256, 512, 1024, 2048)
    depths: Sequence[int] = unread((3, 4, 6, 3))
    hidden_act: str = only("relu")
    stem_channels: Sequence[int] = (3, 32, 48)
    stem_strides: Sequence[int] = only((2, 1, 1, 2, 1))
    stage_in_channels: Sequence[int] = (48, 128, 512, 1024)
    stage_mid_channels: Sequence[int] = at((48, 96, 192, 384), "backbone.mid_widths")
    stage_out_channels: Sequence[int] = at((128, 512, 1024, 2048), "backbone.widths")
    stage_num_blocks: Sequence[int] = at((1, 1, 3, 1), "backbone.depths")
    stage_downsample: Sequence[bool] = only((False, True, True, True))
    stage_downsample_strides: Sequence[int] = only((2, 2, 2, 2))
    stage_light_block: Sequence[bool] = (False, False, True, True)
    stage_kernel_size: Sequence[int] = at((3, 3, 5, 5), "backbone.kernels")
    stage_numb_of_layers: Sequence[int] = at((6, 6, 6, 6), "backbone.num_layers")
    use_learnable_affine_block: bool = False
    out_features: list[str] | None = None
    out_indices: Sequence[int] | None = None


@dataclass(kw_only=True)
class RTDetrFields:
    """Fields of RT-DETR."""

    initializer_range: float = 0.01
    initializer_bias_prior_prob: float | None = None
    layer_norm_eps: float = at(1e-5, "layer_norm_eps")
    batch_norm_eps: float = at(1e-5, "batch_norm_eps")
    backbone_config: Any = None
    backbone: str | None = None
    use_pretrained_backbone: bool = unread(False)
    use_timm_backbone: bool = False
    freeze_backbone_batch_norms: bool = at(True, "backbone.norm")
    backbone_kwargs: Mapping[str, Any] | None = None
    encoder_hidden_dim: int = at(256, "encoder.dim")
    encoder_in_channels: Sequence[int] = (512, 1024, 2048)
    feat_strides: Sequence[int] = (8, 16, 32)
    encoder_layers: int = at(1, "encoder.aifi.num_layers")
    encoder_ffn_dim: int = at(1024, "encoder.aifi.ffn_dim")
    encoder_attention_heads: int = at(8, "encoder.aifi.num_heads")
    dropout: float = at(0.0, "encoder.aifi.dropout", "decoder.dropout")
    activation_dropout: float = at(
        0.0, "encoder.aifi.activation_dropout", "decoder.activation_dropout"
    )
    encode_proj_layers: Sequence[int] = (2,)
    positional_encoding_temperature: int = at(10000, "encoder.aifi.temperature")
    encoder_activation_function: str = at("gelu", "encoder.aifi.act")
    activation_function: str = at("silu", "encoder.ccff.act")
    eval_size: Sequence[int] | None = only(None)
    normalize_before: bool = False
    hidden_expansion: float = at(1.0, "encoder.ccff.expansion")
    d_model: int = at(256, "decoder.dim")
    num_queries: int = at(300, "selection.num_queries")
    decoder_in_channels: Sequence[int] = (256, 256, 256)
    decoder_ffn_dim: int = at(1024, "decoder.ffn_dim")
    num_feature_levels: int = at(3, "decoder.num_levels")
    decoder_n_points: int = at(4, "decoder.num_points")
    decoder_layers: int = at(6, "decoder.num_layers")
    decoder_attention_heads: int = at(8, "decoder.num_heads")
    decoder_activation_function: str = at("relu", "decoder.act")
    attention_dropout: float = at(0.0, "decoder.attention_dropout")
    num_denoising: int = at(100, "denoising.num_queries")
    label_noise_ratio: float = at(0.5, "denoising.label_noise")
    box_noise_scale: float = at(1.0, "denoising.box_noise")
    learn_initial_query: bool = False
    anchor_image_size: Sequence[int] | None = unread(None)
    disable_custom_kernels: bool = unread(True)
    with_box_refine: bool = only(True)
    is_encoder_decoder: bool = unread(True)
    matcher_alpha: float = at(0.25, "criterion.matcher.classification.alpha")
    matcher_gamma: float = at(2.0, "criterion.matcher.classification.gamma")
    matcher_class_cost: float = at(2.0, "criterion.matcher.class_cost")
    matcher_bbox_cost: float = at(5.0, "criterion.matcher.l1_cost")
    matcher_giou_cost: float = at(2.0, "criterion.matcher.giou_cost")
    use_focal_loss: bool = only(True)
    auxiliary_loss: bool = True
    focal_loss_alpha: float = at(0.75, "criterion.classification.alpha")
    focal_loss_gamma: float = at(2.0, "criterion.classification.gamma")
    weight_loss_vfl: float = at(1.0, "criterion.class_weight")
    weight_loss_bbox: float = at(5.0, "criterion.l1_weight")
    weight_loss_giou: float = at(2.0, "criterion.giou_weight")
    eos_coefficient: float = unread(1e-4)


@dataclass(kw_only=True)
class RTDetrV2Fields(RTDetrFields):
    """Fields of RT-DETRv2: those of v1, and how the decoder samples."""

    decoder_n_levels: int = 3
    decoder_offset_scale: float = only(0.5)
    decoder_method: str = at("default", "decoder.sampler")


@dataclass(kw_only=True)
class DetrFields:
    """Fields of DETR, with masks or without."""

    backbone_config: Any = None
    backbone: str | None = None
    use_timm_backbone: bool = True
    use_pretrained_backbone: bool | None = False
    backbone_kwargs: Mapping[str, Any] | None = None
    num_channels: int = only(3)
    num_queries: int = at(100, "decoder.num_queries")
    encoder_layers: int = at(6, "encoder.num_layers")
    encoder_ffn_dim: int = at(2048, "encoder.ffn_dim")
    encoder_attention_heads: int = at(8, "encoder.num_heads")
    decoder_layers: int = at(6, "decoder.num_layers")
    decoder_ffn_dim: int = at(2048, "decoder.ffn_dim")
    decoder_attention_heads: int = at(8, "decoder.num_heads")
    encoder_layerdrop: float | int = at(0.0, "encoder.layer_drop")
    decoder_layerdrop: float | int = at(0.0, "decoder.layer_drop")
    is_encoder_decoder: bool = unread(True)
    activation_function: str = at("relu", "encoder.act", "decoder.act")
    d_model: int = at(256, "dim")
    dropout: float | int = at(0.1, "encoder.dropout", "decoder.dropout")
    attention_dropout: float | int = at(
        0.0, "encoder.attention_dropout", "decoder.attention_dropout"
    )
    activation_dropout: float | int = at(
        0.0, "encoder.activation_dropout", "decoder.activation_dropout"
    )
    init_std: float | int = 0.02
    init_xavier_std: float | int = 1.0
    auxiliary_loss: bool = False
    position_embedding_type: str = at("sine", "positions")
    dilation: bool | None = False
    class_cost: float | int = at(1, "criterion.matcher.class_cost")
    bbox_cost: float | int = at(5, "criterion.matcher.l1_cost")
    giou_cost: float | int = at(2, "criterion.matcher.giou_cost")
    mask_loss_coefficient: float | int = at(1, "criterion.masks.mask_weight")
    dice_loss_coefficient: float | int = at(1, "criterion.masks.dice_weight")
    bbox_loss_coefficient: float | int = at(5, "criterion.l1_weight")
    giou_loss_coefficient: float | int = at(2, "criterion.giou_weight")
    eos_coefficient: float | int = at(0.1, "criterion.classification.no_object")
