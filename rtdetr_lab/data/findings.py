"""# Findings: what can be wrong with a data set, and what to do about it

Reading, training and preflight must agree about what is wrong. So every fault is a `Rule`, written
once here, and whoever meets one reports a `Finding`: which rule, in which file, at which id.

| severity  | what training does                           |
|-----------|----------------------------------------------|
| `ERROR`   | refuses, naming the finding                  |
| `DROPPED` | leaves the annotation out, and counts it     |
| `WARNING` | goes on; someone should look                 |
| `NOTE`    | goes on; nothing is wrong, but worth knowing |
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from rtdetr_lab.errors import DataError


class Severity(Enum):
    """What a finding means for training; from the worst to the least."""

    ERROR = "error"
    DROPPED = "dropped"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Rule:
    """A fault by its name, and what one does about it."""

    name: str
    severity: Severity
    remedy: str


@dataclass(frozen=True)
class Finding:
    """A fault in its place: a `file`, and there a picture, annotation or category of some `id`."""

    rule: Rule
    file: str
    what: str
    kind: str = ""
    id: Any = None
    advice: str = ""
    """Where it can be more exact than the rule's remedy."""

    @property
    def where(self) -> str:
        """File, kind and id as one reads them."""
        number = "" if self.id is None else f" {self.id}"
        return f"{self.file}: {self.kind}{number}" if self.kind else self.file

    @property
    def remedy(self) -> str:
        """What to do."""
        return self.advice or self.rule.remedy

    def error(self) -> DataError:
        """The finding as the error that training ends with."""
        return DataError(self.where, self.what, self.remedy)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        plain = {"severity": self.rule.severity.value, "rule": self.rule.name, "file": self.file}
        number = self.id if isinstance(self.id, int | str | None) else repr(self.id)
        return {**plain, "kind": self.kind, "id": number, "what": self.what, "remedy": self.remedy}


def raise_first_error(findings: Iterable[Finding]) -> None:
    """Refuse, as training does."""
    for finding in findings:
        if finding.rule.severity is Severity.ERROR:
            raise finding.error()


def count_dropped(findings: Iterable[Finding]) -> dict[str, int]:
    """How many annotations training does not see, by rule."""
    dropped = (f.rule.name for f in findings if f.rule.severity is Severity.DROPPED)
    return dict(Counter(dropped))


_E, _D, _W, _N = Severity.ERROR, Severity.DROPPED, Severity.WARNING, Severity.NOTE

NOT_COCO = Rule("not COCO's format", _E, "write images, annotations and categories")
UNREADABLE = Rule("annotation that cannot be understood", _E, "correct it, or remove it")
BAD_ID = Rule("id that is no number", _E, "ids are whole numbers, without quotes")
DUPLICATE_ID = Rule("duplicate id", _E, "use every id once")
BAD_SIZE = Rule("picture without a size", _E, "write the size of the stored raster")
UNLISTED_PICTURE = Rule("annotation on an unlisted picture", _E, "list the picture, or remove it")
UNKNOWN_CATEGORY = Rule(
    "unknown category", _E, "list it under categories, or remove the annotation"
)
BAD_BOX = Rule("box that is not four numbers", _E, "give [left, top, width, height] in pixels")
BAD_CROWD = Rule("iscrowd that is neither 0 nor 1", _E, "write 0 for an object, 1 for a crowd")
NO_PICTURES = Rule("no pictures", _E, "list at least one")
NOTHING = Rule("nothing to learn", _E, "annotate objects with boxes")
FRACTIONS = Rule("most boxes smaller than a pixel", _E, "give pixels of the stored raster")
MISREAD = Rule("boxes of another meaning", _E, "write them in the order of their format")
MISFIT = Rule(
    "most boxes do not fit their pictures",
    _E,
    "check their scale, their order (left, top, width, height), and which picture they belong to",
)
OTHER_CLASSES = Rule("splits of other classes", _E, "give both the same categories")
LEAVES_FOLDER = Rule("path that leaves the folder", _E, "give paths below the folder of the data")
MISSING = Rule("missing picture", _E, "fetch the picture, or remove it and its annotations")
SAME_FILE = Rule("two pictures of one file", _E, "write file names with their folders")
UNDECODABLE = Rule("picture that cannot be decoded", _E, "fetch it again, or remove it")
WRONG_SIZE = Rule("wrong size", _E, "correct width and height, or the file")
TURNED_SIZE = Rule(
    "size of the turned picture", _E, "store the picture upright, without an EXIF orientation"
)

NO_AREA = Rule("box without area", _D, "draw it again, or remove it")
NEGATIVE = Rule("box with a negative side", _D, "give [left, top, width, height], not corners")
OUTSIDE = Rule("box outside the picture", _D, "check which picture it belongs to, and its scale")
CROWD = Rule("crowd region", _D, "nothing: evaluation counts no detection there as wrong")

TOO_MANY = Rule("more objects than queries", _W, "train with --queries N, or cut into tiles")
OVER_EDGE = Rule("box over the edge", _W, "nothing: training cuts it off; check that corners are")
TINY = Rule("box smaller than a pixel", _W, "remove it, or check its scale")
SAME_BOX = Rule("same box twice in a picture", _W, "remove one: a model answers once per object")
ONE_BOX = Rule("same box in every picture", _W, "look whether the tool wrote what was drawn")
ONE_CORNER = Rule("all boxes in one corner", _W, "check their scale: percents, a smaller copy?")
ONE_CLASS = Rule("one class for all boxes", _W, "look whether the tool kept the classes")
MOSTLY_EMPTY = Rule("most pictures without objects", _W, "look whether annotations are missing")
FLAT = Rule(
    "picture almost without contrast", _W, "stretch its values: 10 or 12 bits in 16 look black"
)
TURNED = Rule(
    "picture that EXIF turns", _W, "look whether its boxes fit the raster as stored, unturned"
)
SAME_PICTURE = Rule("same picture twice", _W, "keep one, and none in two splits")
ZERO_ANNOTATION = Rule(
    "annotation id 0", _W, "count from 1: pycocotools takes a match with id 0 for none"
)
POINTS = Rule("number with a decimal point", _W, "write 1, not 1.0: other tools may refuse it")
NO_BOXES = Rule("class without boxes", _W, "remove the class, or find pictures of it")
SAME_NAME = Rule("two classes of one name", _W, "join them, or tell them apart")

ZERO_CATEGORY = Rule("category id 0", _N, "nothing here; some tools keep 0 for the background")
GAPS = Rule("gaps in the category ids", _N, "nothing: labels are places in their order")
NO_OBJECTS = Rule("picture without objects", _N, "nothing: it teaches what is background")
UNANNOTATED = Rule("test split without boxes", _N, "nothing: no model can be judged by it")

RULES = tuple(value for value in list(globals().values()) if isinstance(value, Rule))
"""All of them, in this order."""
