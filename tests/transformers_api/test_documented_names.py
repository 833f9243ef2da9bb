"""Every name, parameter and default of transformers' documentation is here, or stands in a list.

`documented.json` is made from the documentation (`tests/programs/documented_names.py`); where the
pages lie beside the checkout, the list is compared with them.
"""

import inspect
import json
import re
from ast import literal_eval
from collections import Counter
from dataclasses import fields, is_dataclass
from functools import lru_cache

from documented_names import LIST, documented
from paths import ROOT

import rtdetr_lab as lab
from rtdetr_lab.transformers_api import outputs, pixels

ROWS = [tuple(row) for row in json.loads(LIST.read_text(encoding="utf8"))]
CONSTANTS = {
    "AnnotationFormat.COCO_DETECTION": "coco_detection",
    "PILImageResampling.BILINEAR": 2,
    "ChannelDimension.FIRST": "channels_first",
    "1/255": 1 / 255,
    "IMAGENET_DEFAULT_MEAN": [0.485, 0.456, 0.406],
    "IMAGENET_DEFAULT_STD": [0.229, 0.224, 0.225],
}
"""Names of constants on the pages, and their values."""

OTHERWISE = {
    ("RTDetrImageProcessorFast", "preprocess", "do_pad"): "True on the page, False in their code",
    ("RTDetrImageProcessorFast", "preprocess", "return_segmentation_masks"): "None, meaning False",
}
"""Rows whose default is another one here, and why."""

UNREAD_OPTIONS = {"device", "disable_grouping", *pixels.ONLY}


def class_of(kind):
    return getattr(lab, kind, None) or getattr(outputs, kind)


@lru_cache
def default_of(kind):
    """A configuration or processor that was told nothing."""
    return class_of(kind)()


def output_of(kind, method):
    """Class of the output that a row speaks of."""
    if not method:
        return getattr(outputs, kind)
    if "Backbone" in kind:
        return outputs.BackboneOutput
    return getattr(outputs, kind.replace("V2", "").replace("For", "") + "Output")


def known_to(kind, method):
    """Name → default of everything that a class or method takes."""
    found = class_of(kind)
    signature = inspect.signature(getattr(found, method or "__init__"))
    known = {p.name: p.default for p in signature.parameters.values()}
    if method == "preprocess":
        known |= dict.fromkeys(UNREAD_OPTIONS) | {f.name: f.default for f in fields(found)}
    return known


def value_of(spelled):
    """Value of a default, as the page spells it."""
    if spelled in CONSTANTS:
        return CONSTANTS[spelled]
    try:
        return literal_eval(spelled)
    except ValueError:
        return spelled


def difference(kind, method, what, name, default):
    """How a row differs from the class here; empty if it does not."""
    if what == "field":
        there = {f.name for f in fields(output_of(kind, method))}
        return "" if name in there else "has no such field"
    known = known_to(kind, method)
    if name not in known:
        return "has no such parameter"
    if default is None or default.startswith("self."):
        return ""
    made = default_of(kind) if is_dataclass(class_of(kind)) else None
    value = known[name] if known[name] is not None or made is None else getattr(made, name)
    wanted = value_of(default)
    same = list(value) == wanted if isinstance(wanted, list) else value == wanted
    return "" if same else f"default is {value!r}, documented is {wanted!r}"


DIFFERENCES = {row[:2] + row[3:4]: found for row in ROWS if (found := difference(*row))}


def test_every_documented_name_and_default_is_here_or_has_a_reason():
    assert {row: found for row, found in DIFFERENCES.items() if row not in OTHERWISE} == {}
    assert set(OTHERWISE) == set(DIFFERENCES), "a reason that is no longer needed goes"


def test_a_name_that_is_not_documented_would_be_seen():
    assert difference("DetrConfig", "", "parameter", "colour", None) == "has no such parameter"
    assert "documented is 99" in difference("DetrConfig", "", "parameter", "num_queries", "99")
    assert difference("DetrModel", "forward", "field", "colours", None) == "has no such field"


def test_the_page_has_the_table_of_documented_names():
    page = (ROOT / "docs" / "transformers.md").read_text(encoding="utf8")
    counts = Counter(row[0] for row in ROWS)
    lines = [f"| `{kind}` | {count} |" for kind, count in sorted(counts.items())]
    table = "\n".join([*lines, f"| all | {len(ROWS)} |"])
    assert table in page, f"put this table on the page:\n{table}"


def test_the_list_is_what_the_pages_say(shared):
    assert documented(shared("seeds")) == sorted(ROWS, key=str)


def test_the_page_names_a_test_that_exists_for_every_behaviour():
    page = (ROOT / "docs" / "transformers.md").read_text(encoding="utf8")
    part = page.partition("## What transformers tests of every model")[2].partition("\n## ")[0]
    named = [
        set(re.findall(r"`(test_\w+\.py)`", row)) for row in part.split("\n") if "`test_" in row
    ]
    there = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert len(named) > 10
    assert [names - there for names in named if names - there] == []
