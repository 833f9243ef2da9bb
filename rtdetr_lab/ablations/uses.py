r"""# Uses: the globals that a function uses, and which modules are a reader's own"""

import dis
import importlib
import os
import re
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from rtdetr_lab.config import require

PACKAGE = "rtdetr_lab"
IN_PROCESS = "write it to a module and import it from there, or use InProcess()"
GLOBAL = {"LOAD_GLOBAL", "LOAD_NAME"}
ATTRIBUTE = {"LOAD_ATTR", "LOAD_METHOD", "IMPORT_FROM"}
LIBRARIES = ("stdlib", "platstdlib", "purelib", "platlib")
INSTALLED = [Path(sysconfig.get_paths()[name]).resolve() for name in LIBRARIES]
INSTALLED += [Path(p).resolve() for p in (*site.getsitepackages(), site.getusersitepackages())]
"""Folders of packages that were installed."""


def is_own(module: str) -> bool:
    """Return True for the name of a module that is not part of an installed package."""
    root = module.partition(".")[0]
    if root == "__main__":  # its file is another one if pytest or a notebook started Python
        return True
    if root in sys.stdlib_module_names or root == PACKAGE:
        return False
    file = getattr(sys.modules.get(module) or sys.modules.get(root), "__file__", None)
    return file is None or not is_installed(file)


@cache
def is_installed(path: str) -> bool:
    """Return True for a file or folder of an installed package, or of Python."""
    return any(Path(path).resolve().is_relative_to(folder) for folder in INSTALLED)


def used(code: CodeType, scope: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the globals that a function uses, and what it takes from a module among them."""
    steps = list(dis.get_instructions(code))
    names = dict.fromkeys(s.argval for s in steps if s.opname in GLOBAL)
    taken = list(dict.fromkeys(s.argval for s in steps if s.opname in ATTRIBUTE))
    imported = [s.argval for s in steps if s.opname == "IMPORT_NAME"]
    found = {name: scope[name] for name in names if name in scope}
    yield from found.items()
    modules = [v for v in found.values() if isinstance(v, ModuleType)]
    yield from _taken([*modules, *_modules(imported, scope)], taken)
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from used(inner, scope)


def _modules(names: Iterable[str], scope: Mapping[str, Any]) -> Iterator[ModuleType]:
    """Import the modules that a function would import when it runs."""
    for name in names:
        inside = f"{scope.get('__package__') or ''}.{name}"
        for spelled in (name, inside) if scope.get("__package__") else (name,):
            with suppress(Exception):
                yield importlib.import_module(spelled)
                break


def _taken(modules: Iterable[ModuleType], names: list[str]) -> Iterator[tuple[str, Any]]:
    for module in modules:
        if not is_own(module.__name__):
            continue
        for name in names:
            value = getattr(module, name, None)
            yield name, value
            if isinstance(value, ModuleType) and value.__name__.startswith(module.__name__ + "."):
                yield from _taken([value], names)


def modules_of(text: str) -> list[str]:
    """List the modules of a reader's own classes in a job's JSON, as NAME=FILE.

    The folders of `sys.path` come first, as =FOLDER: a module may import others from there. Raises
    `ConfigError` for a class that has no file, or is defined inside a function.
    """
    named = set(re.findall(r'"(?:class|function)": "([^":]+):([^"]+)"', text))
    found = set()
    for module, name in sorted(named):
        if module.partition(".")[0] == PACKAGE:
            continue
        file = getattr(sys.modules.get(module), "__file__", None)
        where = f"{module}:{name}"
        require("<locals>" not in name, where, "is defined inside a function", IN_PROCESS)
        require(file and Path(file).exists(), where, "is not defined in a file", IN_PROCESS)
        found.add(f"{module}={Path(str(file)).resolve()}")
    own = [path for path in map(os.path.abspath, sys.path) if not is_installed(path)]
    return [*(f"={path}" for path in own), *sorted(found)] if found else []
