"""# Pascal VOC's format: an XML file per picture

    Annotations/a.xml   JPEGImages/a.jpg   ImageSets/Main/train.txt

Boxes are whole pixels, first and last included, and the first column is called 1: `xmin=1 xmax=10`
covers ten. So left is `xmin - 1` and right is `xmax`. Some tools count from 0, and show it sooner
or later with a 0; we then refuse until told (`voc_origin=0`): boxes that are off by a pixel are not
seen by eye. Objects marked `difficult` are objects.
"""

import math
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from rtdetr_lab.data.labelled import Box, Labelled, Source, lines_of, pictures_in
from rtdetr_lab.errors import DataError
from rtdetr_lab.images.decode import frame_in

SPLITS = ("train", "val", "test")


def find_voc(folder: Path, origin: int = 1) -> Source | None:
    """The VOC data set in a folder, or None if there is no XML."""
    labels = sorted((folder / "Annotations").rglob("*.xml")) or sorted(folder.glob("*.xml"))
    if not labels:
        return None
    if origin not in (0, 1):
        raise DataError("voc_origin", f"is {origin}", "give 1, or 0 where columns count from 0")
    names = tuple(sorted(_class_names(labels)))
    place = folder / "JPEGImages"
    pictures = {p.stem: p for p in pictures_in(place if place.is_dir() else folder)}
    by_stem = {path.stem: path for path in labels}
    read = partial(read_voc, names=names, pictures=pictures, origin=origin)
    return Source(names, _splits(folder, by_stem), read)


def read_voc(
    path: Path, names: tuple[str, ...], pictures: dict[str, Path], origin: int = 1
) -> Labelled:
    """The picture and the objects of an XML file; raises `DataError` naming the file."""
    tree = _parse(path)
    picture = pictures.get(Path(tree.findtext("filename") or "").stem) or pictures.get(path.stem)
    if picture is None:
        what = f"its picture {tree.findtext('filename')!r} is not there"
        raise DataError(str(path), what, "fetch it, or remove the XML")
    frame = frame_in(picture)
    stored, shown = frame.stored, frame.upright
    claimed = (_whole(tree, "size/height"), _whole(tree, "size/width"))
    if claimed not in (stored, shown) and min(claimed) > 0:  # zeros: the tool did not know
        what = f"says {claimed[1]}×{claimed[0]}, {picture} is {stored[1]}×{stored[0]}"
        raise DataError(str(path), what, "correct its size, or the picture")
    upright = claimed == shown != stored
    boxes = tuple(_box(entry, path, names, origin) for entry in tree.iter("object"))
    return Labelled(picture, shown if upright else stored, boxes, upright)


def _box(entry: ElementTree.Element, path: Path, names: tuple[str, ...], origin: int) -> Box:
    name = (entry.findtext("name") or "").strip()
    corners = [_number(entry, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
    if not all(map(math.isfinite, corners)):
        remedy = "write xmin, ymin, xmax and ymax"
        raise DataError(str(path), f"an object {name!r} has no whole bndbox", remedy)
    x0, y0, x1, y1 = corners
    if min(x0, y0) < origin:
        what = f"an object {name!r} begins at {min(x0, y0):g}, columns count from {origin}"
        raise DataError(str(path), what, "give --voc-origin 0, or correct it")
    return Box(names.index(name), (x0 - origin, y0 - origin, x1 - origin + 1, y1 - origin + 1))


def _parse(path: Path) -> ElementTree.Element:
    remedy = "write it again"
    try:
        text = path.read_bytes()
    except OSError as error:
        raise DataError(str(path), f"cannot be read ({error.strerror})", remedy) from error
    if b"<!ENTITY" in text:  # a few lines of them can unfold to gigabytes
        raise DataError(str(path), "defines entities", "no annotation needs them: remove them")
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise DataError(str(path), f"is not XML ({error})", remedy) from error


def _splits(folder: Path, by_stem: dict[str, Path]) -> dict[str, list[Path]]:
    """From the lists in `ImageSets/Main`, or everything for training."""
    splits = {}
    for split in SPLITS:
        path = folder / "ImageSets" / "Main" / f"{split}.txt"
        lines = lines_of(path) if path.is_file() else []
        stems = [line.split()[0] for line in lines if line.strip()]
        missing = [stem for stem in stems if stem not in by_stem]
        if missing:
            raise DataError(str(path), f"lists {missing[0]!r}, which has no XML", "remove it")
        splits[split] = [by_stem[stem] for stem in stems]
    return splits if any(splits.values()) else {"train": list(by_stem.values())}


def _class_names(labels: list[Path]) -> set[str]:
    entries = (entry for path in labels for entry in _parse(path).iter("object"))
    return {(entry.findtext("name") or "").strip() for entry in entries}


def _number(tree: ElementTree.Element, place: str) -> float:
    try:
        return float(tree.findtext(place) or "nan")
    except ValueError:
        return math.nan


def _whole(tree: ElementTree.Element, place: str) -> int:
    number = _number(tree, place)
    return int(number) if math.isfinite(number) else 0
