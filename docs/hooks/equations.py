"""Equations and their code lead to each other: links in both directions, on every page.

"Eq. 07.2" in a text leads to the equation: on the same page if it stands there, else in the
notebook of that number. Beside an equation stand the functions and classes whose docstrings name
it; they lead to the pages of their chapters.
"""

import ast
import posixpath
import re
from collections import defaultdict
from functools import cache

from reading import ROOT, reading_order

MENTION = re.compile(r"Eq\. (\d\d\.\d+)")
TAG = re.compile(r"\\tag\{(\d\d\.\d+)\}")
NUMBER = re.compile(r'(<a class="equation-number" href="#eq-(\d\d)-(\d+)">[^<]*</a>)')
CODE = re.compile(r"(<(?:pre|code|a)\b.*?</(?:pre|code|a)>)", re.S)


@cache
def homes() -> dict[str, str]:
    """The page of the notebook in which every equation stands."""
    found = {}
    for path in sorted((ROOT / "notebooks").glob("*.py")):
        for tag in TAG.findall(path.read_text(encoding="utf8")):
            found[tag] = f"notebooks/{path.stem}.html"
    return found


@cache
def computed_by() -> dict[str, list[tuple[str, str]]]:
    """For every equation the chapters and names of the code whose docstrings name it."""
    found = defaultdict(list)
    for chapter in (chapter for step in reading_order() for chapter in step.chapters):
        tree = ast.parse((ROOT / "rtdetr_lab" / f"{chapter}.py").read_text(encoding="utf8"))
        for name, docstring in _described(tree):
            for tag in dict.fromkeys(MENTION.findall(docstring)):
                found[tag].append((chapter, name))
    return dict(found)


def with_equation_links(html: str, url: str) -> str:
    """The page at `url` with links from mentions to equations, and from equations to code."""

    def to(page: str) -> str:
        return posixpath.relpath(page, posixpath.dirname(url))

    def mention(found: re.Match[str]) -> str:
        tag = found.group(1)
        address = f"eq-{tag.replace('.', '-')}"
        here = f'id="{address}"' in html
        if not here and tag not in homes():
            return found.group()
        page = "" if here else to(homes()[tag])
        return f'<a href="{page}#{address}">{found.group()}</a>'

    def code(found: re.Match[str]) -> str:
        links = [
            f'<a href="{to(f"chapters/{chapter}.html")}#{_slug(name)}"><code>{name}</code></a>'
            for chapter, name in computed_by().get(".".join(found.groups()[1:]), [])
        ]
        beside = f'<span class="equation-code">{" ".join(links)}</span>' if links else ""
        return found.group(1) + beside

    parts = CODE.split(html)
    parts[::2] = [MENTION.sub(mention, text) for text in parts[::2]]
    return NUMBER.sub(code, "".join(parts))


def _described(tree: ast.Module) -> list[tuple[str, str]]:
    found = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.append((node.name, ast.get_docstring(node) or ""))
        if isinstance(node, ast.ClassDef):
            inner = [child for child in node.body if isinstance(child, ast.FunctionDef)]
            found += [(f"{node.name}.{f.name}", ast.get_docstring(f) or "") for f in inner]
    return found


def _slug(name: str) -> str:
    """The address of a heading, as Markdown makes it of a name."""
    return re.sub(r"[^\w-]", "", name).strip().lower()
