"""# Percent: a notebook as a text file

We edit `notebooks/NN_name.py`, and make the notebook from it. In addition to jupytext's py:percent
format there are four conventions:

- `# alt: description` at the start of a code cell becomes the alternative text of its figure. There
  is one such comment per figure; it continues on lines that begin with `#   `.
- `# %% tags=["imports"]` and `tags=["solution"]` fold the code of a cell.
- `tags=["varies"]` means that the output of a cell differs from run to run (a time, a download) and
  is not compared. `# may differ: found ± 3 of 12` gives the tolerance of a number on another
  processor.
- The Colab badge and the install cell are added here, and not written twenty times.
"""

import hashlib
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rtdetr_lab.config import require

REPOSITORY = ""
"""owner/name on GitHub, empty until the project is public there.

While it is empty, the badge links to Colab's front page, where you can upload a notebook."""

BADGE = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="117" height="20" role="img">'
    '<rect width="117" height="20" rx="3" fill="#555"/><text x="8" y="14" fill="#fff" '
    'font-family="Verdana,sans-serif" font-size="11">Open in Colab</text></svg>'
)

INSTALL = """\
# On Colab, once; where rtdetr_lab is there already this does nothing.
import importlib.util

if importlib.util.find_spec("rtdetr_lab") is None:
    %pip install -q rtdetr_lab"""

FOLDED = {"imports": "Imports", "solution": "One way to find it"}
"""Tags of cells that are folded away, and the line that unfolds each on the site."""

ADDED = "added"
"""Tag of a cell that this module adds."""


def read(path: Path) -> Any:
    """Make the notebook of a `.py`, not executed, with fixed ids and alternative texts."""
    import jupytext
    import nbformat

    notebook = jupytext.reads(path.read_text(encoding="utf8"), fmt="py:percent")
    cells = [_cell(c) for c in notebook.cells]
    titled = cells and cells[0].cell_type == "markdown" and cells[0].source.startswith("# ")
    remedy = "begin with `# %% [markdown]` and `# # NN · …`"
    require(titled, path, "does not begin with a title", remedy)
    title, *rest = cells[0].source.split("\n")
    cells[0].source = "\n".join([title, "", badge(path.stem), *rest])
    folded = {"tags": [ADDED], "jupyter": {"source_hidden": True}}
    install = nbformat.v4.new_code_cell(INSTALL, metadata=folded)
    notebook.cells = [cells[0], install, *cells[1:]]
    _give_ids(notebook.cells)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def badge(stem: str) -> str:
    """Return the Markdown of a notebook's badge."""
    home = "https://colab.research.google.com/"
    if REPOSITORY:
        home += f"github/{REPOSITORY}/blob/main/notebooks/{stem}.ipynb"
    return f'<a href="{home}"><img alt="Open in Colab" src="data:image/svg+xml,{quote(BADGE)}"></a>'


def without_badge(source: str) -> str:
    """Remove the badge, so that the Markdown is that of the `.py`."""
    return re.sub(r'<a href="https://colab\.[^\n]*</a>\n*', "", source)


def _cell(cell: Any) -> Any:
    tags = list(cell.metadata.get("tags", []))
    cell.metadata = {"tags": tags} if tags else {}
    if cell.cell_type != "code":
        return cell
    alts, cell.source = split_alts(cell.source)
    if alts:
        cell.metadata["alt"] = alts
    if not FOLDED.keys().isdisjoint(tags):
        cell.metadata["jupyter"] = {"source_hidden": True}
    return cell


def split_alts(source: str) -> tuple[list[str], str]:
    """Split a cell into the `# alt:` comments at its head and the remaining code."""
    lines, alts = source.split("\n"), []
    while lines and lines[0].startswith("# alt: "):
        alts.append(lines.pop(0).removeprefix("# alt: "))
        while lines and lines[0].startswith("#   "):
            alts[-1] += " " + lines.pop(0)[1:].strip()
    return alts, "\n".join(lines)


def _give_ids(cells: list[Any]) -> None:
    """Derive the id of a cell from its text, and from its position among equal cells."""
    taken: set[str] = set()
    for cell in cells:
        text, again = f"{cell.cell_type}\n{cell.source}", 0
        while (name := digest(f"{text}\n{again}")[:12]) in taken:
            again += 1
        taken.add(name)
        cell.id = name


def digest(text: str) -> str:
    """Compute the hexadecimal SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()


def contents(notebook: Any) -> list[tuple[str, str, str, tuple[str, ...]]]:
    """Return the parts that `.py` and notebook share: id, kind, source, alternative texts."""
    return [(c.id, c.cell_type, c.source, tuple(c.metadata.get("alt", ()))) for c in notebook.cells]


def code_digest(notebook: Any) -> str:
    """Compute a digest of all code; if it changes, the notebook must be executed again."""
    return digest("\n# %%\n".join(c.source for c in notebook.cells if c.cell_type == "code"))
