r"""# Backbones of transformers: those that are no chapter here

A `backbone_config` may name any backbone that transformers can build, for example `resnet` or
`convnext` in an RT-DETR. A backbone of timm is one of them (`timm_backbone`). The rest of the model
asks for maps, and for their channels and strides, so such a backbone needs no code of ours. It is
built by transformers, which must be installed; timm too, for a backbone of timm.

Its tensors keep their names. In files they stand below the prefix of the detector.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from rtdetr_lab.checkpoints.transformers_table import whole_numbers
from rtdetr_lab.config import require
from rtdetr_lab.errors import (
    ConfigError,
    MissingExtraError,
    converting,
    first_line,
    import_optional,
)
from rtdetr_lab.layers import FrozenBatchNorm2d, Norm

NOT_BUILT = ("auto_map", "dtype", "torch_dtype", "attn_implementation", "_attn_implementation")
"""Keys of a `backbone_config` that we leave out: code from a hub, and what the detector decides."""


@dataclass(frozen=True)
class ForeignBackbone:
    """A backbone that transformers builds; `config` is its `backbone_config` as JSON text.

    `channels` and `strides` are those of its maps; empty channels are read from the backbone.
    """

    config: str
    strides: tuple[int, ...]
    channels: tuple[int, ...] = ()
    norm: Norm = FrozenBatchNorm2d

    def build(self) -> "ForeignMaps":
        return ForeignMaps(self)


class ForeignMaps(nn.Module):
    """Backbone of transformers with the interface of ours."""

    def __init__(self, cfg: ForeignBackbone) -> None:
        super().__init__()
        self.cfg, self.strides = cfg, cfg.strides
        # Not `model`: names in a file that begin with `backbone.model.` are transformers' own.
        self.theirs = _built(json.loads(cfg.config))
        self.channels = tuple(self.theirs.channels)
        what = f"is {list(cfg.channels)}, but the backbone has {list(self.channels)}"
        agree = cfg.channels in ((), self.channels)
        require(agree, "encoder_in_channels", what, "make them agree")
        if cfg.norm is FrozenBatchNorm2d:
            _freeze_norms(self.theirs)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        return tuple(self.theirs(images).feature_maps)


def _built(tree: dict[str, Any]) -> Any:
    kind, name = str(tree.get("model_type")), tree.get("backbone")
    told = {key: value for key, value in tree.items() if key not in ("model_type", *NOT_BUILT)}
    transformers: Any = import_optional("transformers", "transformers")
    what, remedy = "names no backbone that transformers can build: {}", "give another model_type"
    with converting(Exception, ConfigError, "backbone_config", what, remedy):
        try:
            config = transformers.AutoConfig.for_model(kind, **told)
            return transformers.AutoBackbone.from_config(config, trust_remote_code=False)
        except ImportError as error:
            library = "timm" if kind == "timm_backbone" else f"a library for {kind}"
            what = f"is needed for the backbone {name or kind}: {first_line(error)}"
            raise MissingExtraError(library, what, f"pip install {library}") from error


def _freeze_norms(model: nn.Module) -> None:
    """Replace every batch norm by a frozen one with the same values.

    Like transformers' own, its eps is always 1e-5. A norm that also does something else is refused.
    """
    for parent in list(model.modules()):
        for name, part in parent.named_children():
            if isinstance(part, nn.BatchNorm2d):
                what = f"is a {type(part).__name__}, which cannot be frozen"
                plain = type(part) is nn.BatchNorm2d and part.affine
                require(plain, f"backbone[{name}]", what, "set freeze_backbone_batch_norms=False")
                frozen = FrozenBatchNorm2d(part.num_features)
                frozen.load_state_dict({n: part.state_dict()[n] for n in frozen.state_dict()})
                setattr(parent, name, frozen.to(part.weight.device))


def foreign_backbone(tree: Mapping[str, Any], inner: Mapping[str, Any], at: str) -> ForeignBackbone:
    """Read a `backbone_config` of a kind that is no chapter here."""
    stages, kind = inner.get("out_indices"), inner.get("model_type")
    remedy = f"name the stages of {kind}, for example [2, 3, 4]; or correct the model_type"
    require(stages, f"{at}[out_indices]", f"is {stages}", remedy)
    given = tree.get("feat_strides") or [2 ** (i + 1) for i in whole_numbers(stages, at)]
    strides = whole_numbers(given, f"{at}[feat_strides]")
    channels = whole_numbers(tree.get("encoder_in_channels", ()), f"{at}[encoder_in_channels]")
    return ForeignBackbone(json.dumps(inner, sort_keys=True), strides, channels)


def timm_config(tree: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the `backbone_config` for `use_timm_backbone=True`; empty without it.

    Raises `ConfigError` for values that nothing would read.
    """
    name, more = tree.get("backbone"), tree.get("backbone_kwargs")
    if tree.get("use_timm_backbone") and not tree.get("backbone_config"):
        require(name, f"{where}[backbone]", "is missing", 'give its name, for example "resnet50"')
        told = {"out_indices": [2, 3, 4], **(more or {})}
        return {"model_type": "timm_backbone", "backbone": name, **told}
    what = "is read only with use_timm_backbone=True, and without a backbone_config"
    for key, value in (("backbone", name), ("backbone_kwargs", more)):
        require(not value, f"{where}[{key}]", what, "give a backbone_config instead")
    return {}


def maps_of(backbone: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return channels and strides of the maps that a configuration of a backbone describes."""
    if isinstance(backbone, ForeignBackbone):
        return backbone.channels, backbone.strides
    stages = backbone.outputs
    return tuple(backbone.widths[i - 1] for i in stages), tuple(2 ** (i + 1) for i in stages)
