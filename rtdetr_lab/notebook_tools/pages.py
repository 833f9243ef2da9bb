"""# Pages: an executed notebook as Markdown, and its figures as files

Prose stays unchanged, so that links, admonitions and search work in it. Code and printed text are
fenced. A figure becomes a file with its alternative text. HTML is copied. A cell with an error
stops the build. This module does not depend on mkdocs: it only converts a notebook to a page.
"""

import base64
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from rtdetr_lab.errors import ConfigError
from rtdetr_lab.notebook_tools.percent import ADDED, FOLDED, REPOSITORY, badge, without_badge

ENDINGS = {"image/png": "png", "image/jpeg": "jpg"}
ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Page:
    """Markdown, and the files in its links, by name."""

    markdown: str
    files: dict[str, bytes]


def page(notebook: Any, stem: str, pages: Collection[str] = ()) -> Page:
    """Convert a notebook to a page. `pages` are the existing ones: other links become text."""
    blocks: list[str] = []
    files: dict[str, bytes] = {}
    for number, cell in enumerate(notebook.cells):
        tags = cell.metadata.get("tags", [])
        if ADDED in tags:
            continue
        if cell.cell_type == "markdown":
            text = linked(without_badge(cell.source), pages)
            blocks.append(_with_links_to_the_notebook(text, stem) if number == 0 else text)
            continue
        parts = [fenced(cell.source, "python")] if cell.source.strip() else []
        for place, output in enumerate(cell.outputs):
            parts.append(_shown(output, f"{stem}_{number}_{place}", files, cell))
        shown = "\n\n".join(filter(None, parts))
        for tag in FOLDED.keys() & tags:
            summary = f"<summary>{FOLDED[tag]}</summary>"
            shown = f"<details markdown>\n{summary}\n\n{shown}\n\n</details>"
        blocks.append(shown)
    return Page("\n\n".join(blocks) + "\n", files)


def linked(text: str, pages: Collection[str]) -> str:
    """Point links between notebooks to pages; a link without a page becomes its text."""

    def repaired(found: re.Match[str]) -> str:
        words, stem, anchor = found.group(1), found.group(2), found.group(3) or ""
        return f"[{words}]({stem}.md{anchor})" if stem in pages else words

    return re.sub(r"\[([^\]]+)\]\((\d\d_\w+)\.ipynb(#[\w-]+)?\)", repaired, text)


def fenced(text: str, language: str) -> str:
    """Fence a code block with more backticks than its text contains."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _with_links_to_the_notebook(text: str, stem: str) -> str:
    title, _, rest = text.partition("\n")
    home = re.search(r'href="([^"]+)"', badge(stem))
    colab = f" · [open in Colab]({home.group(1)})" if home and REPOSITORY else ""
    return f"{title}\n\n[Download this notebook]({stem}.ipynb){{ download }}{colab}\n{rest}"


def _shown(output: Any, name: str, files: dict[str, bytes], cell: Any) -> str:
    if output.output_type == "error":
        where = f"{name}: {cell.source.splitlines()[0]}"
        raise ConfigError(where, f"{output.ename}: {output.evalue}", "make the notebook run")
    if output.output_type == "stream":
        return _text(output.text)
    for mime, ending in ENDINGS.items():
        if mime in output.data:
            files[f"{name}.{ending}"] = base64.b64decode(output.data[mime])
            alt = output.metadata[mime]["alt"].replace("[", "(").replace("]", ")")
            width = output.metadata[mime].get("width", "")
            return f"![{alt}]({name}.{ending})" + f"{{ width={width} }}" * bool(width)
    if "text/html" in output.data:
        html = re.sub(r"\n\s*\n", "\n", output.data["text/html"])  # a blank line ends raw HTML
        return f'<div class="nb-html">{html}</div>'
    if "text/markdown" in output.data:
        return re.sub(r"^#", "##", output.data["text/markdown"], flags=re.M)  # one title a page
    return _text(output.data.get("text/plain", ""))


def _text(text: str) -> str:
    text = ANSI.sub("", text).strip("\n")
    return f'<div class="nb-output" markdown>\n\n{fenced(text, "text")}\n\n</div>' if text else ""
