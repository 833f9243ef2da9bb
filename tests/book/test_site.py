"""The site is built strictly, from executed notebooks, chapters and the models themselves."""

import html
import json
import re

import nbformat
import notebook_run
import pytest
from book_site import site
from paths import ROOT

from rtdetr_lab.errors import ConfigError
from rtdetr_lab.notebook_tools import pages, percent

HOOKS = ROOT / "docs" / "hooks"
pytest.importorskip("mkdocs", reason="runs where the docs extra is installed: make .venv/docs")


def text(relative: str) -> str:
    return (site() / relative).read_text(encoding="utf8")


@pytest.fixture
def hooks(monkeypatch):
    monkeypatch.syspath_prepend(str(HOOKS))


def test_it_builds_strictly():
    assert (site() / "index.html").is_file()


def test_there_is_a_page_for_every_notebook_and_every_chapter():
    folder = site()
    chapters = set(re.findall(r"\]\(rtdetr_lab/([\w/]+)\.py\)", (ROOT / "README.md").read_text()))
    for stem in (path.stem for path in notebook_run.NOTEBOOKS):
        assert (folder / "notebooks" / f"{stem}.html").is_file()
        assert (folder / "notebooks" / f"{stem}.ipynb").is_file()
    assert chapters
    pages = (p.relative_to(folder / "chapters") for p in (folder / "chapters").rglob("*.html"))
    assert {page.with_suffix("").as_posix() for page in pages} == chapters


def test_six_tabs_lead_to_all_pages():
    """Strict building refuses a page without a place in the navigation."""
    tabs = re.findall(r'class="md-tabs__link">\s*(.*?)\s*</a>', text("index.html"))
    assert tabs == ["Learn", "Play", "Lab", "Use", "Reference", "About"]


def test_a_page_has_one_title():
    several = {
        path.name: titles
        for path in site().rglob("*.html")
        if path.parent.name not in ("explorer", "live")
        and len(titles := re.findall(r"<h1\b.*?</h1>", path.read_text(encoding="utf8"))) != 1
    }
    assert several == {}


def test_a_word_of_the_glossary_has_an_address_a_tooltip_and_is_found():
    assert '<dfn id="sampling-offsets">' in text("glossary.html")
    used = re.findall(
        r'<a class="word" href="([^"]*)" title="([^"]*)">IoU</a>', text("chapters/losses.html")
    )
    assert used == [("../glossary.html#iou", "intersection of two boxes over their union")]
    found = json.loads(text("search/search_index.json"))["docs"]
    assert "glossary.html#sampling-offsets" in {entry["location"] for entry in found}


def test_every_question_of_a_notebook_has_its_choices(hooks):
    from predictions import choices

    for stem in (path.stem for path in notebook_run.NOTEBOOKS):
        known = choices().get(stem, [])
        asked = text(f"notebooks/{stem}.html").count('class="predict"')
        assert asked == len(known), f"{stem}: {asked} questions; see docs/hooks/choices.json"
        assert all(len(set(answers)) >= 2 for answers in known)


def test_nothing_is_fetched_from_elsewhere():
    for path in site().rglob("*.html"):
        page = re.sub(r'srcdoc="[^"]*"', "", path.read_text(encoding="utf8"))
        loads = r"""<(?:script|img|iframe|link|source)\b[^>]*?(?:src|href)=["']?(https?:)?//"""
        assert re.findall(loads, page) == [], path.name
    for path in site().rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", path.read_text(encoding="utf8"))


def test_no_tex_is_left_to_the_reader():
    for path in site().rglob("*.html"):
        page = path.read_text(encoding="utf8")
        assert 'class="arithmatex"' not in page, path.name
        without_code = re.sub(r"<(pre|code|script)\b.*?</\1>", "", page, flags=re.S)
        assert not re.search(r"\\\[|\\\(|\\frac|\\mathrm", without_code), path.name
    assert 'id="eq-09-1"' in text("chapters/query_selection.html")
    assert "<math" in text("notebooks/09_query_selection.html")


