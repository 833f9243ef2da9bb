r"""# Pretrained: a model of ours in a documented class

| argument of `from_pretrained`            | here                                                  |
|------------------------------------------|-------------------------------------------------------|
| `config`                                 | an object of either library, a dictionary, a folder   |
| `decoder_layers=1`, `num_denoising=0`, … | change the configuration (`fill`)                     |
| `ignore_mismatched_sizes=True`           | tensors of another shape are new                      |
| `dtype`, `torch_dtype`                   | a dtype, its name, or "auto": that of the file        |
| `device_map`                             | one device, or "auto": the first GPU, if there is one |
| `attn_implementation`                    | "eager" or "sdpa": each call takes what it needs      |
| `use_safetensors`                        | must agree with the file                              |
| `FINDING` and `UNREAD` in `hub.py`       | where the files are; what changes nothing here        |
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtdetr_lab.checkpoints.files import FORMAT, read_json
from rtdetr_lab.checkpoints.load import Opened, built, opened
from rtdetr_lab.checkpoints.save import licence_line, write_theirs
from rtdetr_lab.checkpoints.source import ASSETS
from rtdetr_lab.checkpoints.transformers_config import draws, to_transformers
from rtdetr_lab.config import require
from rtdetr_lab.errors import CheckpointError
from rtdetr_lab.model import Metadata
from rtdetr_lab.transformers_api.base import DocumentedModel
from rtdetr_lab.transformers_api.hub import FILE, folder_of, pushed, taken
from rtdetr_lab.transformers_api.loading import changes_among, device_of, dtype_of, fill
from rtdetr_lab.writing import first_few, markdown_text, write_text

CARD = ASSETS / "model_card.md"


class Pretrained(DocumentedModel):
    """Base of every documented model: loading and saving."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        config: Any = None,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        dtype: torch.dtype | str | None = None,
        device_map: Any = None,
        **told: Any,
    ) -> Any:
        """Load a hub id or folder, in eval mode; the table above explains the arguments.

        With `output_loading_info` the result is a pair: the model, and the documented names of the
        tensors that were missing, left over, or of another shape.
        """
        name, old = pretrained_model_name_or_path, told.pop("torch_dtype", None)
        folder = folder_of(name, **taken(told))
        changes = changes_among(told, folder)
        changed = bool(changes) or config is not None
        tree, found = read_json(folder / "config.json"), None
        if tree.get("format") == FORMAT:
            found = cls.opened(folder)
            tree = to_transformers(found.cfg, found.metadata.names)
        given = tree if config is None else cls.config_class.of(config).to_dict()
        config = cls.config_class.from_dict(given, **changes)
        same = found is not None and not changed and draws(found.cfg) == cls.masks
        found = found or cls.opened(folder)
        cfg = found.cfg if same else cls.lab_config(config)
        lab = built(lambda: cls.fresh(config, cls.seeing(cfg, found)), found.tensors, found.where)
        info = fill(lab, found, anything=changed, new_shapes=ignore_mismatched_sizes)
        lab.metadata = found.metadata.named(config.names)
        kind = dtype_of(old if dtype is None else dtype, tree, found)
        model = cls.around(config, lab).to(device=device_of(device_map), dtype=kind)
        model.name_or_path = os.fspath(name)
        return (model, model.documented(info)) if output_loading_info else model

    @classmethod
    def seeing(cls, cfg: Any, found: Opened) -> Any:
        """Return `cfg` for the pixels that the checkpoint was trained on."""
        return cfg

    @classmethod
    def opened(cls, folder: Path) -> Opened:
        """Read the checkpoint in a folder."""
        return opened(folder)

    @classmethod
    def around(cls, config: Any, lab: Any) -> Any:
        """Wrap an existing model, in eval mode."""
        return cls.sharing(config, lab).eval()

    @classmethod
    def sharing(cls, config: Any, lab: Any) -> Any:
        """Wrap an existing model, in its mode."""
        model = cls.__new__(cls)
        model._hold(config, lab)
        return model

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: Mapping[str, Tensor] | None = None,
        push_to_hub: bool = False,
        safe_serialization: bool = True,
        **told: Any,
    ) -> None:
        """Write config, weights and preprocessor in transformers' layout.

        `state_dict` replaces the tensors of the model. An existing `preprocessor_config.json` is
        kept: the processor wrote it. `push_to_hub=True` also pushes, with the other arguments:
        `repo_id`, `token` …
        """
        where = f"{type(self).__name__}.save_pretrained"
        what, remedy = "is False, but only safetensors are written", "leave it out"
        require(safe_serialization, f"{where}[safe_serialization]", what, remedy)
        if not is_main_process:
            return
        tensors, at = self.state_dict(), Path(save_directory)
        if state_dict is not None:
            missing = [name for name in tensors if name not in state_dict]
            what, remedy = f"lacks {first_few(missing)}", "give the state_dict() of this model"
            require(not missing, f"{where}[state_dict]", what, remedy, CheckpointError)
            tensors = {name: state_dict[name] for name in tensors}
        known = self.facts()
        config = replace(self.settings, architectures=[type(self).__name__]).to_dict()
        config["dtype"] = str(self.dtype).removeprefix("torch.")
        preprocessor = None if (at / FILE).is_file() else self.preprocessor(known)
        write_theirs(at, self.lab.cfg, tensors, config, preprocessor, known)
        pushed(self, save_directory, push_to_hub, told)

    def facts(self) -> Metadata:
        """Return the facts to save; raise `ConfigError` if `.lab` has changed too much."""
        to_transformers(self.lab.cfg, self.settings.names)
        return self.lab.metadata.named(self.settings.names)

    def preprocessor(self, known: Metadata) -> dict[str, Any] | None:
        """Return the `preprocessor_config.json` of this model, if it has one."""
        return None

    def write_upload(self, repo_id: str, folder: Path) -> None:
        """Write the model with a card; the repository keeps its own card and processor."""
        self.save_pretrained(folder)
        classes, licence = self.settings.names, self.lab.metadata.licence
        card = CARD.read_text(encoding="utf8").format(
            name=repo_id,
            kind=self.settings.model_type,
            count=len(classes),
            classes=markdown_text(", ".join(classes[:20])) + (" …" if len(classes) > 20 else ""),
            licence=f"{licence_line(licence)}\n" if licence else "",
        )
        write_text(folder / "README.md", card)
