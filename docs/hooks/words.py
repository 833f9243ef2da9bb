"""Words of the glossary: an address for each, a tooltip where a page first uses it, and search.

The glossary's table is the only source. On every page of a chapter or notebook the first use of a
word becomes a link to its row, with the meaning as tooltip.
"""

import html
import json
import re
from functools import cache
from pathlib import Path

from reading import ROOT

ROW = re.compile(r"^\| (?!word |-)(.+?) +\| (.+?) +\| (.+?) +\|$", re.M)
TAGS = re.compile(r"(<[^>]*>)")
SPARED = {"a", "code", "pre", "math", "svg", "button", "summary", "table", "dfn", "mark"}
SPARED |= {f"h{n}" for n in range(1, 7)}


@cache
def meanings() -> dict[str, str]:
    """The meaning of every entry of the glossary."""
    table = (ROOT / "docs" / "glossary.md").read_text(encoding="utf8")
    return {entry: meaning for entry, meaning, _ in ROW.findall(table)}


def address(entry: str) -> str:
    """The address of an entry within the page of the glossary."""
    return re.sub(r"\W+", "-", entry.lower()).strip("-")


def with_addresses(markdown: str) -> str:
    """The glossary, every entry with its address."""

    def marked(found: re.Match[str]) -> str:
        entry = found.group(1)
        named = f'<dfn id="{address(entry)}">{entry}</dfn>'
        return found.group().replace(f"| {entry}", f"| {named}", 1)

    return ROW.sub(marked, markdown)


@cache
def _words() -> tuple[re.Pattern[str], dict[str, str]]:
    entries = {word: entry for entry in meanings() for word in re.split(r"[,;] ", entry)}
    longest_first = sorted(entries, key=len, reverse=True)
    words = "|".join(map(re.escape, longest_first))
    return re.compile(rf"(?<![\w-])({words})(?![\w-])"), entries


def with_tooltips(page: str, glossary: str) -> str:
    """The page with a link to the glossary at the first use of each word in its prose."""
    pattern, entries = _words()
    seen: set[str] = set()
    spared = prose = 0

    def linked(found: re.Match[str]) -> str:
        entry = entries[found.group()]
        if entry in seen:
            return found.group()
        seen.add(entry)
        meaning = html.escape(re.sub(r"[`*]", "", meanings()[entry]))
        where = f"{glossary}#{address(entry)}"
        return f'<a class="word" href="{where}" title="{meaning}">{found.group()}</a>'

    parts = TAGS.split(page)
    for number, part in enumerate(parts):
        if tag := re.match(r"</?(\w+)", part):
            step = -1 if part.startswith("</") else 1
            spared += step * (tag.group(1) in SPARED)
            prose += step * (tag.group(1) in {"p", "li"})
        elif prose and not spared:
            parts[number] = pattern.sub(linked, part)
    return "".join(parts)


def add_to_search(site: Path) -> None:
    """Make every entry of the glossary a result of its own."""
    index = site / "search" / "search_index.json"
    found = json.loads(index.read_text(encoding="utf8"))
    found["docs"] += [
        {"location": f"glossary.html#{address(entry)}", "title": entry, "text": meaning}
        for entry, meaning in meanings().items()
    ]
    index.write_text(json.dumps(found, separators=(",", ":")), encoding="utf8")