def test_every_picture_has_an_alternative_text():
    for path in site().rglob("*.html"):
        for image in re.findall(r"<img\b[^>]*>", path.read_text(encoding="utf8")):
            assert re.search(r'alt="[^"]{10,}"', image), (path.name, image[:80])


def test_a_chapter_page_holds_all_of_its_code_and_all_of_its_prose(hooks):
    from chapters import chapter_page

    path = ROOT / "rtdetr_lab" / "query_selection.py"
    page, source = chapter_page(path), path.read_text(encoding="utf8")
    shown = "\n".join(re.findall(r"^```python\n(.*?)\n```$", page, re.M | re.S))
    prose = re.sub(r'r?""".*?"""\n', "", source, flags=re.S)
    lines = [line.strip() for line in prose.splitlines() if line.strip()]
    assert [line.strip() for line in shown.splitlines() if line.strip()] == lines
    for sentence in re.findall(r'r?"""(.*?)"""', source, re.S):
        assert " ".join(sentence.split()) in " ".join(page.split())


def test_prose_stands_beside_the_code_it_is_about(hooks):
    from chapters import chapter_page

    page = chapter_page(ROOT / "rtdetr_lab" / "query_selection.py")
    (row,) = [r for r in page.split('<div class="chapter-row"') if "### `TopScore`" in r]
    assert "Keep the tokens with the highest score." in row
    assert "class TopScore:" in row
    assert "class QuerySelection(nn.Module)" not in row


def test_a_diagram_names_every_part_and_counts_every_parameter(hooks):
    from diagrams import diagram

    import rtdetr_lab as lab

    model, drawn = lab.rtdetr_nano().build(), html.unescape(diagram("rtdetr_nano"))
    for name, part in model.named_children():
        assert f'<tspan class="name">{name}</tspan>' in drawn
        assert (
            f"{name}: {type(part).__name__}, {sum(p.numel() for p in part.parameters()):,}" in drawn
        )
    assert "96 × 40 × 40,  96 × 20 × 20,  96 × 10 × 10" in drawn


def test_the_map_says_where_every_page_is_and_leads_everywhere(hooks):
    from model_map import ELSEWHERE, PARTS, part_of

    places = {part.chapter for part in PARTS} | set(ELSEWHERE)
    for page in (*site().glob("chapters/**/*.html"), *site().glob("notebooks/*.html")):
        shown = page.read_text(encoding="utf8")
        (drawn,) = re.findall(r'<figure class="map".*?</figure>', shown, re.S)
        (here,) = re.findall(r'href="([^"]*)"[^>]*aria-current="location"', drawn)
        name = page.relative_to(site()).with_suffix("").as_posix()
        assert here.endswith(f"chapters/{part_of(name)}.html")
        assert name.startswith("notebooks/") or name.removeprefix("chapters/") in places
        for target in re.findall(r'href="([^"]*)"', drawn):
            assert (page.parent / target).is_file(), (name, target)


def test_the_map_tells_shapes_and_costs_of_the_model(hooks):
    from model_map import costs

    import rtdetr_lab as lab

    model = lab.rtdetr_r18().build()
    parameters = sum(p.numel() for p in model.encoder.aifi.parameters())
    assert costs()["aifi"].startswith(f"returns 256 × 20 × 20; {parameters / 1e6:.2f} M")
    assert "returns 128 × 80 × 80,  256 × 40 × 40,  512 × 20 × 20;" in costs()["backbone"]
    (billions,) = re.findall(r"([\d.]+) GFLOPs", costs()["rtdetr"])
    assert 58 < float(billions) < 62, "60 in the paper's table"
    assert "GFLOPs" not in costs()["denoising"]


def test_the_map_of_the_readme_is_the_drawing_of_the_site(hooks):
    from model_map import standalone

    assert (ROOT / "docs" / "img" / "map.svg").read_text(encoding="utf8") == standalone()


