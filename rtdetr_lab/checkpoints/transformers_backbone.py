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
from rtdetr_lab.errors import ConfigError, MissingExtraError, import_optional
from rtdetr_lab.layers import FrozenBatchNorm2d, Norm


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
        self.model = _built(json.loads(cfg.config))
        self.channels = tuple(self.model.channels)
        what = f"is {list(cfg.channels)}, but the backbone has {list(self.channels)}"
        agree = cfg.channels in ((), self.channels)
        require(agree, "encoder_in_channels", what, "make them agree")
        if cfg.norm is FrozenBatchNorm2d:
            _freeze_norms(self.model)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        return tuple(self.model(images).feature_maps)


def _built(tree: dict[str, Any]) -> Any:
    kind = str(tree.pop("model_type", None))
    transformers: Any = import_optional("transformers", "transformers")
    try:
        config = transformers.AutoConfig.for_model(kind, **tree)
        return transformers.AutoBackbone.from_config(config)
    except ImportError as error:
        what = f"is needed for the backbone {tree.get('backbone') or kind}"
        raise MissingExtraError("timm", what, "pip install timm") from error
    except (ValueError, TypeError, KeyError) as error:
        what = f"names no backbone that transformers can build ({error})".splitlines()[0]
        raise ConfigError("backbone_config", what, "give a model_type with a backbone") from error


def _freeze_norms(model: nn.Module) -> None:
    """Replace every batch norm by a frozen one with the same values."""
    for parent in list(model.modules()):
        for name, part in parent.named_children():
            if isinstance(part, nn.BatchNorm2d):
                frozen = FrozenBatchNorm2d(part.num_features, part.eps)
                frozen.load_state_dict({n: part.state_dict()[n] for n in frozen.state_dict()})
                setattr(parent, name, frozen.to(part.weight.device))


def foreign_backbone(tree: Mapping[str, Any], inner: Mapping[str, Any], at: str) -> ForeignBackbone:
    """Read a `backbone_config` of a kind that is no chapter here."""
    stages = inner.get("out_indices")
    remedy = "name the stages, for example [2, 3, 4]"
    require(stages, f"{at}[out_indices]", f"is {stages}", remedy)
    given = {k: tree.get(k) for k in ("feat_strides", "encoder_in_channels")}
    strides = given["feat_strides"] or [2 ** (i + 1) for i in whole_numbers(stages, at)]
    channels = whole_numbers(given["encoder_in_channels"] or (), f"{at}[encoder_in_channels]")
    return ForeignBackbone(json.dumps(inner, sort_keys=True), tuple(strides), channels)


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
