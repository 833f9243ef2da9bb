r"""# Task: the common part of all runs, and what identifies a run

A **fingerprint** identifies a training run, and is the name of its folder: two studies share a
common run and train it once. It has everything that could change the trained model:

| part                                             | how it is compared                          |
|--------------------------------------------------|---------------------------------------------|
| configuration, recipe, the run it starts from    | as values                                   |
| classes and functions of a reader's own          | by the code that they reach (`source.py`)   |
| training pictures, files of initial weights      | by content, see below                       |
| this package                                     | by version                                  |

A **judgement** identifies an evaluation: validation pictures, views and measures, with their code.
If it changes, a trained model is evaluated again, without training. The name of a variant, its
hypothesis and the machine are part of neither.

## What the pictures of a split, and a file of weights, contain

A run may be taken from the disk only if its data is the same, and a row only if it was evaluated on
the same pictures. A length or a path does not show that.

| data                             | what we compare                                           |
|----------------------------------|-----------------------------------------------------------|
| drawn shapes                     | the settings of the drawing                               |
| a folder with annotations        | every byte of its annotations and pictures                |
| a wrapper (`First`, `Mapped`, …) | its settings, the code of its transform, what is inside   |
| any other data set               | its code, and pixels, labels and boxes of its samples     |

A transform can change every picture, so its code counts, too (`source.py`).
"""

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from torch import nn

from rtdetr_lab.ablations.source import built, code_of, digest_of
from rtdetr_lab.ablations.uses import is_own
from rtdetr_lab.ablations.variant import Setup
from rtdetr_lab.checkpoints.names import path_of
from rtdetr_lab.config_json import to_dict
from rtdetr_lab.data.batch import Dataset, Sample
from rtdetr_lab.data.coco import CocoDataset

MOST = 20_000
"""We read this many samples, spread evenly, of a reader's own larger data set."""


def content_of(data: Dataset) -> str:
    """Return a digest of what a data set contains, in 16 digits."""
    return digest_of(list(_parts(data)))


def _parts(data: Any) -> Iterator[Any]:
    kind = type(data)
    yield kind.__name__
    if isinstance(data, CocoDataset):
        found = (data.places.find(p) for p in data.annotations.pictures)
        files = [*data.annotations.files, *(f for f in found if isinstance(f, Path))]
        yield [(path.name, file_digest(path)) for path in files]
        yield data.names, data.category_ids, data.annotations.pictures
        yield data.with_masks, data.limits
    elif is_own(kind.__module__) or not is_dataclass(data):
        yield code_of(kind), tuple(data.names), tuple(data.category_ids), len(data)
        step = max(1, len(data) // MOST)
        yield [_sample(data[index]) for index in range(0, len(data), step)]
    else:
        for part in fields(data):
            value = getattr(data, part.name)
            yield part.name
            yield from _parts(value) if isinstance(value, Dataset) else [code_of(value)]


def _sample(sample: Sample) -> str:
    truth = sample.truth
    parts = (sample.image, sample.labels, sample.boxes, sample.masks)
    known = (truth.image_id, truth.size, truth.labels, truth.boxes_xyxy, truth.areas)
    return digest_of(*parts, *known, truth.is_crowd)


def weights_digest(name: str | None) -> str | None:
    """Return a digest of the file or folder that a name of weights means, or else the name."""
    path = path_of(name) if name else None
    if path is None or not path.exists():
        return name
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return digest_of([(p.name, file_digest(p)) for p in files])


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file; a file with the same size and time is not read again."""
    found = path.stat()
    return _read(path, found.st_size, found.st_mtime_ns)


@cache
def _read(path: Path, size: int, modified: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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

    `contents` are the digests of both splits. `loggers` names other programs that get the
    record of every run.
    """

    train: Dataset
    val: Dataset
    views: Views = field(default_factory=AsTrained)
    measures: tuple[Measure, ...] = ()
    device: str | None = None
    contents: tuple[str, str] = ("", "")
    loggers: tuple[str, ...] = ()

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
