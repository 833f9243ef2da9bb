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
from functools import partial
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

    severity: Severity
    name: str
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


_error, _dropped, _warning, _note = (partial(Rule, severity) for severity in Severity)

NOT_COCO = _error("not COCO's format", "write images, annotations and categories")
UNREADABLE = _error("annotation that cannot be understood", "correct it, or remove it")
BAD_ID = _error("id that is no number", "ids are whole numbers, without quotes")
DUPLICATE_ID = _error("duplicate id", "use every id once")
BAD_SIZE = _error("picture without a size", "write the size of the stored raster")
UNLISTED_PICTURE = _error("annotation on an unlisted picture", "list the picture, or remove it")
UNKNOWN_CATEGORY = _error("unknown category", "list it under categories, or remove the annotation")
BAD_BOX = _error("box that is not four numbers", "give [left, top, width, height] in pixels")
BAD_CROWD = _error("iscrowd that is neither 0 nor 1", "write 0 for an object, 1 for a crowd")
NO_PICTURES = _error("no pictures", "list at least one")
NOTHING = _error("nothing to learn", "annotate objects with boxes")
FRACTIONS = _error("most boxes smaller than a pixel", "give pixels of the stored raster")
MISREAD = _error("boxes of another meaning", "write them in the order of their format")
MISFIT = _error(
    "most boxes do not fit their pictures",
    "check their scale, their order (left, top, width, height), and which picture they belong to",
)
OTHER_CLASSES = _error("splits of other classes", "give both the same categories")
LEAVES_FOLDER = _error("path that leaves the folder", "give paths below the folder of the data")
MISSING = _error("missing picture", "fetch the picture, or remove it and its annotations")
SAME_FILE = _error("two pictures of one file", "write file names with their folders")
UNDECODABLE = _error("picture that cannot be decoded", "fetch it again, or remove it")
WRONG_SIZE = _error("wrong size", "correct width and height, or the file")

NO_AREA = _dropped("box without area", "draw it again, or remove it")
NEGATIVE = _dropped("box with a negative side", "give [left, top, width, height], not corners")
OUTSIDE = _dropped("box outside the picture", "check which picture it belongs to, and its scale")
CROWD = _dropped("crowd region", "nothing: evaluation counts no detection there as wrong")

TOO_MANY = _warning("more objects than queries", "train with --queries N, or cut into tiles")
OVER_EDGE = _warning("box over the edge", "nothing: training cuts it off; check that corners are")
TINY = _warning("box smaller than a pixel", "remove it, or check its scale")
SAME_BOX = _warning("same box twice in a picture", "remove one: a model answers once per object")
ONE_BOX = _warning("same box in every picture", "look whether the tool wrote what was drawn")
ONE_CORNER = _warning("all boxes in one corner", "check their scale: percents, a smaller copy?")
ONE_CLASS = _warning("one class for all boxes", "look whether the tool kept the classes")
MOSTLY_EMPTY = _warning("most pictures without objects", "look whether annotations are missing")
FLAT = _warning(
    "picture almost without contrast", "stretch its values: 10 or 12 bits in 16 look black"
)
TURNED = _warning(
    "picture that EXIF turns", "look whether its boxes fit the raster as stored, unturned"
)
SAME_PICTURE = _warning("same picture twice", "keep one, and none in two splits")
ZERO_ANNOTATION = _warning(
    "annotation id 0", "count from 1: pycocotools takes a match with id 0 for none"
)
POINTS = _warning("number with a decimal point", "write 1, not 1.0: other tools may refuse it")
NO_BOXES = _warning("class without boxes", "remove the class, or find pictures of it")
SAME_NAME = _warning("two classes of one name", "join them, or tell them apart")

ZERO_CATEGORY = _note("category id 0", "nothing here; some tools keep 0 for the background")
GAPS = _note("gaps in the category ids", "nothing: labels are places in their order")
NO_OBJECTS = _note("picture without objects", "nothing: it teaches what is background")
UNANNOTATED = _note("test split without boxes", "nothing: no model can be judged by it")

RULES = tuple(value for value in list(globals().values()) if isinstance(value, Rule))
"""All of them, in this order."""
