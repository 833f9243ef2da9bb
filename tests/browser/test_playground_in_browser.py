"""The playground in a real browser: the model answers as in Python, and nothing breaks the page.

The tests share one window and mend it after themselves: to start the model takes seconds.
"""

import io
import re
import statistics
from functools import partial

import numpy as np
import pytest
import torch
from browsing import Visit, served
from paths import ROOT
from PIL import Image

from rtdetr_lab.data.shapes import VAL, ShapesConfig, draw
from rtdetr_lab.detector import Detector
from rtdetr_lab.errors import HubError

pytest.importorskip("onnxscript", reason="torch's exporter needs it; runs with the extra [export]")
SCENE = ROOT / "docs" / "img" / "scene.png"
FOUND = """() => {
  const { boxes, scores, labels } = document.querySelector("main").arrays;
  const last = boxes.shape[0] - 1;
  return [...Array(boxes.shape[1]).keys()].map((q) =>
    [...boxes.row(last, q), scores.at(last, q), labels.at(last, q)]);
}"""
DROP = """([bytes, name]) => {
  const data = new DataTransfer();
  data.items.add(new File([Uint8Array.from(bytes)], name));
  document.querySelector("main .pg").dispatchEvent(
    new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
}"""


@pytest.fixture(scope="module")
def detector():
    return Detector.from_pretrained("nano", device="cpu")


@pytest.fixture(scope="module")
def home(detector, tmp_path_factory):
    from rtdetr_lab.commands.explore import explore, live
    from rtdetr_lab.deployment.web_runtime import web_runtime
    from rtdetr_lab.viz.live_page import write_live

    try:
        runtime = web_runtime()
    except HubError as error:
        pytest.skip(f"runs where onnxruntime-web can be had: {error}")
    folder = tmp_path_factory.mktemp("live")
    write_live(explore(detector, SCENE), live(detector, runtime, scene=0), folder)
    with served(folder) as address:
        yield address


def opened(browser, home, width=1240, scheme="light", **more):
    size = {"width": width, "height": 900}
    visit = Visit(browser.new_context(viewport=size, color_scheme=scheme, **more).new_page(), home)
    visit.go("index.html")
    visit.page.get_by_role("button", name="play the layers").wait_for()
    return visit


@pytest.fixture(scope="module")
def window(browser, home):
    """A window in which the model has answered to the first scene."""
    visit = opened(browser, home)
    visit.page.get_by_role("button", name="reset the model").click()
    answered(visit.page, 0)
    yield visit
    assert visit.complaints == []
    visit.page.context.close()


@pytest.fixture
def page(window):
    """The window, with the model mended after the test."""
    yield window.page
    before = answers(window.page)
    window.page.get_by_role("button", name="reset the model").click()
    answered(window.page, before)


def answers(page):
    return int(page.locator("main").get_attribute("data-answers") or 0)


def answered(page, before):
    """Wait until there is an answer after the first `before`, and no other is on its way."""
    idle = f"main[data-answers][aria-busy=false]:not([data-answers='{before}'])"
    page.locator(idle).wait_for()


def doing(page, act):
    before = answers(page)
    act()
    answered(page, before)
    return torch.tensor(page.evaluate(FOUND))


def spot(page, x, y):
    """Place in the window of a fraction of the picture."""
    box = page.locator("canvas[role=application]").bounding_box()
    edge = 0.06 / 1.12 * box["width"]
    inner = box["width"] - 2 * edge
    return box["x"] + edge + x * inner, box["y"] + edge + y * inner


def drag(page, start, end):
    page.mouse.move(*spot(page, *start))
    page.mouse.down()
    page.mouse.move(*spot(page, *end), steps=4)
    page.mouse.up()


def told(page):
    return page.locator(".pg-status").inner_text()


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def in_python(detector, pixels, **options):
    image = detector.preprocess(pixels)[None]
    with torch.no_grad():
        found = detector.model(image)
    scores, labels = found.logits[0].sigmoid().max(-1)
    return torch.cat([found.boxes[0], scores[:, None], labels[:, None].float()], dim=1)


