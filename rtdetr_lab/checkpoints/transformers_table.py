r"""# Table: transformers' flat fields ↔ our tree

`transformers_fields.py` maps each of their parameters to a value of ours. `values_of` reads our
values from their flat dictionary, and `spelled` writes them into one. Both take a `base`, a
configuration of the same kind. A value must have the type that it has in `base`. A path that `base`
does not have is skipped, such as the weight of a mask in a detector without masks. What goes beyond
single fields is in `transformers_config.py`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from functools import reduce
from typing import Any

import torch.nn.functional as F
from torch import nn

from rtdetr_lab.backbone import BasicBlock, Bottleneck
from rtdetr_lab.config import require
from rtdetr_lab.detr.positions import LearnedPositions, SinePositions
from rtdetr_lab.errors import ConfigError, LabError, converting
from rtdetr_lab.layers import FrozenBatchNorm2d, gelu_tanh
from rtdetr_lab.samplers import Bilinear, Discrete

KEEP = 'save with layout="lab"'
WRONG_TYPE = "has a value of the wrong type ({})"  # a list for a number, or a word for a list
REMEDY = "change the value, or build this variant here and give it as config="

WORDS: tuple[dict[Any, Any], ...] = (
    {
        **{"relu": F.relu, "gelu": F.gelu, "silu": F.silu, "swish": F.silu},
        **dict.fromkeys(("gelu_new", "gelu_pytorch_tanh"), gelu_tanh),
    },
    {"basic": BasicBlock, "bottleneck": Bottleneck},
    {"default": Bilinear(), "discrete": Discrete(shift=0.5)},
    {"sine": SinePositions(), "learned": LearnedPositions()},
    {True: FrozenBatchNorm2d, False: nn.BatchNorm2d},
)
"""Their words → our function, class or small configuration.

A field uses the row that contains its default."""


def values_of(kind: Any, tree: Mapping[str, Any], where: str, base: Any) -> dict[str, Any]:
    """Return our path → our value, by the fields of `kind` in their flat dictionary."""
    values: dict[str, Any] = {}
    for known in fields(kind):
        theirs, place = tree.get(known.name, known.default), f"{where}[{known.name}]"
        if "in_files" in known.metadata:
            what = f"is {theirs!r}, only {known.default!r} works"
            same = (tuple(theirs) if isinstance(theirs, list) else theirs) == known.default
            require(same, place, what, REMEDY)
        for path in known.metadata.get("paths", ()):
            if (like := value_at(base, path)) is not None:
                values[path] = _read(theirs, known.default, like, place)
    return values


def _read(theirs: Any, default: Any, like: Any, where: str) -> Any:
    if (words := _words(default)) is not None:
        ok = type(theirs) is type(default) and theirs in words
        remedy = f"use one of {', '.join(map(str, words))}"
        remedy = "give true or false" if isinstance(default, bool) else remedy
        require(ok, where, f"is {theirs!r}", remedy)
        return words[theirs]
    if isinstance(like, tuple):
        return whole_numbers(theirs, where)
    kinds = (int, float) if isinstance(like, float) else (int,)
    require(type(theirs) in kinds, where, f"is {theirs!r}", "give a number")
    return type(like)(theirs)


def whole_numbers(theirs: Any, where: str) -> tuple[int, ...]:
    """Convert a list of whole numbers to a tuple; raise `ConfigError` for anything else."""
    ok = isinstance(theirs, list | tuple) and all(type(v) is int for v in theirs)
    require(ok, where, f"is {theirs!r}", "give whole numbers")
    return tuple(theirs)


def yes_or_no(tree: Mapping[str, Any], key: str, where: str) -> bool:
    """Return the value of a key that is true or false; False if it is missing."""
    value = tree.get(key, False)
    require(type(value) is bool, f"{where}[{key}]", f"is {value!r}", "give true or false")
    return bool(value)


def spelled(kind: Any, cfg: Any, base: Any) -> dict[str, Any]:
    """Return their key → value of our config, in their notation.

    Criterion and denoising are left out if they are of another kind than theirs.
    """
    left_out = () if getattr(cfg, "denoising", None) else ("denoising",)
    judges = ("criterion", "criterion.classification", "criterion.matcher.classification")
    if not all(isinstance(value_at(cfg, j), type(value_at(base, j))) for j in judges):
        left_out = (*left_out, "criterion")
    tree: dict[str, Any] = {}
    for known in fields(kind):
        for path in known.metadata.get("paths", ()):
            if value_at(base, path) is None or path.startswith(left_out):
                continue
            value = value_at(cfg, path)
            require(value is not None, path, "is not possible in transformers", KEEP)
            tree[known.name] = _spell(value, known.default, path)
    return {key: value for key, value in tree.items() if value is not None}


def _spell(value: Any, default: Any, path: str) -> Any:
    if (words := _words(default)) is not None:
        names = [name for name, item in words.items() if item == value]
        require(names, path, f"{value} has no name in transformers", KEEP)
        return names[0]
    if isinstance(default, tuple):
        return list(value)
    if isinstance(default, int):  # their field takes whole numbers only
        return int(value) if value == int(value) else None
    return value


def _words(default: Any) -> dict[Any, Any] | None:
    named = isinstance(default, str | bool)
    return next((words for words in WORDS if default in words), None) if named else None


def value_at(cfg: Any, path: str) -> Any:
    """Return the value at a dotted path, or None."""
    return reduce(lambda part, name: getattr(part, name, None), path.split("."), cfg)


@contextmanager
def placed(
    where: str, what: str = WRONG_TYPE, remedy: str = "correct its values"
) -> Iterator[None]:
    """Add `where` to every error inside the block; foreign errors become `ConfigError`."""
    with converting(Exception, ConfigError, where, what, remedy):
        try:
            yield
        except LabError as error:
            place = error.where if where in error.where else f"{where}: {error.where}"
            raise type(error)(place, error.what, error.remedy) from error


def class_names(tree: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Return the names of the classes in order, from `id2label`, else from `num_labels`."""
    count = tree.get("num_labels")
    unnamed = {i: f"LABEL_{i}" for i in range(2 if count is None else count)}  # as in transformers
    # In JSON the numbers are text.
    by_id = {int(i): str(name) for i, name in (tree.get("id2label") or unnamed).items()}
    require(by_id, f"{where}[num_labels]", f"is {count}", "give at least one class")
    what = f"numbers its {len(by_id)} classes {min(by_id)} … {max(by_id)}"
    contiguous = sorted(by_id) == list(range(len(by_id)))
    require(contiguous, f"{where}[id2label]", what, "number them 0, 1, 2 …")
    return tuple(by_id[i] for i in range(len(by_id)))
