r"""# Pretrained: a model of ours in a documented class

`.lab` is the model, `.config` the documented configuration. We load with `load_pretrained`, and
save with the writers of transformers' layout.

`from_pretrained(name, dropout=0.3)` changes the configuration, and loads the file's weights into
the changed model (`refitted`). All tensors must fit. Only a mask head may be missing or left over.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from rtdetr_lab.checkpoints.files import FORMAT, read_json
from rtdetr_lab.checkpoints.load import load_pretrained
from rtdetr_lab.checkpoints.save import licence_line, write_theirs
from rtdetr_lab.checkpoints.transformers_config import to_transformers
from rtdetr_lab.config import require
from rtdetr_lab.detr.model import DETRConfig
from rtdetr_lab.errors import CheckpointError, ConfigError
from rtdetr_lab.model import Metadata
from rtdetr_lab.transformers_api.hub import FILE, Pushable, folder_of, pushed
from rtdetr_lab.transformers_api.options import Options
from rtdetr_lab.writing import markdown_text, write_text

log = logging.getLogger("rtdetr_lab")

CARD = """---
{licence}library_name: rtdetr_lab
pipeline_tag: object-detection
tags:
- object-detection
- {kind}
---
# {name}

A `{kind}` detector of {count} classes: {classes}.

```python
from rtdetr_lab import AutoImageProcessor, AutoModelForObjectDetection

model = AutoModelForObjectDetection.from_pretrained("{name}")
processor = AutoImageProcessor.from_pretrained("{name}")
```

The files are in transformers' layout, so transformers can load them, too.
"""


class Pretrained(Pushable, nn.Module):
    """Base of every documented model: loading, saving, freezing."""

    config_class: ClassVar[type[Options]] = Options
    called: ClassVar[str] = "model"
    masks: ClassVar[bool] = False
    kept: ClassVar[tuple[str, ...]] = (FILE, "README.md")

    def __init__(self, config: Options) -> None:
        super().__init__()
        known, what = isinstance(config, self.config_class), f"is a {type(config).__name__}"
        remedy = f"give a {self.config_class.__name__}"
        require(known, f"{type(self).__name__}(config)", what, remedy)
        self.config = config
        self.lab: Any = self.build(config)
        self.eval()

    def build(self, config: Options) -> Any:
        """Build a new model of ours."""
        return self.lab_config(config).build()

    @classmethod
    def lab_config(cls, config: Any) -> Any:
        """Convert the configuration to ours."""
        return config.to_lab(cls.masks)

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the parameters."""
        return next(self.parameters()).dtype

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        *,
        config: Options | None = None,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        ignore_mismatched_sizes: bool = False,
        dtype: torch.dtype | None = None,
        device_map: str | int | torch.device | None = None,
        **changes: Any,
    ) -> Any:
        """Load a hub id or folder, in eval mode; `changes` apply to its configuration.

        Another number of classes needs `ignore_mismatched_sizes=True`, and gets new class heads.
        `device_map` is a device, or "auto": the first GPU, if there is one.
        """
        changed = bool(changes) or config is not None
        how = {"cache_dir": cache_dir, "token": token, "local_files_only": local_files_only}
        folder = folder_of(name, revision, **how)
        tree = read_json(folder / "config.json")
        if tree.get("format") != FORMAT:
            config = config or cls.config_class.from_dict(tree, **changes)
            has, wants = len(cls.config_class.from_dict(tree).names), len(config.names)
            what = f"was trained for {has} classes, but {wants} are requested"
            remedy = "set ignore_mismatched_sizes=True for new class heads"
            require(has == wants or ignore_mismatched_sizes, name, what, remedy, CheckpointError)
        lab: Any = load_pretrained(folder, num_classes=len(config.names) if config else None)
        if config is None:
            tree = to_transformers(lab.cfg, lab.metadata.names)
            config = cls.config_class.from_dict(tree, **changes)
        if changed:
            lab = refitted(lab, cls.lab_config(config))
        device = None if device_map is None else _device(device_map)
        return cls.around(config, lab).to(device=device, dtype=dtype)

    @classmethod
    def around(cls, config: Options, lab: nn.Module) -> Any:
        """Wrap an existing model."""
        model = cls.__new__(cls)
        nn.Module.__init__(model)
        model.config, model.lab = config, lab
        return model.eval()

    def save_pretrained(
        self, folder: str | os.PathLike[str], push_to_hub: bool = False, **told: Any
    ) -> None:
        """Write config, weights and preprocessor in transformers' layout.

        An existing `preprocessor_config.json` is kept: the processor wrote it. `push_to_hub=True`
        also pushes, with the other arguments: `repo_id`, `token` …
        """
        names, lab, at = self.config.names, self.lab, Path(folder)
        to_transformers(lab.cfg, names)  # an error if `.lab` has changed too much
        known = replace(lab.metadata, names=names, category_ids=tuple(range(len(names))))
        config = replace(self.config, architectures=[type(self).__name__]).to_dict()
        preprocessor = None if (at / FILE).is_file() else self.preprocessor(known)
        write_theirs(at, lab.cfg, lab.state_dict(), config, preprocessor, known)
        pushed(self, folder, push_to_hub, told)

    def preprocessor(self, known: Metadata) -> dict[str, Any]:
        """Return the `preprocessor_config.json` of this model."""
        raise NotImplementedError

    def write_upload(self, repo_id: str, folder: Path) -> None:
        """Write the model with a card; the repository keeps its own card and processor."""
        self.save_pretrained(folder)
        classes, licence = self.config.names, self.lab.metadata.licence
        card = CARD.format(
            name=repo_id,
            kind=self.config.model_type,
            count=len(classes),
            classes=markdown_text(", ".join(classes[:20])) + (" …" if len(classes) > 20 else ""),
            licence=f"{licence_line(licence)}\n" if licence else "",
        )
        write_text(folder / "README.md", card)

    def freeze_backbone(self) -> None:
        """Freeze the backbone."""
        self.lab.backbone.requires_grad_(False)

    def unfreeze_backbone(self) -> None:
        """Unfreeze the backbone."""
        self.lab.backbone.requires_grad_(True)

    def _asked(self, **options: bool | None) -> Mapping[str, bool]:
        """Return the options of a call; the configuration gives those that are None."""
        return {n: getattr(self.config, n) if v is None else v for n, v in options.items()}