def confident(rows, threshold=0.3):
    kept = rows[rows[:, 4] > threshold]
    return kept[(kept[:, 0] * 1e3).round().argsort(stable=True)]


def same_detections(found, wanted):
    found, wanted = confident(found), confident(wanted)
    assert len(found) == len(wanted) > 0
    assert ((found[:, :4] - wanted[:, :4]).abs() * 256).max() <= 0.5
    assert (found[:, 4] - wanted[:, 4]).abs().max() <= 1e-3
    assert torch.equal(found[:, 5], wanted[:, 5])


def test_the_stored_answer_is_that_of_the_scene_the_page_draws(page, detector):
    found = doing(page, lambda: page.get_by_role("button", name="reset the model").click())
    wanted = in_python(detector, np.asarray(Image.open(SCENE).convert("RGB")))
    found, wanted = confident(found, 0.5), confident(wanted, 0.5)
    assert torch.equal(found[:, 5], wanted[:, 5])
    assert (found[:, :5] - wanted[:, :5]).abs().max() < 0.02  # browsers smooth edges in their ways


def test_twenty_pictures_are_found_as_in_python(page, detector):
    times = []
    for index in range(20):
        pixels = draw(ShapesConfig(size=256), VAL, index).image
        file = {"name": "scene.png", "mimeType": "image/png", "buffer": png(pixels)}
        found = doing(page, partial(page.locator("input[type=file]").set_input_files, file))
        same_detections(found, in_python(detector, pixels))
        times.append(float(re.search(r"(\d+) ms", told(page))[1]))
    print(f"median {statistics.median(times):.0f} ms a picture in the browser")
    doing(page, page.get_by_role("button", name="another scene").click)


def test_what_is_drawn_is_found_and_followed(page):
    doing(page, page.get_by_role("button", name="another scene").click)
    for _ in range(6):
        doing(page, page.get_by_role("button", name="delete").click)
    page.get_by_role("button", name="draw: star").click()
    found = doing(page, lambda: drag(page, (0.4, 0.4), (0.4, 0.2)))
    page.get_by_role("button", name="draw: star").click()  # put it down
    (star,) = confident(found, 0.5)
    assert (star[:2] - torch.tensor([0.4, 0.4])).abs().max() < 0.03
    assert "star" in page.locator(".xp-title").inner_text()
    found = doing(page, lambda: drag(page, (0.4, 0.4), (0.65, 0.6)))
    (star,) = confident(found, 0.5)
    assert (star[:2] - torch.tensor([0.65, 0.6])).abs().max() < 0.03
    shown = page.evaluate("() => document.querySelector('canvas[role=application]').drawn.box")
    assert abs(shown[0] - 0.65) < 0.03, "the explorer follows the object"
    doing(page, page.get_by_role("button", name="another scene").click)


SWITCHES = ["cut the decoder's self-attention", "switch positions off", "select tokens at random"]


def test_every_switch_changes_the_answer_and_is_mended(page):
    rest = doing(page, page.get_by_role("button", name="reset the model").click)
    ignored = [f"ignore level {name}" for name in ("O3", "O4", "O5")]
    for name in [*SWITCHES, *ignored]:
        switch = page.get_by_role("checkbox", name=name)
        assert (doing(page, switch.check) - rest).abs().max() > 1e-3, name
        if name == SWITCHES[0]:
            assert "duplicates" in told(page)
        whole = "the weights sum to 1" in page.locator(".xp-readout").inner_text()
        assert whole == (name not in ignored)
        assert torch.equal(doing(page, switch.uncheck), rest)
    queries = page.get_by_role("slider", name="queries", exact=True)
    assert len(doing(page, lambda: queries.press("PageDown"))) < 100
    layers = page.get_by_role("slider", name="decoder layers")
    doing(page, lambda: layers.press("ArrowLeft"))
    assert page.get_by_role("row", name="layer 2").count() == 0
    page.get_by_role("row", name="layer 1").wait_for()


