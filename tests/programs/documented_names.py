"""The names that transformers' documentation promises, as a list: `documented.json`.

    python tests/programs/documented_names.py FOLDER

reads the pages in FOLDER (their text is not part of this repository) and writes the list. A row has
the class, the method or "", what it is (`parameter` or `field`), the name, and the default as the
page spells it, or None.
"""

import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[1] / "parity" / "names"
LIST = HERE / "documented.json"

CLASS = re.compile(r"#{2,4} (?:class )?transformers\.(?:models\.[\w.]+\.)?([A-Z]\w+)(?:\[\[.*)?$")
METHOD = re.compile(r"#### ([a-z]\w+)(?:\[\[.*)?$")
INLINE = re.compile(r"^(forward|preprocess)transformers\.(\w+)\.\1")
ROW = re.compile(r"^(?:[*-] \*\*)?([a-z]\w*)(?:\*\*)? \((.*)$")
DEFAULT = re.compile(r"defaults to `?\"?([^`\"()]*)\"?`?\)")
INLINE_RETURNS = re.compile(r"\.0\[\w+Output\]")
SECTION = re.compile(r"^(\*\*)?<?(Parameters|Returns|returns)>?:?(\*\*)?$")

Row = tuple[str, str, str, str, str | None]


def rows_of(page: str) -> list[Row]:
    """Return the rows of a page; escapes of Markdown are taken out first."""
    found: dict[tuple[str, str, str, str], str | None] = {}
    kind, method, what = "", "", "parameter"
    fenced = False
    for line in page.replace("\\_", "_").replace("\\*", "*").splitlines():
        fenced ^= line.startswith("```")
        if fenced:
            continue
        if match := CLASS.match(line):
            kind, method, what = match[1], "", "parameter"
        elif match := METHOD.match(line):
            method, what = match[1], "parameter"
        elif match := INLINE.match(line):
            method, what = match[1], "parameter"
            for one in re.findall(r'"name": "(\w+)"', line):
                found.setdefault((kind, method, what, one), None)
        elif match := SECTION.match(line):
            inline = match[1] is not None
            what = "parameter" if match[2] == "Parameters" else "field"
            if inline and match[2] == "Parameters" and method in ("forward", "preprocess"):
                method = ""  # this page lists a method first, and then its class
        elif kind and (match := ROW.match(line)):
            default = DEFAULT.search(match[2])
            if match[1] == "tensor_type":  # of the batch, which has its own page
                continue
            here = "field" if kind.endswith("Output") and not method else what
            if here == "field" and not (method == "forward" or kind.endswith("Output")):
                continue
            spelled = default[1] if default else None
            key = (kind, method, here, match[1])
            found[key] = found.get(key) or spelled
        if method == "forward" and INLINE_RETURNS.search(line):
            what = "field"
    return [(*key, default) for key, default in found.items()]


def documented(folder: Path) -> list[Row]:
    """Return the rows of all pages in a folder, sorted."""
    pages = [path.read_text(encoding="utf8") for path in sorted(folder.glob("00[013]_*.txt"))]
    return sorted({row for page in pages for row in rows_of(page)}, key=str)


if __name__ == "__main__":
    rows = documented(Path(sys.argv[1]))
    text = ",\n".join(json.dumps(row) for row in rows)
    LIST.write_text(f"[\n{text}\n]\n", encoding="utf8")
    print(f"{len(rows)} rows in {LIST.name}")
