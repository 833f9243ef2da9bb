"""A chapter as a page of two columns: what is said on the left, the code it is said about right.

The prose is that of the docstrings, the code is the rest of the file, line by line and nothing
twice. Every function and class with a docstring begins a new row.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reading import ROOT

NAMED = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass
class Row:
    """Lines `first` … `last` of the file (from 1), without its docstring, and the prose."""

    first: int
    name: str = ""
    prose: str = ""
    hidden: range = range(0)
    last: int = 0


def chapter_page(path: Path) -> str:
    """Markdown of the page of a module."""
    source = path.read_text(encoding="utf8")
    lines, tree = source.split("\n"), ast.parse(source)
    intro = ast.get_docstring(tree) or f"# {path.stem}"
    after = (tree.body[0].end_lineno or 0) + 1
    rows = [Row(after), *_rows(tree, lines)]
    for row, following in zip(rows, [*rows[1:], Row(len(lines) + 1)], strict=True):
        row.last = following.first - 1
    body = "\n".join(_shown(row, lines) for row in rows)
    head = "---\nhide: [navigation, toc]\n---\n"
    return f"{head}{intro}\n\n*All of `{path.relative_to(ROOT).as_posix()}`:*\n\n{body}\n"


def _rows(tree: ast.Module, lines: list[str]) -> Iterator[Row]:
    for node, following in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, NAMED):
            yield from _rows_of(node, lines, "")
        elif isinstance(node, ast.Assign | ast.AnnAssign) and _is_text(following):
            name = ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
            yield _row(node, following, lines, name)


def _rows_of(node: NAMED, lines: list[str], inside: str) -> Iterator[Row]:
    name = f"{inside}.{node.name}".lstrip(".")
    if ast.get_docstring(node) or not inside:
        text = node.body[0] if ast.get_docstring(node) else None
        yield _row(node, text, lines, name)
    if isinstance(node, ast.ClassDef):
        for child in node.body:
            if isinstance(child, NAMED):
                yield from _rows_of(child, lines, name)


def _row(node: ast.stmt, text: ast.stmt | None, lines: list[str], name: str) -> Row:
    first = min([node.lineno] + [d.lineno for d in getattr(node, "decorator_list", [])])
    while first > 1 and lines[first - 2].strip().startswith("#"):
        first -= 1  # a comment above belongs to what it is about
    if text is None:
        return Row(first, name)
    assert isinstance(text, ast.Expr)
    assert isinstance(text.value, ast.Constant)
    prose = inspect_cleandoc(str(text.value.value))
    return Row(first, name, prose, range(text.lineno, (text.end_lineno or 0) + 1))


def inspect_cleandoc(text: str) -> str:
    import inspect

    return inspect.cleandoc(text)


def _is_text(node: ast.stmt | None) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _shown(row: Row, lines: list[str]) -> str:
    numbers = [n for n in range(row.first, row.last + 1) if n not in row.hidden]
    code = "\n".join(lines[n - 1] for n in numbers)
    code = re.sub(r"\n{3,}", "\n\n", code.strip("\n"))
    if not code.strip() and not row.prose:
        return ""
    title = f"### `{row.name}`\n\n" if row.name else ""
    return (
        '<div class="chapter-row" markdown>\n<div class="chapter-prose" markdown>\n\n'
        f"{title}{_demoted(row.prose)}\n\n</div>\n"
        f'<div class="chapter-code" markdown>\n\n```python\n{code}\n```\n\n</div>\n</div>\n'
    )


def _demoted(prose: str) -> str:
    """Headings inside a docstring stay below the row's own."""
    return re.sub(r"^(#+ )", r"###\1", prose, flags=re.M)