def test_the_keyboard_is_enough(page):
    doing(page, page.get_by_role("button", name="another scene").click)
    canvas = page.locator("canvas[role=application]")
    canvas.focus()
    rest = torch.tensor(page.evaluate(FOUND))
    doing(page, lambda: page.keyboard.press("Enter"))
    moved = doing(page, lambda: page.keyboard.press("Shift+ArrowLeft"))
    assert (moved - rest).abs().max() > 1e-3
    back = doing(page, lambda: page.keyboard.press("Delete"))
    assert torch.equal(back, rest)
    query = page.locator("[data-query]")
    before = query.get_attribute("data-query")
    page.keyboard.press("ArrowRight")
    assert query.get_attribute("data-query") != before
    page.keyboard.press("p")
    page.locator("tr[aria-current=true]", has_text="layer 0").wait_for()
    page.locator("tr[aria-current=true]", has_text="layer 2").wait_for()


def test_a_file_that_is_no_picture_or_too_large_gets_a_sentence(page):
    before = answers(page)
    page.evaluate(DROP, [list(b"\x89PNG\r\n\x1a\n no picture"), "torn.png"])
    page.get_by_text("torn.png is not a picture that this browser can read.").wait_for()
    huge = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(huge, "PNG")
    page.evaluate(DROP, [list(huge.getvalue()), "huge.png"])
    page.get_by_text("huge.png has 10000 × 10000 pixels.").wait_for()
    assert answers(page) == before
    small = png(draw(ShapesConfig(size=256), VAL, 3).image)
    doing(page, lambda: page.evaluate(DROP, [list(small), "small.png"]))
    doing(page, page.get_by_role("button", name="another scene").click)


def test_without_its_runtime_the_page_says_so_and_stays_usable(browser, home):
    visit = opened(browser, home)
    tab = visit.page
    tab.route("**/runtime.bin", lambda route: route.fulfill(status=404))
    tab.get_by_role("button", name="reset the model").click()
    tab.get_by_text("The model does not run here").wait_for()
    said = tab.locator(".xp-readout").inner_text()
    tab.locator("canvas[role=application]").press("ArrowRight")
    assert tab.locator(".xp-readout").inner_text() != said
    tab.unroute("**/runtime.bin")
    doing(tab, tab.get_by_role("button", name="try again").click)
    tab.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_it_fits_and_a_finger_finds_it(browser, home, scheme):
    visit = opened(browser, home, 390, scheme, has_touch=True)
    tab = visit.page
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    small = "e => [...e].filter(n => n.getBoundingClientRect().height < 43.5).map(n => n.outerHTML)"
    touched = "button, .pg-file, .xp-line input, .xp-switches label, .pg-break label, tbody tr"
    assert tab.locator(touched).evaluate_all(small) == []
    back = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", back)[:3])) > 380) == (scheme == "light")
    picture = tab.locator("canvas[role=application]").bounding_box()
    readout = tab.locator(".xp-readout").bounding_box()
    assert readout["y"] - picture["y"] - picture["height"] < 30, "the words are beside the picture"
    tab.touchscreen.tap(*spot(tab, 0.7, 0.25))
    assert "star" in tab.locator(".xp-title").inner_text()
    assert visit.complaints == []
    tab.context.close()


def test_a_click_beside_every_object_says_why(page):
    for _ in range(6):
        doing(page, page.get_by_role("button", name="delete").click)
    page.mouse.click(*spot(page, 0.5, 0.5))
    said = page.locator(".xp-readout").inner_text()
    assert re.search(r"No detection here\. The nearest query is \d+: .* score of 0\.[0-4]", said)
    assert re.search(r"The score of its token was number \d+ of 1344", said)
    doing(page, page.get_by_role("button", name="another scene").click)
