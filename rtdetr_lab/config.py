r"""# Configuration: frozen values, changed by path

Every module has a small frozen dataclass with a `build()` method beside it. The config of a
composite contains the configs of its parts. A variant is another value in a field. If no existing
dataclass can express it, write one in a notebook cell. There is no registry.

    cfg = replace_at(rtdetr_r18(), "encoder.aifi.num_heads", 4)
    diff(rtdetr_r18(), cfg)                 # {"encoder.aifi.num_heads": (8, 4)}

Files store configs as JSON: `config_json.py`.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

from rtdetr_lab.errors import ConfigError, LabError

Number = int | float
Kind = TypeVar("Kind")


def build(cfg: Any) -> Any:
    """Build the module that `cfg` describes: `cfg.build()`, with a helpful error."""
    if not callable(getattr(cfg, "build", None)):
        raise ConfigError(type(cfg).__name__, "has no build()", "give a config, not a module")
    return cfg.build()


def require(
    ok: object, where: object, what: str, remedy: str, error: type[LabError] = ConfigError
) -> None:
    """Raise `error(where, what, remedy)` unless `ok`."""
    if not ok:
        raise error(str(where), what, remedy)


def given(value: Any, otherwise: Any) -> Any:
    """Return `value`, or `otherwise` if it is None."""
    return otherwise if value is None else value


def dropouts(cfg: Any) -> dict[str, float]:
    """Return the dropouts of attention weights, and inside the feed-forward, of a part's config."""
    names = ("attention_dropout", "activation_dropout")
    return {name: given(getattr(cfg, name), cfg.dropout) for name in names}


def require_at_least(least: int, where: str, **values: Number) -> None:
    """Raise `ConfigError` if a value is smaller: `require_at_least(1, "decoder", dim=0)`."""
    for name, value in values.items():
        require(value >= least, join(where, name), f"is {value}", f"give at least {least}")


def require_between(low: Number, high: Number, where: str, **values: Number) -> None:
    """Raise `ConfigError` unless every value is from `low` to `high`, both included."""
    for name, value in values.items():
        remedy = f"give a number from {low} to {high}"
        require(low <= value <= high, join(where, name), f"is {value}", remedy)


def require_below_one(where: str, **values: Number) -> None:
    """Raise `ConfigError` unless every value is a probability from 0 to below 1."""
    for name, value in values.items():
        remedy = "give a number from 0 to below 1"
        require(0 <= value < 1, join(where, name), f"is {value}", remedy)


def require_divisible(where: str, width: int, *parts: int) -> None:
    """Raise `ConfigError` unless `width` can be divided by each number of parts."""
    for count in parts:
        what = f"{width} cannot be divided by {count}"
        require(count >= 1 and width % count == 0, where, what, f"choose a multiple of {count}")


def require_weights(where: str, *weights: Number) -> None:
    """Raise `ConfigError` unless the weights of a sum are not negative, and not all zero."""
    what = f"weights {weights} are all zero, or one is negative"
    remedy = "give weights that are not negative and not all zero"
    require(min(weights) >= 0 and max(weights) > 0, where, what, remedy)


def replace_at(cfg: Any, path: str, value: Any) -> Any:
    """Copy `cfg` with one value changed at any depth: `"encoder.aifi.num_heads"`.

    Steps are field names, or indices into tuples. The checks of every config on the way run again.
    """
    return replace_all(cfg, {path: value})


def replace_all(cfg: Any, values: Mapping[str, Any]) -> Any:
    """Copy `cfg` with several paths changed at once; checks see only the complete change."""
    return _replace(cfg, values, "")


def extend(cfg: Any, kind: type[Kind], **changes: Any) -> Kind:
    """Make a config of another class from the values of `cfg` that the class has, and `changes`."""
    shared = set(field_names(cfg)) & set(field_names(kind))
    return kind(**{name: getattr(cfg, name) for name in shared} | changes)


def diff(a: Any, b: Any) -> dict[str, tuple[Any, Any]]:
    """Map path → (value in `a`, value in `b`) where they differ; other classes as a whole."""
    return dict(_differences(a, b, ""))


def is_config(value: Any) -> bool:
    """Return True if `value` is a frozen dataclass."""
    return is_frozen(type(value))


def is_frozen(cls: type) -> bool:
    """Return True if `cls` is a frozen dataclass."""
    params: Any = getattr(cls, "__dataclass_params__", None)
    return params is not None and params.frozen


def join(path: str, step: object) -> str:
    """Add a step to a dotted path."""
    return f"{path}.{step}" if path else str(step)


def field_names(cls: Any) -> list[str]:
    """List the fields that a constructor takes."""
    return [f.name for f in dataclasses.fields(cls) if f.init]


def nearest(name: str, among: Sequence[str]) -> str:
    """Suggest the most similar field name."""
    near = get_close_matches(name, among, n=3, cutoff=0.5) or among
    return f"did you mean {', '.join(near)}?" if near else "it has no fields"


def _replace(node: Any, values: Mapping[str, Any], above: str) -> Any:
    """Copy `node`, which is at the path `above`; the paths in `values` start there."""
    parts: dict[Any, dict[str, Any]] = {}
    for path, value in values.items():
        step, _, rest = path.partition(".")
        parts.setdefault(_key(node, step, join(above, path)), {})[rest] = value
    changed: dict[Any, Any] = {}
    for key, inner in parts.items():
        part = node[key] if isinstance(node, tuple) else getattr(node, key)
        changed[key] = inner[""] if "" in inner else _replace(part, inner, join(above, key))
    if isinstance(node, tuple):
        return tuple(changed.get(i, part) for i, part in enumerate(node))
    return dataclasses.replace(node, **changed)


def _key(node: Any, step: str, path: str) -> Any:
    """Return the field, or the index, for a step of a path."""
    if isinstance(node, tuple):
        inside = step.isdecimal() and int(step) < len(node)
        require(inside, path, f"{step!r} is not an index of {node}", f"use 0 … {len(node) - 1}")
        return int(step)
    require(is_config(node), path, f"{node!r} has no {step!r}", "end the path before it")
    known = field_names(node)
    require(step in known, path, f"{type(node).__name__} has no {step!r}", nearest(step, known))
    return step


def _differences(a: Any, b: Any, path: str) -> Iterator[tuple[str, tuple[Any, Any]]]:
    if is_config(a) and type(a) is type(b):
        for name in field_names(a):
            yield from _differences(getattr(a, name), getattr(b, name), join(path, name))
    elif isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from _differences(x, y, join(path, i))
    elif a != b or isinstance(a, bool) is not isinstance(b, bool):  # 1 is 1.0 but is not True
        yield path, (a, b)
