r"""# Contents: what the pictures of a split, and a file of weights, contain

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
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rtdetr_lab.ablations.source import code_of, digest_of
from rtdetr_lab.ablations.uses import is_own
from rtdetr_lab.checkpoints.names import path_of
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
        for field in fields(data):
            value = getattr(data, field.name)
            yield field.name
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
