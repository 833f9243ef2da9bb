r"""# Source: the code that a run depends on

A run may be taken from the disk only if the same code would train it again. So its fingerprint has
the code of everything of a reader's own that its configuration reaches:

| reached from          | what we read                                                         |
|-----------------------|----------------------------------------------------------------------|
| a value               | its class; its fields; what a `functools.partial` holds              |
| a class               | its bases, methods, properties and class attributes                  |
| a function            | bytecode, constants, defaults, closure; the globals that it uses     |
| a module              | the attributes that the function takes from it                       |
| a configuration       | the classes of all modules that its `build()` makes                  |

We read bytecode and not source text. It is what runs, even if the file was edited after the import,
and it exists for classes of a notebook too. A comment changes nothing; another version of Python
does. Installed packages, and this one, count by name only.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rtdetr_lab.ablations.uses import is_own, used


def code_of(*values: Any) -> Any:
    """Return the code of a reader's own that `values` reach, as a tree of plain values."""
    reader = _Reader()
    return [reader.read(value) for value in values]


def own_classes(cfg: Any) -> list[Any]:
    """List the classes and functions that a configuration reaches outside installed packages."""
    reader = _Reader()
    reader.read(cfg)
    return [found for found in reader.known if not isinstance(found, ModuleType)]


def built(cfg: Any) -> Iterator[Any]:
    """Yield what a model is built of, if it is a reader's own: classes, functions, objects."""
    modules: list[Any] = []
    with suppress(Exception), torch.random.fork_rng(devices=[]):
        modules = list(cfg.build().modules())  # what cannot be built is reported elsewhere
    for kind in dict.fromkeys(kind for module in modules for kind in type(module).__mro__):
        if is_own(kind.__module__):
            yield kind
        else:  # a method of a reader's own may be put into a class of this package
            yield from filter(_is_own_function, vars(kind).values())
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, partial | MethodType) or _is_own_function(value):
                yield value
            elif is_own(type(value).__module__):
                yield type(value)


def _is_own_function(value: Any) -> bool:
    """Return True by the globals: `functools.wraps` gives a wrapper the name of what it wraps."""
    module = value.__globals__.get("__name__") if isinstance(value, FunctionType) else None
    return module is not None and is_own(module)


class _Reader:
    """Walk over values; a class, function or module that was seen is a number the next time."""

    def __init__(self) -> None:
        self.known: dict[Any, int] = {}
        self.inside: list[int] = []

    def read(self, value: Any) -> Any:
        """Return a tree of lists and text; equal values of equal code give equal trees."""
        if isinstance(value, FunctionType | type | ModuleType):
            return self._named(value)
        if value is None or isinstance(value, bool | int | float | complex | str | bytes | Path):
            return repr(value)
        if id(value) in self.inside:
            return "itself"
        self.inside.append(id(value))
        try:
            return self._value(value)
        finally:
            self.inside.pop()

    def _value(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return [[self.read(k), self.read(v)] for k, v in value.items()]
        if isinstance(value, tuple | list):
            return [self.read(v) for v in value]
        if isinstance(value, set | frozenset):  # their order changes from process to process
            return sorted(repr(self.read(v)) for v in value)
        if isinstance(value, CodeType):
            return self._code(value)
        if isinstance(value, partial):
            return [self.read(v) for v in (value.func, value.args, value.keywords)]
        if isinstance(value, MethodType):
            return [self.read(value.__func__), self.read(value.__self__)]
        if isinstance(value, staticmethod | classmethod):
            return self.read(value.__func__)
        if isinstance(value, property):
            return [self.read(v) for v in (value.fget, value.fset)]
        if isinstance(value, Tensor | np.ndarray):
            return digest_of(value)
        kind = self.read(type(value))
        if is_dataclass(value):
            return [kind, [[f.name, self.read(getattr(value, f.name))] for f in fields(value)]]
        held = getattr(value, "__dict__", None)
        plain = re.sub(r" at 0x[0-9a-f]+", "", repr(value)) if held is None else self.read(held)
        return [kind, plain]

    def _named(self, value: Any) -> Any:
        if isinstance(value, FunctionType):
            return self._function(value)
        module = value.__name__ if isinstance(value, ModuleType) else value.__module__
        name = getattr(value, "__qualname__", module)
        if value in self.known or not is_own(str(module)):
            return f"{name} {self.known.get(value, '')}"
        self.known[value] = len(self.known)
        if isinstance(value, ModuleType):
            return name  # its attributes are read by the functions that use them
        members = [[n, self.read(v)] for n, v in vars(value).items() if _is_member(n, v)]
        return [name, [self.read(base) for base in (type(value), *value.__bases__)], members]

    def _function(self, function: FunctionType) -> Any:
        cells = [c.cell_contents for c in function.__closure__ or () if _is_full(c)]
        if not _is_own_function(function):
            wrapped = filter(_is_own_function, [*cells, *vars(function).values()])
            return [function.__qualname__, [self.read(c) for c in wrapped]]
        if function in self.known:
            return self.known[function]
        self.known[function] = len(self.known)
        parts = (function.__code__, function.__defaults__, function.__kwdefaults__)
        found = [[n, self.read(v)] for n, v in used(function.__code__, function.__globals__)]
        return [*map(self.read, (*parts, cells, vars(function))), found]

    def _code(self, code: CodeType) -> Any:
        return [code.co_code.hex(), list(code.co_names), [self.read(c) for c in code.co_consts]]


def _is_member(name: str, value: Any) -> bool:
    """Return True for what a class is made of, and not for what Python notes about it."""
    noted = name.startswith("__") and not isinstance(value, FunctionType | classmethod | property)
    return not noted and not name.startswith("_abc_")


def _is_full(cell: Any) -> bool:
    with suppress(ValueError):
        return cell.cell_contents is not None
    return False


def digest_of(*values: Any) -> str:
    """Return the SHA-256 of tensors, arrays and plain values, in 16 digits."""
    found = hashlib.sha256()
    for value in values:
        if isinstance(value, Tensor):
            value = value.detach().cpu().numpy() if not value.is_meta else tuple(value.shape)
        if isinstance(value, np.ndarray):
            found.update(f"{value.dtype} {value.shape}".encode())
            found.update(np.ascontiguousarray(value).tobytes())
        else:
            found.update(repr(value).encode())
    return found.hexdigest()[:16]