def test_tex_becomes_mathml_or_stops_the_build(hooks):
    from mathml import with_mathml

    shown = with_mathml('<div class="arithmatex">\\[\\max_c s_{n,c} \\tag{09.1}\\]</div>')
    assert "<munder><mo>max</mo>" in shown
    assert '<a class="equation-number" href="#eq-09-1">(09.1)</a>' in shown
    several = with_mathml('<div class="arithmatex">\\[a = f(b + c), \\quad d = e\\]</div>')
    assert several.count("<span><math") == 2, "a new line after a wide space"
    assert several.count("<math") == 5, "and before an operator"
    assert "𝒫" in with_mathml('<span class="arithmatex">\\(\\mathcal P\\)</span>')
    with pytest.raises(ValueError, match="nosuch"):
        with_mathml('<span class="arithmatex">\\(\\nosuch x\\)</span>')


# --- a notebook as a page -----------------------------------------------------------------------


def notebook(*cells):
    return nbformat.v4.new_notebook(cells=list(cells))


def test_prose_stays_prose_and_code_is_fenced():
    v4 = nbformat.v4
    code = v4.new_code_cell("print('```')", outputs=[v4.new_output("stream", text="a\n```\n")])
    title = v4.new_markdown_cell(
        "# 09 · T\n\n!!! note\n    see [next](10_b.ipynb), [not](11_c.ipynb)"
    )
    page = pages.page(notebook(title, code), "09_a", {"10_b"}).markdown
    assert "!!! note\n    see [next](10_b.md), not" in page
    assert "````python\nprint('```')\n````" in page
    assert "````text\na\n```\n````" in page


def test_a_figure_becomes_a_file_with_its_text():
    out = nbformat.v4.new_output("display_data", {"image/png": "aGk="})
    out.metadata = {"image/png": {"alt": "two [red] boxes"}}
    page = pages.page(notebook(nbformat.v4.new_code_cell("plot()", outputs=[out])), "09_a")
    assert page.files == {"09_a_0_0.png": b"hi"}
    assert "![two (red) boxes](09_a_0_0.png)" in page.markdown


def test_a_cell_that_raised_stops_the_build():
    out = nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[])
    with pytest.raises(ConfigError, match="ValueError: no"):
        pages.page(notebook(nbformat.v4.new_code_cell("f()", outputs=[out])), "09_a")


@pytest.mark.parametrize(("tag", "line"), percent.FOLDED.items())
def test_what_readers_skip_is_folded_and_html_is_passed_through(tag, line):
    v4 = nbformat.v4
    out = v4.new_output("display_data", {"text/html": "<b>\n\nx</b>", "text/plain": "x"})
    cell = v4.new_code_cell("f()", outputs=[out], metadata={"tags": [tag]})
    page = pages.page(notebook(cell), "09_a").markdown
    assert page.startswith(f"<details markdown>\n<summary>{line}</summary>")
    assert '<div class="nb-html"><b>\nx</b></div>' in page


EQUATION_LINK = re.compile(r'<a href="([^"#]*)#(eq-\d\d-\d+)">Eq\.')
CODE_LINK = re.compile(r'<span class="equation-code">(.*?)</span>', re.S)


def test_a_mention_of_an_equation_leads_to_it():
    seen = 0
    for page in site().rglob("*.html"):
        for target, address in EQUATION_LINK.findall(page.read_text(encoding="utf8")):
            found = (page.parent / target) if target else page
            assert f'id="{address}"' in found.read_text(encoding="utf8"), (page, target, address)
            seen += 1
    assert seen > 30


def test_an_equation_leads_to_the_code_that_computes_it():
    beside = CODE_LINK.findall(text("notebooks/07_ccff.html"))
    assert any('href="../chapters/ccff.html#ccff"' in links for links in beside)
    target = text("chapters/ccff.html")
    assert 'id="ccff"' in target


def test_files_that_need_the_notebooks_are_given_to_one_worker():
    """Two workers would execute them in the same folder, and delete it under each other."""
    listed = (ROOT / "tests" / "conftest.py").read_text(encoding="utf8")
    sources = {p.name: p.read_text(encoding="utf8") for p in (ROOT / "tests").rglob("test_*.py")}
    needs = re.compile(r"^from book_site import site|notebook_run\.changes\(", re.M)
    users = {name for name, source in sources.items() if needs.search(source)}
    assert len(users) >= 4
    assert {name for name in users if f'"{name}"' not in listed} == set()
