"""# Fingerprint: is this still the data that the run began with?

A run that changes its data in the middle gives a result that has no explanation. So a run folder
stores a fingerprint of its data and refuses other data. A fingerprint maps names to short values,
from the outermost wrapper to the pictures. So an error can name what changed, instead of two
digests that differ.

    {"Mapped.transform": "Resize(size=(256, 256))", "CocoDataset.pictures": "205",
     "CocoDataset.annotations": "sha256 0f3c…", "CocoDataset.files": "sha256 91ab…"}

It is computed before every start, so it must be cheap. In a COCO folder it reads the annotation
file, but of each picture only the size in bytes. For drawn data it uses the parameters of the
drawing. The place of the folder is not part of it: a run may move to another machine.
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
    """Return the fingerprint of `data`. For your own data set that is no dataclass, it has the
    class, the length and the class names."""
    return dict(_parts(data))


def check_same_data(where: Path, then: Fingerprint, now: Fingerprint) -> None:
    """Raise `TrainingError` that lists every changed part with its old and new value."""
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
    if data.limits.bits:  # older runs do not have this key
        yield "bits", str(data.limits.bits)


def _digest(content: bytes) -> str:
    return f"sha256 {hashlib.sha256(content).hexdigest()[:16]}"


def _short(text: str) -> str:
    """Shorten a value for a message, and remove memory addresses: they change from run to run."""
    text = re.sub(r" at 0x[0-9a-f]+", "", text)
    return text if len(text) <= 80 else f"{text[:40]}… {_digest(text.encode())}"
