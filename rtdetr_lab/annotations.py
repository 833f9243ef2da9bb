r"""# Annotations: does a value read from JSON fit the field it is meant for?

JSON knows numbers, text, lists and objects; a config's field knows more precisely what it wants.
The annotation that documents the field for a reader checks it here: no second description. Only
plain values are judged. A dataclass or a function in a field is a variant, and always welcome.
"""

import dataclasses
import sys
import types
import typing
from typing import Any


def hints_of(cls: type) -> dict[str, Any]:
    """Field name → annotation of a dataclass; empty where it names what only its cell knows."""
    try:
        return typing.get_type_hints(cls, vars(sys.modules.get(cls.__module__, types)))
    except (NameError, TypeError):
        return {}


def fits(value: Any, hint: Any) -> bool:
    """May `value` stand in a field annotated with `hint`?"""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, a) for a in args)
    if hint is float:
        return type(value) in (int, float)
    if hint in (int, bool, str, types.NoneType):
        return type(value) is hint
    if hint is tuple or origin is tuple:
        return isinstance(value, tuple) and _tuple_fits(value, args)
    # What is left asks for a config, a function or a class: a number or a text is none of these.
    return hint is Any or dataclasses.is_dataclass(value) or callable(value)


def _tuple_fits(value: tuple[Any, ...], args: tuple[Any, ...]) -> bool:
    if not args:
        return True
    if len(args) == 2 and args[1] is Ellipsis:
        return all(fits(v, args[0]) for v in value)
    return len(value) == len(args) and all(fits(v, a) for v, a in zip(value, args, strict=True))


def spelled(hint: Any) -> str:
    """An annotation as a reader would write it."""
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
