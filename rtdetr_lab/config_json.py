r"""# Configurations as JSON: the form in checkpoints and run folders

    from_json(to_json(cfg)) == cfg

| in a config          | in JSON                                                             |
|----------------------|---------------------------------------------------------------------|
| a dataclass          | `{"class": "rtdetr_lab.aifi:AIFIConfig", "num_heads": 8, …}`         |
| a tuple              | a list; lists come back as tuples                                   |
| a function or class  | `{"function": "relu"}`, a name of the table `FUNCTIONS`             |
| number, text, `None` | itself                                                              |

**Reading JSON never runs code that a file chooses.** A class path is resolved only inside
`rtdetr_lab`, and only to a frozen dataclass defined there. A function is resolved only through the
table. A reader's own class or function must be passed as `classes=[MySelection]`; its module may
have changed since, from `__main__` to a file for instance.

**A value must fit its field.** JSON has numbers, text, lists and objects. The annotation of a field
checks its value. Only plain values are checked: a dataclass or a function in a field is a variant,
and is always allowed.
"""

import dataclasses
import importlib
import json
import math
import re
import sys
import types
import typing
from collections.abc import Sequence
from typing import Any

from rtdetr_lab.config import field_names, is_config, is_frozen, join, nearest, require
from rtdetr_lab.errors import ConfigError, converting

PACKAGE = "rtdetr_lab"

FUNCTIONS = {
    **{
        n: f"torch.nn.functional:{n}" for n in ("relu", "silu", "gelu", "leaky_relu", "elu", "mish")
    },
    **{n: f"torch:{n}" for n in ("tanh", "sigmoid")},
    "identity": f"{PACKAGE}.layers:identity",
    "gelu_tanh": f"{PACKAGE}.layers:gelu_tanh",
    "batch_norm": "torch.nn:BatchNorm2d",
    "frozen_batch_norm": f"{PACKAGE}.layers:FrozenBatchNorm2d",
    "sine_2d": f"{PACKAGE}.layers:sine_2d",
    "sine_2d_authors": f"{PACKAGE}.layers:sine_2d_authors",
    "basic_block": f"{PACKAGE}.backbone:BasicBlock",
    "bottleneck": f"{PACKAGE}.backbone:Bottleneck",
    "look_forward_twice": f"{PACKAGE}.decoder:look_forward_twice",
    "look_forward_once": f"{PACKAGE}.decoder:look_forward_once",
}
"""Functions and module classes that a config may name; they are imported when needed."""

_DETR = {"detr": "model", "detr_transformer": "transformer", "detr_positions": "positions"}
_DETR |= {name: name for name in ("resnet", "mask_head", "mask_losses", "segmentation")}
MOVED = {f"{PACKAGE}.{before}": f"{PACKAGE}.detr.{now}" for before, now in _DETR.items()}
MOVED[f"{PACKAGE}.data.augment_detr"] = f"{PACKAGE}.data.augment"
MOVED[f"{PACKAGE}.ablations.criteria"] = f"{PACKAGE}.ablations.selection"
"""Module paths in files from before 0.2 → their paths today."""


def to_json(cfg: Any) -> str:
    """Convert `cfg` to JSON text, the form in checkpoints."""
    return json.dumps(to_dict(cfg), indent=2, allow_nan=False)


def to_dict(cfg: Any) -> dict[str, Any]:
    """Convert `cfg` to plain dictionaries, lists and values."""
    require(is_config(cfg), type(cfg).__name__, "is not a frozen dataclass", "give a config")
    return _encode(cfg, "")


def from_json(text: str, classes: Sequence[Any] = ()) -> Any:
    """Read the config that `to_json` wrote; `classes` are your own classes and functions."""
    kinds = (json.JSONDecodeError, RecursionError)
    with converting(kinds, ConfigError, "config", "is not JSON: {}", "write it with to_json"):
        return from_dict(json.loads(text), classes)


def from_dict(tree: Any, classes: Sequence[Any] = ()) -> Any:
    """Read the config that `to_dict` wrote."""
    require(isinstance(tree, dict), "config", "is not a JSON object", "write it with to_json")
    own = {_path_of(c): c for c in classes}
    return _decode(
        tree, "", {_own_name(path): c for path, c in own.items() if _own_name(path)} | own
    )


def _encode(value: Any, path: str) -> Any:
    if is_config(value):
        fields = {n: _encode(getattr(value, n), join(path, n)) for n in field_names(value)}
        return {"class": _path_of(type(value)), **fields}
    if isinstance(value, tuple):
        return [_encode(v, join(path, i)) for i, v in enumerate(value)]
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, float):
        return _finite(value, path)
    if callable(value) and hasattr(value, "__qualname__"):
        called_so = (n for n, at in FUNCTIONS.items() if at.endswith(f":{value.__name__}"))
        known = (name for name in called_so if _resolve(FUNCTIONS[name]) is value)
        return {"function": next(known, _path_of(value))}
    raise ConfigError(
        path or "config",
        f"{type(value).__name__} cannot be stored",
        "use numbers, text, tuples, functions and frozen dataclasses",
    )


