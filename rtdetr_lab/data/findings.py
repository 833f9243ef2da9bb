"""# Findings: faults of a data set, and what to do about them

Reading, training and preflight must agree about faults. So each fault is a `Rule`, defined once
here. The code that meets a fault reports a `Finding`: which rule, in which file, at which id.

| severity  | what training does                           |
|-----------|----------------------------------------------|
| `ERROR`   | stops, and names the finding                 |
| `DROPPED` | leaves the annotation out, and counts it     |
| `WARNING` | goes on; take a look                         |
| `NOTE`    | goes on; nothing is wrong, but worth knowing |
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

from rtdetr_lab.errors import DataError


class Severity(Enum):
    """The consequence of a finding for training, from worst to best."""

    ERROR = "error"
    DROPPED = "dropped"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Rule:
    """A kind of fault: its severity, its name and its remedy."""

    severity: Severity
    name: str
    remedy: str


@dataclass(frozen=True)
class Finding:
    """A fault and its place: a `file`, and a picture, annotation or category with its `id`."""

    rule: Rule
    file: str
    what: str
    kind: str = ""
    id: Any = None
    advice: str = ""
    """A remedy that is more exact than that of the rule, or empty."""
    of_picture: int | None = None
    """The id of the picture on which an annotation or a line lies, if it is known."""

    @property
    def where(self) -> str:
        """File, kind and id in one line."""
        number = "" if self.id is None else f" {self.id}"
        return f"{self.file}: {self.kind}{number}" if self.kind else self.file

    @property
    def picture(self) -> Any:
        """The id of the picture that the finding is about, or None."""
        return self.id if self.kind == "picture" else self.of_picture

    @property
    def remedy(self) -> str:
        """The remedy of this finding, else that of its rule."""
        return self.advice or self.rule.remedy

    def error(self) -> DataError:
        """Return the finding as the error that stops training."""
        return DataError(self.where, self.what, self.remedy)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        plain = {"severity": self.rule.severity.value, "rule": self.rule.name, "file": self.file}
        number = self.id if isinstance(self.id, int | str | None) else repr(self.id)
        return {**plain, "kind": self.kind, "id": number, "what": self.what, "remedy": self.remedy}


def raise_first_error(findings: Iterable[Finding]) -> None:
    """Raise the first finding that is an error, as training does."""
    for finding in findings:
        if finding.rule.severity is Severity.ERROR:
            raise finding.error()


def count_dropped(findings: Iterable[Finding]) -> dict[str, int]:
    """Count the annotations that training does not see, by rule."""
    dropped = (f.rule.name for f in findings if f.rule.severity is Severity.DROPPED)
    return dict(Counter(dropped))


_error, _dropped, _warning, _note = (partial(Rule, severity) for severity in Severity)

NOT_COCO = _error("not COCO's format", "write images, annotations and categories")
UNREADABLE = _error("annotation that cannot be read", "correct it, or remove it")
BAD_ID = _error("id that is not a number", "write ids as whole numbers, without quotes")
DUPLICATE_ID = _error("duplicate id", "use every id once")
BAD_SIZE = _error("picture without a size", "write the size of the stored raster")
UNLISTED_PICTURE = _error(
    "annotation on an unlisted picture", "list the picture, or remove the annotation"
)
UNKNOWN_CATEGORY = _error("unknown category", "list it under categories, or remove the annotation")
BAD_BOX = _error("box that is not four numbers", "give [left, top, width, height] in pixels")
BAD_CROWD = _error("iscrowd that is neither 0 nor 1", "write 0 for an object, 1 for a crowd")
NO_PICTURES = _error("no pictures", "list at least one")
NOTHING = _error("nothing to learn", "annotate objects with boxes")
FRACTIONS = _error("most boxes smaller than a pixel", "give boxes in pixels of the stored raster")
MISREAD = _error("boxes in another format", "write them as their format defines them")
MISFIT = _error(
    "most boxes do not fit their pictures",
    "check their scale, their order (left, top, width, height), and which picture they belong to",
)
OTHER_CLASSES = _error("splits with other classes", "give both the same categories")
LEAVES_FOLDER = _error("path that leaves the folder", "give paths below the folder of the data")
MISSING = _error("missing picture", "copy the picture there, or remove it and its annotations")
SAME_FILE = _error("two pictures with one file", "write file names with their folders")
UNDECODABLE = _error("picture that cannot be decoded", "download it again, or remove it")
WRONG_SIZE = _error("wrong size", "correct width and height, or the file")

NO_AREA = _dropped("box without area", "draw it again, or remove it")
NEGATIVE = _dropped("box with a negative side", "give [left, top, width, height], not corners")
OUTSIDE = _dropped("box outside the picture", "check which picture it belongs to, and its scale")
CROWD = _dropped("crowd region", "do nothing: evaluation counts no detection there as wrong")

TOO_MANY = _warning("more objects than queries", "train with --queries N, or cut into tiles")
OVER_EDGE = _warning(
    "box over the edge", "training cuts it off; check that its numbers are correct"
)
TINY = _warning("box smaller than a pixel", "remove it, or check its scale")
SAME_BOX = _warning(
    "same box twice in a picture", "remove one: a model predicts one box per object"
)
ONE_BOX = _warning(
    "same box in every picture", "check that the tool wrote the boxes that were drawn"
)
ONE_CORNER = _warning(
    "all boxes in one corner", "check their scale: are they percent, or pixels of a smaller copy?"
)
ONE_CLASS = _warning("one class for all boxes", "check that the tool kept the classes")
MOSTLY_EMPTY = _warning("most pictures without objects", "check whether annotations are missing")
FLAT = _warning(
    "picture almost without contrast", "stretch its values: 10 or 12 bits in 16 look black"
)
TURNED = _warning(
    "picture that EXIF rotates", "check that its boxes fit the raster as stored, not rotated"
)
SAME_PICTURE = _warning("same picture twice", "keep one copy, in one split")
ZERO_ANNOTATION = _warning(
    "annotation id 0", "count from 1: pycocotools treats a match with id 0 as no match"
)
POINTS = _warning("number with a decimal point", "write 1, not 1.0: other tools may refuse it")
NO_BOXES = _warning("class without boxes", "remove the class, or find pictures of it")
SAME_NAME = _warning("two classes with one name", "merge them, or rename one")

ZERO_CATEGORY = _note("category id 0", "do nothing; some other tools reserve 0 for the background")
GAPS = _note("gaps in the category ids", "do nothing: a label is an index into the sorted ids")
NO_OBJECTS = _note("picture without objects", "do nothing: it shows the model what background is")
UNANNOTATED = _note("test split without boxes", "do nothing, but do not evaluate on it")

RULES = tuple(value for value in list(globals().values()) if isinstance(value, Rule))
"""All rules, in this order."""
