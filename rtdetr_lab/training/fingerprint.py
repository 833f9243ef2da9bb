"""# Fingerprint: is this still the data the run began with?

A run that goes on with other annotations gives a result nobody can explain, so a run folder keeps
what its data was made of and refuses anything else. A fingerprint maps names to short values, from
the outermost wrapper to the pictures: a mismatch can then be named instead of shown as two digests.

    {"Mapped.transform": "Resize(size=(256, 256))", "CocoDataset.pictures": "205",
     "CocoDataset.annotations": "sha256 0f3c…", "CocoDataset.files": "sha256 91ab…"}

It is cheap, because it is taken before every start: of a COCO folder the annotation file is read,
of each picture only the size in bytes is asked for. A world that is drawn is its parameters. Where
the folder lies does not count: a run may move to another machine.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from rtdetr_lab.config import require
from rtdetr_lab.data.batch import Dataset
from rtdetr_lab.data.coco import CocoDataset
from rtdetr_lab.errors import TrainingError

Fingerprint = dict[str, str]


def fingerprint(data: Dataset) -> Fingerprint:
    """What `data` is made of. Of a data set of your own that is no dataclass: its class, its
    length and its classes."""
    return dict(_parts(data))


def check_same_data(where: Path, then: Fingerprint, now: Fingerprint) -> None:
    """Raises `TrainingError` naming every part that changed, as it was and as it is."""
    other = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    changes = (f"{n} was {then.get(n, 'absent')}, is {now.get(n, 'absent')}" for n in other)
    what = f"holds a run on other data: {'; '.join(changes)}"
    require(not other, where, what, "give another folder, or the same data", TrainingError)


def _parts(data: Any) -> Iterator[tuple[str, str]]:
    kind = type(data).__name__
    if isinstance(data, CocoDataset):
        yield from ((f"{kind}.{name}", value) for name, value in _coco(data))
        return
    if not is_dataclass(data):
        yield f"{kind}.pictures", str(len(data))
        yield f"{kind}.classes", _short(repr((tuple(data.names), tuple(data.category_ids))))
        return
    for field in fields(data):
        value = getattr(data, field.name)
        if isinstance(value, Dataset):
            yield from _parts(value)
        else:
            yield f"{kind}.{field.name}", _short(repr(value))


def _coco(data: CocoDataset) -> Iterator[tuple[str, str]]:
    files = data.annotations.files
    yield "pictures", str(len(data))
    yield "annotations", _digest(b"".join(path.read_bytes() for path in files))
    found = (data.places.find(p) for p in data.annotations.pictures)
    sizes = sorted((f.name, f.stat().st_size) for f in found if isinstance(f, Path))
    yield "files", _digest(repr(sizes).encode())
    yield "with_masks", str(data.with_masks)
    if data.limits.bits:  # runs of before this option could not say so
        yield "bits", str(data.limits.bits)


def _digest(content: bytes) -> str:
    return f"sha256 {hashlib.sha256(content).hexdigest()[:16]}"


def _short(text: str) -> str:
    """Addresses change from run to run, and a message is no place for a thousand numbers."""
    text = re.sub(r" at 0x[0-9a-f]+", "", text)
    return text if len(text) <= 80 else f"{text[:40]}… {_digest(text.encode())}"
