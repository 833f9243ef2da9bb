r"""# RTDetrConfig, DetrConfig and their relatives: the documented configurations

`rtdetr_lab.RTDetrConfig` is transformers' flat configuration, `rtdetr_lab.RTDETRConfig` is ours.
`RTDetrConfig(...).to_lab()` converts one to the other. `checkpoints/transformers_fields.py` lists
the documented parameters, each with its default and its meaning here.

| parameter                                | here                                           |
|------------------------------------------|------------------------------------------------|
| `learn_initial_query=True`               | works (theirs fails to build)                  |
| `initializer_bias_prior_prob`            | works, class biases of a new model             |
| `auxiliary_loss=False`                   | works: only the last layer has a loss          |
| `with_box_refine=False`, `eval_size`, …  | refused by name                                |
| v2's `decoder_n_levels`                  | must agree with `num_feature_levels`           |
| DETR's `…_layerdrop`                     | work (theirs reads neither)                    |
| `dilation=True` over a `ResNetConfig`    | refused (theirs ignores it)                    |
| a new DETR's `use_pretrained_backbone`   | refused: no download inside `__init__`         |
| `initializer_range`, `init_std`, …       | replace the paper's start of a new model       |
"""

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, ClassVar

from rtdetr_lab.backbone import ResNetDConfig
from rtdetr_lab.checkpoints.transformers_backbone import timm_config
from rtdetr_lab.checkpoints.transformers_fields import (
    DetrFields,
    ResNetFields,
    RTDetrFields,
    RTDetrV2Fields,
)
from rtdetr_lab.checkpoints.transformers_resnet import NO_TIMM, resnet_d_values, speaks_timm
from rtdetr_lab.checkpoints.transformers_table import placed
from rtdetr_lab.config import replace_all, require
from rtdetr_lab.rtdetr import rtdetr_r50
from rtdetr_lab.transformers_api.options import DetectorOptions, Options

RESNET_D = "rt_detr_resnet"


@dataclass(kw_only=True)
class RTDetrResNetConfig(ResNetFields, Options):
    """Configuration of the backbone, a ResNet-D."""

    model_type: ClassVar[str] = RESNET_D

    def __post_init__(self) -> None:
        self.hidden_sizes, self.depths = list(self.hidden_sizes), list(self.depths)
        self.stage_names = ["stem", *(f"stage{i + 1}" for i in range(len(self.depths)))]
        self._align()
        super().__post_init__()

    def to_lab(self, masks: bool = False) -> ResNetDConfig:
        """Convert to our `ResNetDConfig`."""
        inner, where = {**self.to_dict(), "model_type": RESNET_D}, type(self).__name__
        inner["out_indices"] = [i for i in self.out_indices or () if i] or [1]
        with placed(where):
            found: ResNetDConfig = replace_all(rtdetr_r50(), resnet_d_values(inner, where)).backbone
        return found

    @property
    def channels(self) -> list[int]:
        """Number of channels of each output map."""
        return [(self.embedding_size, *self.hidden_sizes)[i] for i in self.out_indices or ()]

    def _align(self) -> None:
        names = self.stage_names
        if self.out_indices is None and self.out_features is None:
            self.out_indices = [len(names) - 1]
        if self.out_indices is None:
            unknown = [name for name in self.out_features or () if name not in names]
            known = f"give some of {', '.join(names)}"
            require(not unknown, self._at("out_features"), f"contains {unknown}", known)
            self.out_indices = [names.index(name) for name in self.out_features or ()]
        indices = [i + len(names) if i < 0 else i for i in self.out_indices]
        inside = bool(indices) and all(0 <= i < len(names) for i in indices)
        remedy = f"give stages 0 … {len(names) - 1}, 0 being the stem"
        require(inside, self._at("out_indices"), f"is {self.out_indices}", remedy)
        wanted = [names[i] for i in indices]
        agree = self.out_features is None or list(self.out_features) == wanted
        require(agree, self._at("out_features"), "contradicts out_indices", "give one of the two")
        self.out_indices, self.out_features = indices, wanted


@dataclass(kw_only=True)
class RTDetrConfig(RTDetrFields, DetectorOptions):
    """RT-DETR, with all documented parameters."""

    model_type: ClassVar[str] = "rt_detr"

    def __post_init__(self) -> None:
        given, timm = self.backbone_config, timm_config(vars(self), type(self).__name__)
        if given is None:
            given = timm or {"out_indices": [2, 3, 4]}
        if timm:  # said once, as in transformers
            self.use_timm_backbone, self.backbone, self.backbone_kwargs = False, None, None
        what = f"is {type(given).__name__}"
        known = isinstance(given, Mapping) or callable(getattr(given, "to_dict", None))
        require(known, self._at("backbone_config"), what, "give a backbone's config or its dict")
        if isinstance(given, Mapping) and given.get("model_type", RESNET_D) == RESNET_D:
            given = RTDetrResNetConfig.from_dict(given)
        self.backbone_config = given
        prior = self.initializer_bias_prior_prob
        possible = prior is None or 0 < prior < 1
        at = self._at("initializer_bias_prior_prob")
        require(possible, at, f"is {prior}", "give a probability between 0 and 1")
        super().__post_init__()


@dataclass(kw_only=True)
class RTDetrV2ResNetConfig(RTDetrResNetConfig):
    """Configuration of the backbone, under v2's name."""


@dataclass(kw_only=True)
class RTDetrV2Config(RTDetrV2Fields, RTDetrConfig):
    """RT-DETRv2: the parameters of v1, and those of sampling in the decoder."""

    model_type: ClassVar[str] = "rt_detr_v2"
    special_cases: ClassVar[tuple[str, ...]] = ("rt_detr",)

    def check(self) -> None:
        """Check like v1; the two numbers of levels must also agree."""
        what = f"is {self.decoder_n_levels}, num_feature_levels is {self.num_feature_levels}"
        agree = self.decoder_n_levels == self.num_feature_levels
        require(agree, self._at("decoder_n_levels"), what, "give both the same value")
        super().check()


@dataclass(kw_only=True)
class DetrConfig(DetrFields, DetectorOptions):
    """DETR, with all documented parameters.

    Without a `backbone_config` the backbone is timm's ResNet-50, and files use timm's names.
    """

    model_type: ClassVar[str] = "detr"
    num_hidden_layers = property(attrgetter("encoder_layers"), doc="Name of `encoder_layers`.")

    def __post_init__(self) -> None:
        # Release 4 writes null where release 5 needs false.
        self.dilation = bool(self.dilation)
        self.use_pretrained_backbone = bool(self.use_pretrained_backbone)
        given = self.backbone_config
        if given is not None and not isinstance(given, Mapping):
            what, remedy = f"is {type(given).__name__}", "give a ResNetConfig or its dict"
            known = callable(getattr(given, "to_dict", None))
            require(known, self._at("backbone_config"), what, remedy)
            given = given.to_dict()
        self.backbone_config = self._default() if given is None else dict(given)
        super().__post_init__()

    def to_dict(self) -> dict[str, Any]:
        """Return the values of their `config.json`, for release 4 as well."""
        tree = super().to_dict()
        return tree if speaks_timm(tree) else {**tree, **NO_TIMM}

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
        """Raise `ConfigError` for values that cannot be built or are not supported here."""
        for part in ("encoder", "decoder"):
            key, remedy = f"{part}_attention_heads", "give a number that divides d_model"
            heads = getattr(self, key)
            fits = heads >= 1 and self.d_model % heads == 0
            require(fits, self._at(key), f"is {heads}, d_model is {self.d_model}", remedy)
        super().check()
