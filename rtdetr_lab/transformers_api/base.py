r"""# Base: what every documented model is to users and clients

`.lab` is the model, `.config` the documented configuration. Tensors have their documented names in
`state_dict()`, in `load_state_dict()` and in files, so clients such as `Trainer` and `accelerate`
save what both libraries load. `named_parameters()` follows the modules, so its names are ours.

`Trainer` writes a `config.json` only for transformers' `PreTrainedModel`. So that class becomes the
last base of ours when transformers is loaded (`adopt`). Whatever is defined here stays as it is.
"""

import sys
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from rtdetr_lab.checkpoints.rename import import_tensors, to_theirs
from rtdetr_lab.checkpoints.save import their_table, their_tensors
from rtdetr_lab.transformers_api.hub import FILE, Pushable
from rtdetr_lab.transformers_api.options import Options


class DocumentedModel(Pushable, nn.Module):
    """Model of ours under documented names."""

    config_class: ClassVar[type[Options]] = Options
    called: ClassVar[str] = "model"
    masks: ClassVar[bool] = False
    kept: ClassVar[tuple[str, ...]] = (FILE, "README.md")
    place: ClassVar[tuple[str, str]] = ("", "")
    """Prefix of this model's tensors in a whole detector: in our names, in the documented ones."""
    inner_class: ClassVar[Any] = None
    """Class of the model without heads, if this one has heads."""
    base_model_prefix = "model"
    main_input_name = "pixel_values"
    name_or_path = ""
    all_tied_weights_keys: ClassVar[dict[str, str]] = {}  # read by clients: no tensor has two names
    _supports_sdpa = True
    _keep_in_fp32_modules: ClassVar[set[str]] = set()  # read by clients, as the next
    accepts_loss_kwargs = False  # Trainer divides the loss by the number of accumulated batches

    def __init__(self, config: Any) -> None:
        config = self.config_class.of(config)
        self._hold(config, self.fresh(config, self.lab_config(config)))

    def _hold(self, config: Any, lab: Any) -> None:
        adopt()
        nn.Module.__init__(self)
        self.settings, self.lab = config, lab

    @property
    def config(self) -> Any:
        """Documented configuration."""
        adopt()  # transformers may have been imported after this model was made
        return self.settings

    @classmethod
    def fresh(cls, config: Any, cfg: Any) -> Any:
        """Build a new model of ours for `cfg`."""
        return cfg.build()

    @classmethod
    def lab_config(cls, config: Any) -> Any:
        """Convert the configuration to ours."""
        return config.to_lab(cls.masks)

    @property
    def model(self) -> Any:
        """Model without heads; it shares all parts."""
        if self.inner_class is None:
            raise AttributeError(f"{type(self).__name__} has no model: it has no heads")
        inner = self.inner_class.sharing(self.settings, self.lab)
        inner.training = self.training
        return inner

    @property
    def base_model(self) -> Any:
        """Model without heads: this one, or the one inside."""
        return self if self.inner_class is None else self.model

    @property
    def backbone(self) -> Any:
        """Backbone."""
        return self.lab.backbone

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the parameters."""
        return next(self.parameters()).dtype

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Count the parameters."""
        tables = [m.weight for m in self.modules() if isinstance(m, nn.Embedding)]
        left_out = set(tables) if exclude_embeddings else set()
        counted = [p for p in self.parameters() if p.requires_grad or not only_trainable]
        return sum(p.numel() for p in counted if p not in left_out)

    def state_dict(self, *args: Any, prefix: str = "", **options: Any) -> Any:
        """Return all tensors under their documented names."""
        found = super().state_dict(*args, prefix=prefix, **options)
        (ours, theirs), inner, told = self.place, f"{prefix}lab.", self.settings.to_dict()
        own = {ours + n.removeprefix(inner): found.pop(n) for n in [*found] if n.startswith(inner)}
        named = their_tensors(self.lab.cfg, own, f"{type(self).__name__}.state_dict", told)
        start = len(theirs)
        found.update({prefix + n[start:]: t for n, t in named.items() if n.startswith(theirs)})
        return found

    def _load_from_state_dict(self, tensors: Any, prefix: str, *rest: Any) -> None:
        (ours, theirs), inner = self.place, f"{prefix}lab."
        table = their_table(self.lab.cfg, self.settings.to_dict())
        mine = [n for n in tensors if n.startswith(prefix) and not n.startswith(inner)]
        given = {theirs + n.removeprefix(prefix): tensors.pop(n) for n in mine}
        found = import_tensors(table, given, f"{type(self).__name__}.load_state_dict")
        tensors.update({inner + n.removeprefix(ours): t for n, t in found.items()})
        super()._load_from_state_dict(tensors, prefix, *rest)

    def documented(self, info: Mapping[str, list[str]]) -> dict[str, list[str]]:
        """Translate the names of tensors."""
        table = their_table(self.lab.cfg, self.settings.to_dict())
        return {key: [to_theirs(table, name) or name for name in info[key]] for key in info}

    def freeze_backbone(self) -> None:
        """Freeze the backbone."""
        self.lab.backbone.requires_grad_(False)

    def unfreeze_backbone(self) -> None:
        """Unfreeze the backbone."""
        self.lab.backbone.requires_grad_(True)

    def _asked(self, **options: bool | None) -> dict[str, bool]:
        """Return the options of a call; the configuration gives those that are None."""
        return {n: getattr(self.settings, n) if v is None else v for n, v in options.items()}


def adopt() -> None:
    """Make transformers' `PreTrainedModel` a base of the documented models, if it is loaded."""
    base = getattr(sys.modules.get("transformers.modeling_utils"), "PreTrainedModel", None)
    if base is not None and not issubclass(DocumentedModel, base):
        DocumentedModel.__bases__ = (Pushable, base)