def _device(name: str | int | torch.device) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(name)
    except (RuntimeError, TypeError) as error:
        what, remedy = f"is {name!r}", 'give one device, or "auto": we do not split models'
        raise ConfigError("device_map", what, remedy) from error


def refitted(lab: Any, cfg: Any) -> nn.Module:
    """Put the weights into a model of `cfg`; a mask head is dropped, or new with a warning.

    Raises `CheckpointError` if anything else does not fit.
    """
    if isinstance(cfg, DETRConfig):
        cfg = replace(cfg, mean=lab.cfg.mean, std=lab.cfg.std)
    if cfg == lab.cfg:
        return lab  # type: ignore[no-any-return]
    model: nn.Module = cfg.build()
    mine, given = model.state_dict(), lab.state_dict()
    new = [name for name in mine if name not in given]
    odd = [n for n in (*new, *(n for n in given if n not in mine)) if not n.startswith("mask_")]
    odd += [n for n in given if n in mine and mine[n].shape != given[n].shape]
    what = f"the configuration needs other tensors than the saved ones: {', '.join(odd[:3])}"
    name, remedy = type(lab).__name__, "do not change options that add or reshape tensors"
    require(not odd, name, what, remedy, CheckpointError)
    model.load_state_dict({n: t for n, t in given.items() if n in mine}, strict=False)
    if new:
        log.warning("no mask head in the file; these tensors are new: %s", ", ".join(new))
    model.metadata = lab.metadata
    if (pixels := getattr(lab, "pixels", None)) is not None:
        model.pixels = pixels
    return model.eval()
