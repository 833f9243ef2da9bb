"""axe-core reports no serious finding, in light and dark: contrast, names, order, keyboard."""

import functools
import hashlib
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from book_site import site
from browsing import Visit, served

AXE = "axe-core@4.10.3"
DIGEST = "0f2b4d7dcdf7d1219df8d1959ad68e565f51d14c3f0d88bb71cd59abeb956292"
SERIOUS = """async () => (await axe.run(document, {resultTypes: ['violations'], iframes: false}))
  .violations.filter(v => ['serious', 'critical'].includes(v.impact))
  .map(v => [v.id, v.nodes.length, v.nodes[0].html.slice(0, 200)])"""
SOME = ["index", "heatmaps", "results/ablations/encoder", "errors", "glossary"]
SOME += ["chapters/query_selection", "notebooks/09_query_selection"]


@functools.cache
def axe() -> str:
    """The script, pinned, fetched once into a cache outside the repository."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rtdetr_lab" / "npm"
    archive = cache / f"{AXE.replace('@', '-')}.tgz"
    if not archive.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        command = ["npm", "pack", "--silent", AXE]
        if not shutil.which("npm") or subprocess.run(command, cwd=cache, timeout=120).returncode:
            pytest.skip(f"un-skipped where npm can fetch {AXE}")
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == DIGEST, f"{archive} is damaged"
    with tarfile.open(archive) as packed:
        return packed.extractfile("package/axe.min.js").read().decode()


def findings(browser, pages, scheme: str) -> dict[str, list]:
    with served(site()) as home:
        window = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
        visit, found = Visit(window.new_page(), home), {}
        for name in pages:
            visit.go(name)
            visit.page.evaluate(axe())
            found[name] = visit.page.evaluate(SERIOUS)
        window.close()
    return {name: some for name, some in found.items() if some}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_one_page_of_every_kind_is_for_everybody(browser, scheme):
    assert findings(browser, [f"{name}.html" for name in SOME], scheme) == {}


@pytest.mark.full
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_pages_are_for_everybody(browser, scheme):
    pages = sorted(str(p.relative_to(site())) for p in site().rglob("*.html"))
    assert findings(browser, [p for p in pages if not p.startswith("404")], scheme) == {}


def test_pale_letters_are_noticed(browser):
    page = browser.new_page()
    page.set_content("<html lang=en><title>t</title><main><p style='color:#ccc'>pale</p></main>")
    page.evaluate(axe())
    assert [found[0] for found in page.evaluate(SERIOUS)] == ["color-contrast"]
    page.close()
