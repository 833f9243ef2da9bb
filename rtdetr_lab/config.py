r"""# Configuration: frozen values, changed by path, kept as JSON

Every module has a small frozen dataclass beside it with `build()`; composites hold the configs of
their parts. That is the whole system. A variant is another value in a field, and if no existing
dataclass says it, a reader writes one in a notebook cell. Nothing is registered.

    cfg = replace_at(rtdetr_r18(), "encoder.aifi.num_heads", 4)
    diff(rtdetr_r18(), cfg)                 # {"encoder.aifi.num_heads": (8, 4)}
    from_json(to_json(cfg)) == cfg

| in a config          | in JSON                                                             |
|----------------------|---------------------------------------------------------------------|
| a dataclass          | `{"class": "rtdetr_lab.aifi:AIFIConfig", "num_heads": 8, …}`         |
| a tuple              | a list; lists come back as tuples                                   |
| a function or class  | `{"function": "relu"}`, a name of the table `FUNCTIONS`             |
| number, text, `None` | itself                                                              |

**Reading JSON runs nothing a stranger chose.** A class path is resolved only inside `rtdetr_lab`
and only to a frozen dataclass defined there; a function only through the table. A reader's own
class or function is found among those passed as `classes=[MySelection]`, and nowhere else.
"""

import dataclasses
import importlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any

from rtdetr_lab.annotations import fits, hints_of, spelled
from rtdetr_lab.errors import ConfigError

PACKAGE = "rtdetr_lab"

FUNCTIONS = {
    **{
        n: f"torch.nn.functional:{n}" for n in ("relu", "silu", "gelu", "leaky_relu", "elu", "mish")
    },
    **{n: f"torch:{n}" for n in ("tanh", "sigmoid")},
    "identity": f"{PACKAGE}.layers:identity",
    "batch_norm": "torch.nn:BatchNorm2d",
    "frozen_batch_norm": f"{PACKAGE}.layers:FrozenBatchNorm2d",
    "sine_2d": f"{PACKAGE}.layers:sine_2d",
    "sine_2d_authors": f"{PACKAGE}.layers:sine_2d_authors",
    "basic_block": f"{PACKAGE}.backbone:BasicBlock",
    "bottleneck": f"{PACKAGE}.backbone:Bottleneck",
    "look_forward_twice": f"{PACKAGE}.decoder:look_forward_twice",
    "look_forward_once": f"{PACKAGE}.decoder:look_forward_once",
}
"""The functions and module classes a config may name, resolved when first needed."""


def build(cfg: Any) -> Any:
    """What `cfg` describes; the same as `cfg.build()`, with an error that helps."""
    if not callable(getattr(cfg, "build", None)):
        raise ConfigError(type(cfg).__name__, "has no build()", "give a config, not a module")
    return cfg.build()


def require(ok: object, where: str, what: str, remedy: str) -> None:
    """Raise `ConfigError(where, what, remedy)` unless `ok`: the one line of a `__post_init__`."""
    if not ok:
        raise ConfigError(where, what, remedy)


def replace_at(cfg: Any, path: str, value: Any) -> Any:
    """A copy of `cfg` with one value changed, however deep: `"encoder.aifi.num_heads"`.

    Steps are field names, or indices into tuples. The checks of every config on the way run again.
    """
    return _replace(cfg, path.split("."), value, path)


def diff(a: Any, b: Any) -> dict[str, tuple[Any, Any]]:
    """Path → (value in `a`, value in `b`) wherever they differ; parts of another class whole."""
    return dict(_differences(a, b, ""))


def to_json(cfg: Any) -> str:
    """`cfg` as JSON text, the form that checkpoints keep."""
    return json.dumps(to_dict(cfg), indent=2, allow_nan=False)


def to_dict(cfg: Any) -> dict[str, Any]:
    """`cfg` as plain dictionaries, lists and values."""
    require(_is_config(cfg), type(cfg).__name__, "is not a frozen dataclass", "give a config")
    return _encode(cfg, "")


def from_json(text: str, classes: Sequence[Any] = ()) -> Any:
    """The config that `to_json` wrote; `classes` are the reader's own classes and functions."""
    try:
        return from_dict(json.loads(text), classes)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ConfigError("config", f"is not JSON: {error}", "write it with to_json") from error


def from_dict(tree: Any, classes: Sequence[Any] = ()) -> Any:
    """The config that `to_dict` wrote."""
    require(isinstance(tree, dict), "config", "is no JSON object", "write it with to_json")
    return _decode(tree, "", {_path_of(c): c for c in classes})


def _is_config(value: Any) -> bool:
    return _is_frozen(type(value))


