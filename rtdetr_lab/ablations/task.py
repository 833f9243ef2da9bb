r"""# Task: the common part of all runs, and what identifies a run

A **fingerprint** identifies a training run, and is the name of its folder: two studies share a
common run and train it once. It has everything that could change the trained model:

| part                                             | how it is compared                          |
|--------------------------------------------------|---------------------------------------------|
| configuration, recipe, the run it starts from    | as values                                   |
| classes and functions of a reader's own          | by the code that they reach (`source.py`)   |
| training pictures, files of initial weights      | by content (`contents.py`)                  |
| this package                                     | by version                                  |

A **judgement** identifies an evaluation: validation pictures, views and measures, with their code.
If it changes, a trained model is evaluated again, without training. The name of a variant, its
hypothesis and the machine are part of neither.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import nn

from rtdetr_lab.ablations.contents import weights_digest
from rtdetr_lab.ablations.source import built, code_of, digest_of
from rtdetr_lab.ablations.variant import Setup
from rtdetr_lab.config_json import to_dict
from rtdetr_lab.data.batch import Dataset

Views = Callable[[Any], Mapping[str, Any]]
Measure = Callable[[nn.Module, list[list[Any]]], Mapping[str, Any]]


@dataclass(frozen=True)
class AsTrained:
    """One view: the whole model as it was trained."""

    def __call__(self, model: Any) -> Mapping[str, Any]:
        return {"": model}


@dataclass(frozen=True)
class Task:
    """Common part of all runs of a study: training and validation pictures, views, measures.

    `contents` are the digests of both splits. With `tensorboard`, every run writes its record in
    that form, too.
    """

    train: Dataset
    val: Dataset
    views: Views = field(default_factory=AsTrained)
    measures: tuple[Measure, ...] = ()
    device: str | None = None
    contents: tuple[str, str] = ("", "")
    tensorboard: bool = False

    @cached_property
    def judgement(self) -> str:
        """Identify the evaluation: rows of another one cannot be compared."""
        named = [_name(part) for part in (self.views, *self.measures)]
        code = code_of(self.views, self.measures)
        return digest_of(self.contents[1], named, code, _version())


def codes(setup: Setup) -> tuple[str, ...]:
    """Return digests of the code of a setup, and of each that is trained before it."""
    chain = (setup, *starts(setup))
    found = (code_of(each.cfg, each.recipe, *built(each.cfg)) for each in chain)
    return tuple(digest_of(json.dumps(code)) for code in found)


def fingerprint(setup: Setup, contents: str, code: Sequence[str]) -> str:
    """Identify a training run by its setup, the contents of its training data, and its code."""
    parts: list[Any] = [_unplaced(to_dict(setup)), contents, list(code), _version()]
    for each in (setup, *starts(setup)):
        parts += map(weights_digest, (each.weights, each.backbone_weights))
    return digest_of(json.dumps(parts, sort_keys=True))


def starts(setup: Setup) -> Iterator[Setup]:
    """Yield the setups that must be trained before this one."""
    while setup.start is not None:
        setup = setup.start
        yield setup


def _name(part: Any) -> str:
    return getattr(part, "__qualname__", type(part).__qualname__)


def _version() -> str:
    return str(sys.modules["rtdetr_lab"].__version__)


def _unplaced(tree: Any) -> Any:
    """Leave out the modules of classes: a class may move from a notebook into a file."""
    if isinstance(tree, list):
        return [_unplaced(value) for value in tree]
    if not isinstance(tree, dict):
        return tree
    names = {n: tree[n].rpartition(":")[2] for n in ("class", "function") if n in tree}
    return {name: _unplaced(value) for name, value in tree.items()} | names
