"""Build pages that are not Markdown: from notebooks, from chapters and from the models.

Executed notebooks come from `notebooks/`, or from the folder that RTDETR_LAB_NOTEBOOKS names: a
copy that was executed a moment ago.
"""

import os
import posixpath
import re
from pathlib import Path

import nbformat
from chapters import chapter_page
from diagrams import diagram
from equations import with_equation_links
from line import with_line
from mathml import with_mathml
from mkdocs.structure.files import File
from reading import ROOT, notebooks, reading_order, reading_table

from rtdetr_lab.notebook_tools.outputs import normalised
from rtdetr_lab.notebook_tools.pages import page

DIAGRAM = re.compile(r"<!-- diagram: (\w+) -->")
CHAPTERS = [chapter for step in reading_order() for chapter in step.chapters]
EXPLORER = "explorer/nano.html"
FRAME = (
    f'<iframe class="explorer" src="{EXPLORER}" title="Explorer: click an object, or use '
    'the arrow keys, to see which points its query read" loading="lazy"></iframe>\n\n'
    f"[Open the explorer on its own page]({EXPLORER})"
)


def on_config(config):
    """Fill the two sections of the navigation that depend on what is written."""
    titles = {
        path.stem: f"{path.stem[:2]} {path.stem[3:].replace('_', ' ')}" for path in notebooks()
    }
    filled = {
        "Notebooks": [{title: f"notebooks/{stem}.md"} for stem, title in titles.items()],
        "Chapters": [{name.replace("/", " · "): f"chapters/{name}.md"} for name in CHAPTERS],
    }
    for entry in config.nav:
        for title in entry:
            entry[title] = entry[title] + filled.get(title, []) if title in filled else entry[title]
    return config


def on_files(files, config):
    stems = {path.stem for path in notebooks()}
    folder = Path(os.environ.get("RTDETR_LAB_NOTEBOOKS", ROOT / "notebooks"))

    def add(uri, content):
        files.append(File.generated(config, uri, content=content))

    for stem in sorted(stems):
        made = nbformat.read(folder / f"{stem}.ipynb", as_version=4)
        shown = page(normalised(made, stem), stem, stems)
        add(f"notebooks/{stem}.md", _with_links(shown.markdown, stems, "notebooks"))
        add(f"notebooks/{stem}.ipynb", (ROOT / "notebooks" / f"{stem}.ipynb").read_bytes())
        for name, data in shown.files.items():
            add(f"notebooks/{name}", data)
    for name in CHAPTERS:
        uri = f"chapters/{name}.md"
        prose = chapter_page(ROOT / "rtdetr_lab" / f"{name}.py")
        add(uri, _with_links(prose, stems, os.path.dirname(uri)))
    add(EXPLORER, _explorer())
    return files


def on_page_markdown(markdown, page, config, files):
    markdown = markdown.replace("<!-- reading order -->", reading_table())
    markdown = markdown.replace("<!-- explorer -->", FRAME)
    markdown = with_line(markdown, CHAPTERS)
    return DIAGRAM.sub(lambda found: diagram(found.group(1)), markdown)


def on_page_content(html, page, config, files):
    try:
        return with_equation_links(with_mathml(html), page.url)
    except ValueError as error:
        raise ValueError(f"{page.file.src_uri}: {error}") from error


def _with_links(markdown: str, stems: set[str], folder: str) -> str:
    """Make names of chapters and notebooks in backticks lead from `folder` to their pages."""

    def link(found, uri):
        return f"[`{found.group(0)[1:-1]}`]({posixpath.relpath(uri, folder)})"

    def to_notebook(found):
        stem = found.group(1)
        return link(found, f"notebooks/{stem}.md") if stem in stems else found.group(0)

    def to_chapter(found):
        name = found.group(1)
        return link(found, f"chapters/{name}.md") if name in CHAPTERS else found.group(0)

    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.M | re.S)
    for number in range(0, len(parts), 2):
        parts[number] = re.sub(
            r"(?<!\[)`(?:notebooks/)?(\d\d_\w+)\.ipynb`", to_notebook, parts[number]
        )
        parts[number] = re.sub(r"(?<!\[)`(?:rtdetr_lab/)?([\w/]+)\.py`", to_chapter, parts[number])
    return "".join(parts)


def _explorer() -> str:
    """The explorer with the embedded model and picture, as a page of its own."""
    from rtdetr_lab.checkpoints.source import ASSETS
    from rtdetr_lab.commands.explore import explore
    from rtdetr_lab.detector import Detector
    from rtdetr_lab.viz.explorer_page import page as explorer_page

    detector = Detector.from_pretrained("nano", "cpu")
    return explorer_page(explore(detector, ASSETS / "shapes.png"))
