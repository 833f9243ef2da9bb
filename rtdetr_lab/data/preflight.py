r"""# Preflight: read everything once, before hours of training

    for report in check_folder("my_data"):
        print(report)

We decode each picture and check each annotation against the rules of `findings.py`. Training uses
the same rules: `CocoDataset.dropped` counts what is `DROPPED` here, and if no finding is an
`ERROR`, training meets none.

Some rules need more than one picture or split. Splits must have the same classes. One picture (by
the sha256 of its file) may be in a split twice. It is worse if it is in two splits: then a
validation rewards overfitting.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from rtdetr_lab.data import findings as rules
from rtdetr_lab.data.annotated import Annotations, Picture, Progress
from rtdetr_lab.data.batch import Dataset, innermost
from rtdetr_lab.data.coco import CocoDataset, Opened, open_picture
from rtdetr_lab.data.findings import Finding, Severity, raise_first_error
from rtdetr_lab.data.layout import find_layout
from rtdetr_lab.data.places import Places
from rtdetr_lab.data.report import Report, histogram_of_sides
from rtdetr_lab.data.whole_set import other_classes, too_many_objects
from rtdetr_lab.images.decode import DEFAULT_LIMITS, Limits
from rtdetr_lab.structures.environment import num_cores

QUERIES = 300
"""The largest number of objects that RT-DETR finds in a picture."""

CONTRAST = 16
"""The smallest range of values, from the darkest to the brightest, that shows something."""


def check_folder(
    source: str | Path,
    splits: Sequence[str] = (),
    progress: Progress = iter,
    images: str | Path | None = None,
    num_queries: int = QUERIES,
    limits: Limits = DEFAULT_LIMITS,
    voc_origin: int = 1,
) -> list[Report]:
    """Return a report on each split of a folder or file, or on the `splits` given.

    Raises `DataError` if there is none. Give `images` if the pictures lie elsewhere. `progress`
    wraps the pictures while they are read. `limits` and `voc_origin` have the same meaning as in
    training.
    """
    layout = find_layout(source, voc_origin)
    found = {split: layout[split].inspect() for split in splits or layout.splits}
    folder = Path(images or layout.folder)
    others = list(other_classes(found))
    seen: dict[str, str] = {}
    reports = []
    for split, known in found.items():
        report = check(known, folder, progress, num_queries, limits)
        file, digests = report.file, report.digests
        again = [_same(file, n, seen[digest]) for digest, n in digests.items() if digest in seen]
        findings = [*report.findings, *(f for f in others if f.file == file), *again]
        if split == "test":  # COCO's own test split has no annotations
            findings = list(map(_excuse, findings))
        reports.append(replace(report, findings=tuple(findings)))
        name = Path(file).name
        seen = {digest: f"picture {n} of {name}" for digest, n in digests.items()} | seen
    return reports


def check(
    annotations: Annotations,
    folder: Path,
    progress: Progress = iter,
    num_queries: int = QUERIES,
    limits: Limits = DEFAULT_LIMITS,
) -> Report:
    """Read each picture, and report what training would meet."""
    pictures, file = annotations.pictures, str(annotations.path)
    seen = [a for p in pictures for a in p.objects]
    per_class = Counter(a.label for a in seen)
    classes = tuple((name, per_class[label]) for label, name in enumerate(annotations.names))
    places = Places(folder, annotations.path)
    doubles = (f for f in places.find_all(pictures) if f.rule is rules.SAME_FILE)
    crowded = too_many_objects(annotations, num_queries)
    findings = [*annotations.findings, *doubles, *crowded]
    first: dict[str, int] = {}
    with ThreadPoolExecutor(min(8, num_cores())) as pool:  # decoding releases Python's lock
        results = pool.map(partial(_read, places=places, limits=limits), pictures)
        for picture, (wrong, digest) in zip(progress(pictures), results, strict=True):
            findings += wrong
            if digest and first.setdefault(digest, picture.id) != picture.id:
                findings.append(_same(file, picture.id, f"picture {first[digest]}"))
    sides = histogram_of_sides(a.box_xywh for a in seen)
    most = annotations.most_objects
    return Report(file, tuple(findings), len(pictures), classes, sides, first, most)


def first_look(data: CocoDataset, count: int = 8) -> tuple[Finding, ...]:
    """Check a data set in the first seconds of a run.

    This covers all annotations, whether all pictures are there, and the pixels of `count` pictures.
    Raises `DataError` for the first error.
    """
    known = data.annotations
    step = max(1, len(known.pictures) // count)
    found: list[Finding] = []
    for picture in known.pictures[::step][:count]:
        found += _look(open_picture(picture, data.places, data.limits), picture)
    raise_first_error([*known.findings, *data.places.find_all(known.pictures), *found])
    return (*known.findings, *found)


def look_at(data: Dataset, num_queries: int | None = None) -> tuple[Finding, ...]:
    """Take a `first_look` at the stored data set inside all wrappers, and check whether a picture
    has more objects than a model has queries. Drawn pictures have no findings."""
    stored = innermost(data)
    if not isinstance(stored, CocoDataset):
        return ()
    crowded = too_many_objects(stored.annotations, num_queries) if num_queries else ()
    return (*first_look(stored), *crowded)


def usable(data: CocoDataset, progress: Progress = iter) -> CocoDataset:
    """Return the data set without the pictures that cannot be used; its `dropped` counts them."""
    report = check(data.annotations, data.folder, progress, limits=data.limits)
    unusable = {
        f.id: replace(f, rule=replace(f.rule, severity=Severity.DROPPED))
        for f in report.findings
        if f.kind == "picture" and f.rule.severity is Severity.ERROR
    }
    known = data.annotations
    pictures = tuple(p for p in known.pictures if p.id not in unusable)
    findings = (*known.findings, *unusable.values())
    return replace(data, annotations=replace(known, pictures=pictures, findings=findings))


def _read(picture: Picture, places: Places, limits: Limits) -> tuple[tuple[Finding, ...], str]:
    opened = open_picture(picture, places, limits)
    findings, digest = _look(opened, picture), ""
    if opened.path is not None:
        with suppress(OSError), open(opened.path, "rb") as file:  # `open_picture` reported it
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    return findings, digest


def _look(opened: Opened, picture: Picture) -> tuple[Finding, ...]:
    """Return the findings about a picture, and one more if it has almost no contrast."""
    if opened.raster is None or int(opened.raster.max()) - int(opened.raster.min()) >= CONTRAST:
        return opened.findings
    what = f"has only values from {opened.raster.min()} to {opened.raster.max()}"
    return (*opened.findings, Finding(rules.FLAT, str(opened.path), what, "picture", picture.id))


def _same(file: str, number: int, other: str) -> Finding:
    return Finding(rules.SAME_PICTURE, file, f"has the same file as {other}", "picture", number)


def _excuse(finding: Finding) -> Finding:
    return replace(finding, rule=rules.UNANNOTATED) if finding.rule is rules.NOTHING else finding
