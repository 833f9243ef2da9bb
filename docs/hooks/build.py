"""Build pages that are not Markdown: from notebooks, from chapters and from the models.

Executed notebooks come from `notebooks/`, or from the folder that RTDETR_LAB_NOTEBOOKS names: a
copy that was executed a moment ago. With RTDETR_LAB_LIVE=required a site without the page in which
the model runs is an error.
"""

import logging
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
from model_map import model_map, part_of
from predictions import with_choices
from reading import ROOT, notebooks, reading_order, reading_table
from words import add_to_search, with_addresses, with_tooltips

from rtdetr_lab.notebook_tools.outputs import normalised
from rtdetr_lab.notebook_tools.pages import page

DIAGRAM = re.compile(r"<!-- diagram: (\w+) -->")
CHAPTERS = [chapter for step in reading_order() for chapter in step.chapters]
WHOLE = re.compile(r"<div [^>]*>(?:(?!</div>).)*backbone ─ S3 S4 S5.*?</div>", re.S)
"""The model in characters, for readers of the file: the map stands in its place."""
EXPLORER = "explorer/nano.html"
LIVE = "live/index.html"
"""The page in which nano runs; without its runtime the still explorer takes its place."""
FRAME = (
    '<iframe class="explorer" src="{address}" title="{title}" loading="lazy"></iframe>\n\n'
    "[Open it on its own page]({address}). {note}"
)
STILL = "This site was built without a network, so the explorer shows one stored answer."
log = logging.getLogger("mkdocs.hooks.playground")


ABOUT = {"CHANGELOG": "Changes", "CONTRIBUTING": "Contributing", "SECURITY": "Security"}
"""Files of the repository that are pages of the site, and their titles."""


def on_config(config):
    """Fill the sections of the navigation that depend on what is written."""
    titles = {
        path.stem: f"{path.stem[:2]} {path.stem[3:].replace('_', ' ')}" for path in notebooks()
    }
    on_a_gpu = "results/gpu_notebook.md"  # written where there is one
    filled = {
        "Notebooks": [{title: f"notebooks/{stem}.md"} for stem, title in titles.items()],
        "Chapters": [{name.replace("/", " · "): f"chapters/{name}.md"} for name in CHAPTERS],
        "GPU": [{"Notebook 13": on_a_gpu}] if (ROOT / "docs" / on_a_gpu).is_file() else [],
        "About": [{title: f"about/{name.lower()}.md"} for name, title in ABOUT.items()],
    }
    _fill(config.nav, filled)
    return config


def _fill(nav, filled):
    for entry in nav:
        for title, inner in entry.items() if isinstance(entry, dict) else ():
            if isinstance(inner, list):
                _fill(inner, filled)
                inner += filled.get(title, [])


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
    for name in ABOUT:
        text = (ROOT / f"{name}.md").read_text(encoding="utf8")
        add(
            f"about/{name.lower()}.md",
            _with_links(text.replace("](docs/", "](../"), stems, "about"),
        )
    add(EXPLORER, _explorer())
    for name, content in _live().items():
        add(posixpath.join(posixpath.dirname(LIVE), name), content)
    return files


def on_page_markdown(markdown, page, config, files):
    markdown = markdown.replace("<!-- reading order -->", reading_table())
    markdown = markdown.replace("<!-- playground -->", _frame(files))
    markdown = markdown.replace("<!-- map -->", model_map(""))
    if page.file.src_uri == "glossary.md":
        markdown = with_addresses(markdown)
    markdown = with_line(markdown, CHAPTERS)
    return DIAGRAM.sub(lambda found: diagram(found.group(1)), markdown)


def on_page_content(html, page, config, files):
    folder, _, name = page.file.src_uri.rpartition("/")
    if folder == "notebooks":
        html = with_choices(html, name.removesuffix(".md"))
    try:
        html = with_equation_links(with_mathml(html), page.url)
    except ValueError as error:
        raise ValueError(f"{page.file.src_uri}: {error}") from error
    if folder.startswith(("notebooks", "chapters")):
        home = posixpath.relpath(".", folder) + "/"
        html = with_tooltips(html, f"{home}glossary.html")
        drawn = model_map(home, part_of(page.file.src_uri.removesuffix(".md")))
        html = WHOLE.sub("", html).replace("</h1>", f"</h1>{drawn}", 1)
    return html


def on_post_page(output, page, config):
    """Name the theme's dialog for those who hear the page."""
    return output.replace('role="dialog"', 'role="dialog" aria-label="Search"')


def on_post_build(config):
    add_to_search(Path(config.site_dir))


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


def _live() -> dict[str, bytes]:
    """The files of the page in which nano runs; none if its runtime cannot be had."""
    from rtdetr_lab.commands.explore import explore, live
    from rtdetr_lab.deployment.web_runtime import web_runtime
    from rtdetr_lab.detector import Detector
    from rtdetr_lab.errors import HubError
    from rtdetr_lab.viz.live_page import live_files

    try:
        runtime = web_runtime()
    except HubError as error:
        if os.environ.get("RTDETR_LAB_LIVE") == "required":
            raise
        log.info(f"the still explorer, because the model cannot run in the page: {error}")
        return {}
    detector = Detector.from_pretrained("nano", "cpu")
    explored = explore(detector, ROOT / "docs" / "img" / "scene.png")
    return live_files(explored, live(detector, runtime, scene=0, chapters="../chapters/"))


def _frame(files) -> str:
    found = files.get_file_from_path(LIVE) is not None
    words = "Playground: draw, and nano answers" if found else "Explorer: click an object"
    return FRAME.format(
        address=LIVE if found else EXPLORER, title=words, note="" if found else STILL
    )
