"""Every notebook is what its `.py` says, keeps the arc, runs, and prints what it printed before."""

import ast
import re
import warnings
from pathlib import Path

import nbformat
import notebook_run
import pytest
from paths import ROOT

from rtdetr_lab.notebook_tools import build, percent

SOURCES = sorted((ROOT / "notebooks").glob("*.py"))
STEMS = [path.stem for path in SOURCES]

every = pytest.mark.parametrize("path", SOURCES, ids=STEMS)


def made(path: Path):
    return nbformat.read(path.with_suffix(".ipynb"), as_version=4)


# --- the pair -----------------------------------------------------------------------------------


@every
def test_the_notebook_is_what_its_py_says(path):
    assert path.with_suffix(".ipynb").is_file(), f"make notebooks ONLY={path.stem[:2]}"
    message = f"they differ: edit the .py and run `make notebooks ONLY={path.stem[:2]}`"
    assert percent.contents(made(path)) == percent.contents(percent.read(path)), message
    assert made(path).metadata[build.KEY]["code"] == percent.code_digest(percent.read(path))
    if reason := build.stale(path):
        warnings.warn(f"{path.stem} should be executed again: {reason}", stacklevel=1)


def test_no_notebook_is_without_a_py():
    assert {p.stem for p in notebook_run.NOTEBOOKS} == set(STEMS)


@every
def test_nothing_is_kept_that_changes_from_run_to_run(path):
    notebook = made(path)
    nbformat.validate(notebook)
    assert set(notebook.metadata) == {"kernelspec", "language_info", build.KEY}
    assert path.with_suffix(".ipynb").stat().st_size <= build.MAX_BYTES
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags", "alt", "jupyter"}
        assert cell.get("execution_count") is None


@every
def test_every_figure_can_be_read_aloud(path):
    outputs = [output for cell in made(path).cells for output in cell.get("outputs", [])]
    shown = [(output, mime) for output in outputs for mime in output.get("data", {})]
    for output, mime in shown:
        if mime.startswith("image/"):
            assert len(output.metadata[mime]["alt"]) > 20


# --- the arc ------------------------------------------------------------------------------------


@every
def test_cells_are_short_and_the_arc_is_kept(path):
    cells = percent.read(path).cells
    prose = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    code = [c for c in cells if c.cell_type == "code"]
    assert re.match(rf"# {path.stem[:2]} · ", cells[0].source)
    assert "colab.research.google.com" in cells[0].source
    assert "%pip install" in cells[1].source
    _, imports, *shown = code  # after the install cell
    assert imports.metadata["tags"] == ["imports"]
    assert not [c.source for c in shown if re.search(r"^(import|from) ", c.source, re.M)]
    long = [c.source for c in shown if len(c.source.strip().splitlines()) > 18]
    assert long == [], "a cell holds one idea: about 15 lines"
    assert sum("solution" in c.metadata.get("tags", []) for c in code) == 3
    assert sum(c.source.strip() == "answer = ..." for c in code) == 3
    for part in ("**Paper**", "redict", "## What it costs", "## Exercises", "**Next**"):
        assert part in prose or (path.stem.startswith("00") and "cost" in part), part


@every
def test_it_proves_what_it_says(path):
    tree = ast.parse(path.read_text(encoding="utf8"))
    assert sum(isinstance(node, ast.Assert) for node in ast.walk(tree)) >= 3


@every
def test_notebooks_import_and_never_redefine(path):
    tree = ast.parse(path.read_text(encoding="utf8"))
    defined = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    imported = {
        a.asname or a.name for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names
    }
    assert defined & imported == set()


@every
def test_links_between_notebooks_lead_to_the_planned_ones(path):
    planned = {*STEMS, *re.findall(r"notebooks/(\d\d_\w+)\.ipynb", chapters())}
    links = re.findall(r"\]\((\d\d_\w+)\.ipynb", path.read_text(encoding="utf8"))
    assert set(links) <= planned


def chapters() -> str:
    return "\n".join(p.read_text(encoding="utf8") for p in (ROOT / "rtdetr_lab").rglob("*.py"))


# --- equations ----------------------------------------------------------------------------------

TAG = re.compile(r"\\tag\{(\d\d\.\d+)\}")


def tags() -> dict[str, str]:
    """Every named equation, and the file it stands in."""
    files = [*(ROOT / "rtdetr_lab").rglob("*.py"), *SOURCES]
    return {tag: p.name for p in files for tag in TAG.findall(p.read_text(encoding="utf8"))}


def docstrings_of_code() -> str:
    """Docstrings of all functions and classes, not those of modules."""
    kinds, found = (ast.FunctionDef, ast.ClassDef), []
    for path in (ROOT / "rtdetr_lab").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            found += [ast.get_docstring(node) or ""] if isinstance(node, kinds) else []
    return "\n".join(found)


def without_a_home(names: dict[str, str], code: str, tests: str) -> list[str]:
    """Equations that no function or no test names."""
    named = [set(re.findall(r"Eq\. (\d\d\.\d+)", text)) for text in (code, tests)]
    return [tag for tag in sorted(names) if not all(tag in n for n in named)]


def test_every_equation_has_a_function_and_a_test():
    tests = "\n".join(p.read_text(encoding="utf8") for p in (ROOT / "tests").rglob("*.py"))
    assert tags(), "no equation has a name"
    assert without_a_home(tags(), docstrings_of_code(), tests) == []


def mentions_without_a_place(source: str) -> list[str]:
    """Equations that a module mentions, but neither shows nor finds in a notebook or a chapter."""
    shown = set(TAG.findall(source))
    found = re.findall(r"Eq\. (\d\d\.\d+)(,? \(?(?:in )?(?:notebook \d\d|`\w+\.py`))?", source)
    return [tag for tag, place in found if tag not in shown and not place]


@pytest.mark.parametrize("path", sorted((ROOT / "rtdetr_lab").rglob("*.py")), ids=lambda p: p.stem)
def test_a_module_shows_the_equations_it_mentions_or_says_where_they_are(path):
    assert mentions_without_a_place(path.read_text(encoding="utf8")) == []


def test_a_mention_that_leads_nowhere_is_noticed():
    shown = "Eq. 97.1 \\tag{97.1} Eq. 97.2, notebook 97; Eq. 97.3 (`aifi.py`)"
    assert mentions_without_a_place(f"{shown} Eq. 97.4") == ["97.4"]


def test_an_equation_nobody_computes_is_noticed():
    names = dict.fromkeys(["98.1", "98.2", "98.3"], "a.py")
    assert without_a_home(names, "Eq. 98.1; Eq. 98.2", "Eq. 98.1; Eq. 98.3") == ["98.2", "98.3"]


# --- run ----------------------------------------------------------------------------------------


@every
def test_it_runs_and_prints_what_it_printed_before(path, record_property):
    assert notebook_run.changes(path) == {}
    record_property("seconds", notebook_run.executed()[0][path.stem])
