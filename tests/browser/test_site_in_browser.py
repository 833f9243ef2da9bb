"""The site in a real browser: complete, quiet, legible on a phone, searchable, by keyboard too."""

import re

import pytest
from book_site import site
from browsing import Visit, served
from paths import ROOT

SHOTS = ROOT / "build" / "screenshots"


@pytest.fixture(scope="module")
def home(browser):
    with served(site()) as address:
        yield address


@pytest.fixture
def visit(browser, home):
    """`visit(width, scheme)` opens a window on the site."""
    opened = []

    def open_window(width=1280, scheme="light"):
        size = {"width": width, "height": 900}
        opened.append(browser.new_context(viewport=size, color_scheme=scheme))
        return Visit(opened[-1].new_page(), home)

    yield open_window
    for context in opened:
        context.close()


def pages() -> list[str]:
    folder = site()
    return sorted(
        str(p.relative_to(folder)) for p in folder.rglob("*.html") if p.name != "404.html"
    )


def look(window, name: str, width: int) -> int:
    """Go there, take a picture; returns by how many pixels the page is too wide."""
    window.go(name)
    SHOTS.mkdir(parents=True, exist_ok=True)
    window.page.screenshot(path=SHOTS / f"{name.replace('/', '_')}_{width}.png")
    return window.page.evaluate("document.documentElement.scrollWidth") - width


def too_wide(window, selector: str) -> list[str]:
    """The things on the page that scroll sideways in their own box."""
    return window.page.evaluate(
        "what => [...document.querySelectorAll(what)]"
        ".filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.id || e.innerText)",
        selector,
    )


def test_every_page_and_equation_is_complete_quiet_and_fits_a_phone(visit):
    window, wide = visit(400), {}
    for name in pages():
        by, equations = look(window, name, 400), too_wide(window, ".equation")
        wide |= {name: (by, equations)} if by > 0 or equations else {}
    assert window.complaints == []
    assert wide == {}, "these scroll sideways"


def test_code_fits_a_desk(visit):
    window = visit(1280)
    for name in ("errors", "deploy", "notebooks/04_losses", "chapters/deformable_attention"):
        window.go(f"{name}.html")
        assert too_wide(window, "pre > code") == []


def test_a_prediction_opens_what_happens_and_stays_in_the_browser(visit):
    window = visit()
    window.go("notebooks/09_query_selection.html")
    answer = window.page.locator("details.predicted").first
    assert not answer.locator(".nb-output").first.is_visible()
    window.page.get_by_role("button", name="No difference").click()
    assert answer.locator(".nb-output").first.is_visible()
    window.page.reload()
    window.page.locator("details.predicted[open]").first.wait_for()
    assert "You said: No difference." in window.page.locator(".predict-said").first.inner_text()
    assert window.complaints == []


def test_a_symbol_lights_its_code_and_code_its_symbol(visit):
    window = visit()
    window.go("chapters/query_selection.html")
    window.page.locator("#eq-09-1 mi", has_text="s").hover()
    assert window.page.locator("pre .lit", has_text="logits").count() > 3
    assert window.page.locator(".chapter-row.lit h3", has_text="QuerySelection").count() == 1
    window.page.locator("pre .n", has_text=re.compile("^logits$")).first.hover()
    assert window.page.locator("#eq-09-1 .lit", has_text="s").count() > 0
    assert "logits" in window.page.locator("tr.lit").inner_text()


def test_one_page_of_every_kind_is_complete_in_the_dark(visit):
    window = visit(1280, "dark")
    some = ["index", "reading", "api", "chapters/query_selection", "notebooks/00_tour"]
    wide = {name: by for name in some if (by := look(window, f"{name}.html", 1280)) > 0}
    assert window.complaints == []
    assert wide == {}


def test_equations_are_drawn(visit):
    window = visit()
    window.go("chapters/query_selection.html")
    box = window.page.locator("#eq-09-1 .lines").bounding_box()
    assert box["height"] > 15
    assert box["width"] > 80
    under = "document.querySelector('#eq-09-1 munder').lastElementChild.getBoundingClientRect().top"
    over = "document.querySelector('#eq-09-1 munder').firstElementChild.getBoundingClientRect().top"
    assert window.page.evaluate(under) > window.page.evaluate(over), "the index stands below max"


def test_code_stands_beside_prose_on_a_desk_and_below_it_on_a_phone(visit):
    for width, beside in ((1280, True), (400, False)):
        window = visit(width)
        window.go("chapters/query_selection.html")
        row = window.page.locator(".chapter-row", has_text="QuerySelection.content_of")
        prose = row.locator(".chapter-prose").bounding_box()
        code = row.locator(".chapter-code").bounding_box()
        assert (code["x"] >= prose["x"] + prose["width"]) == beside
        assert (code["y"] >= prose["y"] + prose["height"]) == (not beside)


@pytest.mark.parametrize(("words", "title"), [("AIFI", "AIFI"), ("sampling offsets", "Glossary")])
def test_search_finds_the_word_first(visit, words, title):
    window = visit()
    window.go("index.html")
    window.page.keyboard.press("f")  # the theme's shortcut: no mouse needed
    window.page.keyboard.type(words)
    first = window.page.locator(".md-search-result__item a").first
    first.wait_for()
    assert title in first.inner_text()
    assert window.complaints == []


def test_light_and_dark_are_one_key_away(visit):
    window = visit(scheme="dark")
    window.go("index.html")
    scheme = "document.body.getAttribute('data-md-color-scheme')"
    assert window.page.evaluate(scheme) == "slate"
    window.page.locator("label[title='Switch to light']").focus()
    window.page.locator("label[title='Switch to light']").press("Enter")
    window.page.wait_for_function(f"{scheme} == 'default'")


def test_the_first_thing_a_keyboard_reaches_leads_past_the_header(visit):
    window = visit()
    window.go("notebooks/00_tour.html")
    window.page.keyboard.press("Tab")
    assert "Skip to content" in window.page.evaluate("document.activeElement.innerText")


def test_a_solution_unfolds_by_keyboard(visit):
    window = visit()
    window.go("notebooks/09_query_selection.html")
    solution = window.page.locator("details:has(summary:text('One way to find it'))").first
    assert not solution.evaluate("d => d.open")
    solution.locator("summary").first.press("Enter")
    assert solution.evaluate("d => d.open")


def test_the_home_page_shows_the_explorer(visit):
    window = visit()
    window.go("index.html")
    frame = window.page.frame_locator("iframe.explorer")
    window.page.locator("iframe.explorer").scroll_into_view_if_needed()
    frame.locator("canvas").first.wait_for()
    assert window.complaints == []


def test_the_frame_of_the_home_page_has_the_colours_of_the_page_and_no_scroll_bar(visit):
    window = visit(scheme="light")
    window.go("index.html")
    frame = window.page.frame_locator("iframe.explorer")
    frame.locator("canvas[role=application]").wait_for()
    if window.page.locator("iframe.explorer[src^='live/']").count() == 0:
        pytest.skip("runs where onnxruntime-web can be had: this site has the still explorer")
    window.page.locator("label[title='Switch to dark']").click()
    inside = frame.locator("html")
    dark = "e => getComputedStyle(e).colorScheme == 'dark'"
    assert inside.evaluate(dark)
    tall = "e => document.documentElement.scrollHeight <= window.innerHeight"
    assert inside.evaluate(tall)
    for name in ("play the layers", "another scene", "reset the model"):
        assert frame.get_by_role("button", name=name).is_visible()
    link = frame.get_by_role("link", name="chapter decoder").first.get_attribute("href")
    window.go(f"live/{link}")
    assert window.complaints == []