def _is_frozen(cls: type) -> bool:
    params: Any = getattr(cls, "__dataclass_params__", None)
    return params is not None and params.frozen


def _join(path: str, step: object) -> str:
    return f"{path}.{step}" if path else str(step)


def _fields(cls: Any) -> list[str]:
    return [f.name for f in dataclasses.fields(cls) if f.init]


def _nearest(name: str, among: Sequence[str]) -> str:
    near = get_close_matches(name, among, n=3, cutoff=0.5) or among
    return f"did you mean {', '.join(near)}?" if near else "it has no fields"


def _replace(node: Any, steps: list[str], value: Any, path: str) -> Any:
    if not steps:
        return value
    step, *rest = steps
    if isinstance(node, tuple):
        inside = step.isdecimal() and int(step) < len(node)
        require(inside, path, f"{step!r} is no index of {node}", f"use 0 … {len(node) - 1}")
        i = int(step)
        return (*node[:i], _replace(node[i], rest, value, path), *node[i + 1 :])
    require(_is_config(node), path, f"{step!r} is asked of {node!r}", "end the path before it")
    name = type(node).__name__
    require(step in _fields(node), path, f"{name} has no {step!r}", _nearest(step, _fields(node)))
    return dataclasses.replace(node, **{step: _replace(getattr(node, step), rest, value, path)})


def _differences(a: Any, b: Any, path: str) -> Iterator[tuple[str, tuple[Any, Any]]]:
    if _is_config(a) and type(a) is type(b):
        for name in _fields(a):
            yield from _differences(getattr(a, name), getattr(b, name), _join(path, name))
    elif isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from _differences(x, y, _join(path, i))
    elif a != b or isinstance(a, bool) is not isinstance(b, bool):  # 1 is 1.0 but is not True
        yield path, (a, b)


def _encode(value: Any, path: str) -> Any:
    if _is_config(value):
        fields = {n: _encode(getattr(value, n), _join(path, n)) for n in _fields(value)}
        return {"class": _path_of(type(value)), **fields}
    if isinstance(value, tuple):
        return [_encode(v, _join(path, i)) for i, v in enumerate(value)]
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
        f"{type(value).__name__} cannot be kept",
        "a config holds numbers, text, tuples, functions and frozen dataclasses",
    )


def _finite(value: float, path: str) -> float:
    require(math.isfinite(value), path or "config", f"is {value}", "give a finite number")
    return value


def _decode(tree: Any, path: str, own: dict[str, Any]) -> Any:
    if isinstance(tree, list):
        return tuple(_decode(v, _join(path, i), own) for i, v in enumerate(tree))
    if isinstance(tree, float):
        return _finite(tree, path)
    if not isinstance(tree, dict):
        return tree
    if set(tree) == {"function"}:
        return _find_function(tree["function"], path, own)
    require("class" in tree, path or "config", 'has no "class"', "write it with to_json")
    return _construct(_find_class(tree["class"], path, own), tree, path, own)


def _construct(cls: Any, tree: dict[str, Any], path: str, own: dict[str, Any]) -> Any:
    names, hints, values = _fields(cls), hints_of(cls), {}
    for name in tree.keys() - {"class"}:
        where = _join(path, name)
        require(name in names, where, f"{cls.__name__} has no {name!r}", _nearest(name, names))
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


def _find_class(name: Any, path: str, own: dict[str, Any]) -> Any:
    where = _join(path, "class")
    if isinstance(name, str) and name in own:
        return own[name]
    remedy = "pass your own class as classes=[…]"
    inside = isinstance(name, str) and re.fullmatch(rf"{PACKAGE}(\.[a-z]\w*)*:[A-Z]\w*", name)
    require(inside, where, f"{name!r} is not a class of {PACKAGE}", remedy)
    try:
        found = _resolve(name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(where, f"{name!r} does not exist", remedy) from error
    ours = isinstance(found, type) and found.__module__ == name.partition(":")[0]
    require(ours and _is_frozen(found), where, f"{name!r} is not a configuration", remedy)
    return found


def _find_function(name: Any, path: str, own: dict[str, Any]) -> Any:
    if isinstance(name, str) and name in own:
        return own[name]
    known = isinstance(name, str) and name in FUNCTIONS
    remedy = f"one of {', '.join(FUNCTIONS)}; pass your own function as classes=[…]"
    require(known, path or "config", f"no function is called {name!r}", remedy)
    return _resolve(FUNCTIONS[name])


def _path_of(item: Any) -> str:
    return f"{item.__module__}:{item.__qualname__}"


def _resolve(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