def _finite(value: float, path: str) -> float:
    require(math.isfinite(value), path or "config", f"is {value}", "give a finite number")
    return value


def _decode(tree: Any, path: str, own: dict[str, Any]) -> Any:
    if isinstance(tree, list):
        return tuple(_decode(v, join(path, i), own) for i, v in enumerate(tree))
    if isinstance(tree, float):
        return _finite(tree, path)
    if not isinstance(tree, dict):
        return tree
    kind = "function" if set(tree) == {"function"} else "class"
    require(kind in tree, path or "config", 'has no "class"', "write it with to_json")
    name = tree[kind]
    found = own.get(name) or own.get(_own_name(name)) if isinstance(name, str) else None
    if kind == "function":
        return found or _find_function(name, path)
    return _construct(found or _find_class(name, path), tree, path, own)


def _construct(cls: Any, tree: dict[str, Any], path: str, own: dict[str, Any]) -> Any:
    names, hints, values = field_names(cls), hints_of(cls), {}
    for name in tree.keys() - {"class"}:
        where = join(path, name)
        require(name in names, where, f"{cls.__name__} has no {name!r}", nearest(name, names))
        value = _decode(tree[name], where, own)
        expected = hints.get(name, Any)
        require(fits(value, expected), where, f"is {value!r}", f"give {spelled(expected)}")
        values[name] = float(value) if expected is float else value
    try:
        return cls(**values)
    except ConfigError as error:
        place = f"{path}: {error.where}" if path else error.where
        raise ConfigError(place, error.what, error.remedy) from error
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        what = f"{cls.__name__}: {error}"
        raise ConfigError(path or "config", what, "correct its values") from error


def _find_class(name: Any, path: str) -> Any:
    where = join(path, "class")
    remedy = f"pass your own class as classes=[{_own_name(name)[1:] or '…'}]"
    inside = isinstance(name, str) and re.fullmatch(rf"{PACKAGE}(\.[a-z]\w*)*:[A-Z]\w*", name)
    require(inside, where, f"{name!r} is not a class of {PACKAGE}", remedy)
    module, _, class_name = name.partition(":")
    name = f"{MOVED.get(module, module)}:{class_name}"
    what = f"{name!r} does not exist"
    with converting((ImportError, AttributeError), ConfigError, where, what, remedy):
        found = _resolve(name)
    ours = isinstance(found, type) and found.__module__ == name.partition(":")[0]
    require(ours and is_frozen(found), where, f"{name!r} is not a configuration", remedy)
    return found


def _find_function(name: Any, path: str) -> Any:
    known = isinstance(name, str) and name in FUNCTIONS
    own = _own_name(name)[1:] or "…"
    remedy = f"use one of {', '.join(FUNCTIONS)}, or pass your own function as classes=[{own}]"
    require(known, path or "config", f"there is no function {name!r}", remedy)
    return _resolve(FUNCTIONS[name])


def _own_name(name: Any) -> str:
    """Return the name of a reader's own class without its module, after a colon.

    A class may move: from `__main__`, a script or a notebook, into a module.
    """
    own = isinstance(name, str) and re.fullmatch(r"[\w.<>]+:[\w.<>]+", name)
    return "" if not own or name.startswith(PACKAGE) else f":{name.partition(':')[2]}"


def _path_of(item: Any) -> str:
    return f"{item.__module__}:{item.__qualname__}"


def _resolve(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def hints_of(cls: type) -> dict[str, Any]:
    """Return field name → annotation; empty if an annotation uses local names of a cell."""
    try:
        return typing.get_type_hints(cls, vars(sys.modules.get(cls.__module__, types)))
    except (NameError, TypeError):
        return {}


def fits(value: Any, hint: Any) -> bool:
    """Return True if `value` fits a field with the annotation `hint`."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, a) for a in args)
    if hint is float:
        return type(value) in (int, float)
    if hint in (int, bool, str, types.NoneType):
        return type(value) is hint
    if hint is tuple or origin is tuple:
        return isinstance(value, tuple) and _tuple_fits(value, args)
    # The other hints mean a config, a function or a class. A number or a text does not fit.
    return hint is Any or dataclasses.is_dataclass(value) or callable(value)


def _tuple_fits(value: tuple[Any, ...], args: tuple[Any, ...]) -> bool:
    if not args:
        return True
    if len(args) == 2 and args[1] is Ellipsis:
        return all(fits(v, args[0]) for v in value)
    return len(value) == len(args) and all(fits(v, a) for v, a in zip(value, args, strict=True))


def spelled(hint: Any) -> str:
    """Format an annotation as a reader would write it."""
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
