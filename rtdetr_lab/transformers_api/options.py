r"""# Options: the common part of all documented configurations

A configuration is a flat dataclass; its fields are the documented parameters. When it is made, we
check it by converting it to our configuration (`to_lab`). So a value that cannot be built is an
error at once, and not in the middle of a forward pass.

`config.json` is read and written in transformers' form. Other keys, such as `transformers_version`
and `dtype`, are kept in `extra`, and written back.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, ClassVar

from rtdetr_lab.checkpoints.transformers_config import from_transformers
from rtdetr_lab.checkpoints.transformers_table import class_names, placed
from rtdetr_lab.config import require
from rtdetr_lab.transformers_api.hub import OneFile

CLASSES = ("num_labels", "id2label", "label2id")
"""Parameters that describe the classes; setting one of the first two replaces the others."""

GONE = ("backbone", "use_pretrained_backbone", "use_timm_backbone", "backbone_kwargs")
"""Parameters until release 5, which neither reads nor writes them for these models."""


@dataclass(kw_only=True)
class Options(OneFile):
    """Base of all configurations: class names, and defaults for the output of a call."""

    num_labels: int | None = None
    id2label: dict[Any, str] | None = None
    label2id: dict[str, int] | None = None
    output_attentions: bool = False
    output_hidden_states: bool = False
    return_dict: bool = True
    architectures: list[str] | None = None

    filename: ClassVar[str] = "config.json"
    called: ClassVar[str] = "config"
    model_type: ClassVar[str] = ""
    name_or_path: ClassVar[str] = ""
    special_cases: ClassVar[tuple[str, ...]] = ()  # other model types that this class accepts
    sub_configs: ClassVar[dict[str, Any]] = {}  # read by clients, as the next two
    base_model_tp_plan: ClassVar[dict[str, str] | None] = None

    use_return_dict = property(attrgetter("return_dict"), doc="Another name of `return_dict`.")

    def __post_init__(self) -> None:
        self._name_classes()
        self.check()
        self.__dict__["_complete"] = True

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_dict())

    def __setattr__(self, name: str, value: Any) -> None:
        what, remedy = "is read only when a configuration is made", "give it to a new one"
        require(name not in GONE or "_complete" not in self.__dict__, self._at(name), what, remedy)
        if name in self.__dict__.get("extra", {}):
            self.extra[name] = value
            return
        super().__setattr__(name, value)
        if name in CLASSES[:2] and "_complete" in self.__dict__:
            self.__dict__.update({**dict.fromkeys(CLASSES), name: value})
            self._name_classes()

    def __getattr__(self, name: str) -> Any:
        extra = self.__dict__.get("extra", {})
        return extra.get(name) if name == "dtype" else super().__getattr__(name)  # clients set it

    def check(self) -> None:
        """Raise `ConfigError` for values that cannot be built or are not supported here."""
        for known in fields(self):
            found = getattr(self, known.name)
            what = f"is {found!r}, but only {known.default!r} is supported here"
            fits = "only" not in known.metadata or found == known.default
            require(fits, self._at(known.name), what, "leave it out")
        self.to_lab()

    def to_lab(self, masks: bool = False) -> Any:
        """Convert to our configuration of the same model; `masks` adds the mask head of a DETR."""
        return from_transformers(self.to_dict(), type(self).__name__, masks)[0]

    def get_text_config(self, decoder: Any = None, encoder: Any = None) -> "Options":
        """Return this configuration: clients ask for the part that describes text."""
        return self

    @classmethod
    def of(cls, given: Any) -> Any:
        """Read a configuration of either library, a dictionary, a folder or a hub id."""
        if isinstance(given, cls):
            return given
        if isinstance(given, str | os.PathLike):
            return cls.from_pretrained(given)
        tree = given.to_dict() if callable(getattr(given, "to_dict", None)) else given
        known, what = isinstance(tree, Mapping), f"is a {type(given).__name__}"
        require(known, f"{cls.__name__}[config]", what, f"give a {cls.__name__}")
        return cls.from_dict(tree)

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any], **changes: Any) -> Any:
        """Read their `config.json`. Raises `ConfigError` for the file of another model."""
        kind = tree.get("model_type", cls.model_type)
        what = f"is {kind!r}, but {cls.__name__} needs {cls.model_type!r}"
        same = kind in (cls.model_type, *cls.special_cases)
        require(same, f"{cls.__name__}[model_type]", what, "use the class of that model")
        known = {f.name for f in fields(cls) if f.name != "extra"}
        unknown = ", ".join(sorted(set(changes) - known))
        require(not unknown, cls.__name__, f"has no parameter {unknown}", "correct the name")
        told = {**tree, **changes}
        told.pop("model_type", None)
        # New classes: drop the class names of the file.
        if {"id2label", "num_labels"} & set(changes):
            for key in {"id2label", "label2id", "num_labels"} - set(changes):
                told.pop(key, None)
        values = {key: value for key, value in told.items() if key in known}
        values["extra"] = {key: value for key, value in told.items() if key not in known}
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return the values of their `config.json`."""
        kept = [f.name for f in fields(self) if f.name not in (*GONE, "extra", "num_labels")]
        tree = {**self.extra, "model_type": self.model_type}
        for name in kept:
            value = getattr(self, name)
            value = value.to_dict() if callable(getattr(value, "to_dict", None)) else value
            tree[name] = list(value) if isinstance(value, tuple) else value
        tree["id2label"] = {str(i): name for i, name in (self.id2label or {}).items()}
        return tree

    def _name_classes(self) -> None:
        given, where = self.num_labels, type(self).__name__
        with placed(where):
            names = class_names({"num_labels": given, "id2label": self.id2label}, where)
        what, agree = f"is {given}, id2label has {len(names)}", given in (None, len(names))
        require(agree, self._at("num_labels"), what, "leave num_labels out")
        label2id = self.label2id or {name: i for i, name in enumerate(names)}
        # Not by setting them one by one: each would replace the others.
        self.__dict__.update(num_labels=len(names), id2label=dict(enumerate(names)))
        self.label2id = label2id
        agree = all((self.id2label or {}).get(i) == name for name, i in label2id.items())
        require(agree, self._at("label2id"), "contradicts id2label", "leave it out")

    def _at(self, key: str) -> str:
        return f"{type(self).__name__}[{key}]"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes, in order."""
        return tuple((self.id2label or {}).values())


class DetectorOptions(Options):
    """Options that the documentation also calls by another name."""

    @classmethod
    def from_backbone_configs(cls: Any, backbone_config: Any, **options: Any) -> Any:
        """Make a configuration with this backbone."""
        return cls(backbone_config=backbone_config, **options)

    aliases: ClassVar[dict[str, str]] = {
        "hidden_size": "d_model",
        "num_attention_heads": "encoder_attention_heads",
    }
    hidden_size = property(attrgetter("d_model"), doc="Another name of `d_model`.")
    num_attention_heads = property(
        attrgetter("encoder_attention_heads"), doc="Another name of `encoder_attention_heads`."
    )
