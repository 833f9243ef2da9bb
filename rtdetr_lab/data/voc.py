"""# Pascal VOC's format: an XML file per picture

    Annotations/a.xml   JPEGImages/a.jpg   ImageSets/Main/train.txt

Boxes are whole pixels, including the first and the last, and the first column is number 1: `xmin=1
xmax=10` covers ten columns. So left is `xmin - 1` and right is `xmax`.

Some tools count from 0. Sooner or later such a file contains a 0. We then raise an error until you
give `voc_origin=0`, because boxes that are off by one pixel are not visible by eye. Objects marked
`difficult` are objects like any other. A box refers to the raster as stored or to the picture as a
viewer shows it: to the one that has the size in the XML.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from xml.etree import ElementTree

from rtdetr_lab.data import findings as rules
from rtdetr_lab.data.annotated import Annotated, Picture, Reading
from rtdetr_lab.data.places import pictures_in, slashed, split_of
from rtdetr_lab.data.text import lines_of, text_of
from rtdetr_lab.errors import DataError
from rtdetr_lab.images.decode import frame_in
from rtdetr_lab.notation import Size

Element = ElementTree.Element
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def find_voc(folder: Path, origin: int = 1) -> "Voc | None":
    """Return the VOC data set in a folder, or None if there is no XML."""
    by_split = {
        split: sorted(place.rglob("*.xml"))
        for place in sorted(folder.iterdir())
        if place.is_dir() and (split := split_of(place.name))
    }
    labels = sorted((folder / "Annotations").rglob("*.xml"))
    labels = labels or [p for p in sorted(folder.glob("*.xml")) if _is_voc(p)]
    if not labels and not any(by_split.values()):
        return None
    if origin not in (0, 1):
        raise DataError("voc_origin", f"is {origin}", "give 1, or 0 if columns count from 0")
    splits = {split: paths for split, paths in by_split.items() if paths and not labels}
    return Voc(folder, origin, splits or _listed(folder, labels) or {"train": labels})


@dataclass(frozen=True, eq=False)
class Voc:
    """A VOC data set: the XML files by split. Class names are sorted and come from all files."""

    folder: Path
    origin: int
    splits: dict[str, list[Path]]
    format: str = "Pascal VOC"

    @cached_property
    def names(self) -> list[str]:
        """Class names by label."""
        names = set()
        for path in (path for paths in self.splits.values() for path in paths):
            try:
                names |= {_text(entry, "name") for entry in parse(path).iter("object")}
            except DataError:  # reported when its split is read
                continue
        return sorted(names - {""})

    @cached_property
    def pictures(self) -> dict[str, list[Path]]:
        """The picture files by stem."""
        place = self.folder / "JPEGImages"
        by_stem = defaultdict(list)
        for path in pictures_in(place if place.is_dir() else self.folder):
            by_stem[path.stem].append(path)
        return by_stem

    def read(self, xml: Path, number: int, reading: Reading) -> Picture | None:
        """Read the annotations of one picture from its XML file."""
        reading.files.append(xml)
        tree = reading.attempt(parse, xml, rules.UNREADABLE)
        if tree is None:
            return None
        place = self._place(xml, tree)
        if isinstance(place, str):
            reading.find(rules.MISSING, place, advice="copy it there, or remove the XML", file=xml)
            return None
        frame = reading.attempt(frame_in, place, rules.UNDECODABLE)
        if frame is None:
            return None
        claimed, (height, width) = _size(tree), frame.stored
        if claimed not in (None, frame.stored, frame.upright):
            what = f"says {claimed[1]}×{claimed[0]}, but {place} is {width}×{height}"
            advice = "correct the size in the XML, or the picture"
            reading.find(rules.WRONG_SIZE, what, advice=advice, file=xml, picture=number)
            return None
        upright = claimed == frame.upright != frame.stored
        size = frame.upright if upright else frame.stored
        for one in self._objects(tree, xml, reading, number):
            reading.keep(one, number, size, xml)
        kept = tuple(reading.kept.get(number, ()))
        return Picture(number, str(place.relative_to(self.folder)), size, kept, upright, place)

    def _place(self, xml: Path, tree: Element) -> Path | str:
        """Find the picture of an XML file by the name of the XML, else by the name inside it."""
        named = slashed(tree.findtext("filename") or "")
        for stem in (xml.stem, Path(named).stem):
            found = self.pictures.get(stem, [])
            near = [path for path in found if path.parent.name == xml.parent.name]
            for paths in (near, found):
                if len(paths) == 1:
                    return paths[0]
            if found:
                return f"its picture could be {found[0]} or {found[1]}"
        return f"its picture {named!r} is not there"

    def _objects(
        self, tree: Element, xml: Path, reading: Reading, number: int
    ) -> Iterator[Annotated]:
        for entry in tree.iter("object"):
            name = _text(entry, "name")
            x0, y0, x1, y1 = (_number(entry, f"bndbox/{corner}") for corner in CORNERS)
            what = advice = ""
            if not name:
                what = "an object has no name"
            elif not all(map(math.isfinite, (x0, y0, x1, y1))):
                what = f"an object {name!r} has no complete bndbox"
                advice = f"write {', '.join(CORNERS[:3])} and {CORNERS[3]}"
            elif min(x0, y0) < self.origin:
                start = f"an object {name!r} begins at {min(x0, y0):g}"
                what = f"{start}, but columns count from {self.origin}"
                advice = "give --voc-origin 0, or correct the box"
            if what:
                reading.find(rules.UNREADABLE, what, advice=advice, file=xml, picture=number)
                continue
            w, h = x1 - x0 + 1, y1 - y0 + 1
            box = (x0 - self.origin, y0 - self.origin, w, h)
            yield Annotated(reading.new_id(), self.names.index(name), box, w * h, False)


def parse(path: Path) -> Element:
    """Return the tree of an XML file; raises `DataError`."""
    text, remedy = text_of(path), "write it again"
    if "<!ENTITY" in text:  # a few lines of them can expand to gigabytes
        raise DataError(str(path), "defines entities", "remove them: no annotation needs them")
    try:
        return ElementTree.fromstring(path.read_bytes())  # by the encoding that it declares
    except (ElementTree.ParseError, ValueError, LookupError) as declared:
        try:
            return ElementTree.fromstring(re.sub(r"^\s*<\?xml.*?\?>", "", text))
        except (ElementTree.ParseError, ValueError):
            raise DataError(str(path), f"is not XML ({declared})", remedy) from declared


def _is_voc(path: Path) -> bool:
    return bool(re.search(r"<annotation[\s>]", text_of(path)[:2000]))


def _listed(folder: Path, labels: Sequence[Path]) -> dict[str, list[Path]]:
    """Read the splits of `ImageSets/Main`; raises `DataError` for a name without XML."""
    stems = Counter(path.stem for path in labels)
    by_name = {path.stem: path for path in labels if stems[path.stem] == 1}
    for path in labels:  # cam0/0001
        below = folder / "Annotations" if path.is_relative_to(folder / "Annotations") else folder
        by_name[path.relative_to(below).with_suffix("").as_posix()] = path
    splits = {}
    for path in sorted((folder / "ImageSets" / "Main").glob("*.txt")):
        split = split_of(path.stem)
        if split and "_" not in path.stem:  # `cat_train.txt` lists the pictures of one class
            listed = [line.split()[0] for _, line in lines_of(path)]
            missing = [stem for stem in listed if stem not in by_name]
            if missing:
                raise DataError(str(path), f"lists {missing[0]!r}, which has no XML", "remove it")
            splits[split] = [by_name[stem] for stem in listed]
    return splits


def _text(tree: Element, place: str) -> str:
    return (tree.findtext(place) or "").strip()


def _number(tree: Element, place: str) -> float:
    try:
        return float(_text(tree, place) or "nan")
    except ValueError:
        return math.nan


def _size(tree: Element) -> Size | None:
    """Return (height, width), or None if the tool wrote nothing, or zeros."""
    sides = [_number(tree, f"size/{side}") for side in ("height", "width")]
    known = all(0 < side < math.inf for side in sides)  # False for a nan
    return (int(sides[0]), int(sides[1])) if known else None
