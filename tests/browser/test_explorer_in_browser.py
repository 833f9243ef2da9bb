"""The explorer, clicked in a real browser, shows what was recorded and asks nobody for anything."""

import pytest
import torch

from rtdetr_lab.commands.explore import TAPS, explore
from rtdetr_lab.data.shapes import DEFAULT, VAL, draw
from rtdetr_lab.detector import Detector
from rtdetr_lab.taps import record

DRAWN = "() => { const d = document.querySelector('canvas').drawn; return {query: d.query, "
DRAWN += "marks: d.marks, box: d.box, links: d.links, state: d.state}; }"


@pytest.fixture(scope="module")
def detector():
    return Detector.from_pretrained("nano", device="cpu")


@pytest.fixture(scope="module")
def picture():
    return draw(DEFAULT, VAL, 0).image


@pytest.fixture(scope="module")
def address(detector, picture, tmp_path_factory):
    path = tmp_path_factory.mktemp("explorer") / "page.html"
    return explore(detector, picture, most=20).save(path).as_uri()


@pytest.fixture
def opened(tab, address):
    tab.goto(address)
    tab.wait_for_function("document.querySelector('canvas')?.drawn")
    yield tab
    assert tab.troubles == []


def click(tab, x, y):
    """Click the picture at a place given in fractions of it."""
    box = tab.locator("canvas").first.bounding_box()
    width, height = 256, 256
    edge = 0.06 / 1.12 * box["width"]
    inner = box["width"] - 2 * edge
    tab.mouse.click(box["x"] + edge + x * inner, box["y"] + edge + y * inner * height / width)
    return tab.evaluate(DRAWN)


def test_a_click_on_an_object_selects_the_query_that_found_it(opened, detector, picture):
    before = opened.locator(".xp-readout").inner_text()
    for wanted in list(detector(picture, threshold=0.5))[:3]:
        x0, y0, x1, y1 = wanted.box_xyxy
        shown = click(opened, (x0 + x1) / 512, (y0 + y1) / 512)
        w, h = shown["box"][2] * 256, shown["box"][3] * 256
        assert w * h <= (x1 - x0) * (y1 - y0) * 1.01  # itself, or a smaller one inside it
    assert opened.locator(".xp-readout").inner_text() != before


def test_what_is_drawn_is_what_the_taps_saw(opened, detector, picture):
    with torch.no_grad(), record(detector.model, keep=TAPS) as seen:
        detector.model(detector.preprocess(picture)[None])
    opened.get_by_role("slider", name="query").press("Home")
    opened.locator("canvas").first.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "h", "l"):
        opened.keyboard.press(key)
    shown = opened.evaluate(DRAWN)
    state = shown["state"]
    assert (state["query"], state["layer"], state["head"], state["level"]) == (2, 1, 0, 0)
    where = "decoder.layers.1.cross_attn"
    places = seen[f"{where}.locations"][0, shown["query"], 0, :4]
    weights = seen[f"{where}.weights"][0, shown["query"], 0, :4]
    drawn = torch.tensor([[m["x"], m["y"]] for m in shown["marks"]])
    assert len(drawn) == 4
    torch.testing.assert_close(drawn, places, atol=1e-6, rtol=0)
    drawn_weights = torch.tensor([m["weight"] for m in shown["marks"]])
    torch.testing.assert_close(drawn_weights, weights, atol=1e-6, rtol=0)
    attention = seen["decoder.layers.1.self_attn.weights"][0, 0, shown["query"]]
    for link in shown["links"]:
        assert link["weight"] == pytest.approx(attention[link["query"]].item(), abs=1e-6)


def test_a_query_has_one_number_in_slider_headline_and_data(opened):
    """The query is the model's; its place among the explored ones is named as a place."""
    slider = opened.get_by_role("slider", name="query")
    slider.press("Home")
    for place in (1, 2, 3):
        query = opened.evaluate(DRAWN)["query"]
        assert slider.get_attribute("aria-valuetext") == f"query {query}"
        said = opened.locator(".xp-readout").inner_text()
        assert f"Query {query}: after the last layer, its score is number {place} of all" in said
        slider.press("ArrowRight")


def test_sliders_switches_and_rows_change_the_picture(opened):
    def pixels():
        return opened.evaluate("() => document.querySelector('canvas').toDataURL()")

    pictures = {pixels()}
    for name in ("query", "layer", "head", "level"):
        slider = opened.get_by_role("slider", name=name)
        slider.focus()
        slider.press("ArrowLeft" if name == "layer" else "ArrowRight")
        pictures.add(pixels())
    for name in ("queries it attends to", "trail of its box", "sampling points"):
        opened.get_by_role("checkbox", name=name).click()
        pictures.add(pixels())
    opened.get_by_role("row", name="layer 0").click()
    pictures.add(pixels())
    assert len(pictures) == 9


@pytest.mark.parametrize("width", [400, 1280])
def test_it_fits_the_window(opened, width):
    opened.set_viewport_size({"width": width, "height": 800})
    opened.wait_for_function("width => document.documentElement.scrollWidth <= width", arg=width)


def test_hostile_class_names_stay_words(tab, detector, tmp_path, picture):
    names = ['<img src=x onerror="document.title=1">', "</script><script>document.title=2</script>"]
    names += [f"class {i}" for i in range(len(detector.classes) - 2)]
    hostile = Detector(detector.model, names)
    tab.goto(explore(hostile, picture, most=20).save(tmp_path / "page.html").as_uri())
    tab.wait_for_function("document.querySelector('canvas')?.drawn")
    for _ in range(19):
        tab.locator("canvas").first.press("ArrowRight")
    assert tab.locator("img, iframe").count() == 0
    assert "explorer" in tab.title()
    assert tab.troubles == []


def test_it_opens_on_a_large_object_and_not_on_the_surest(opened, detector, picture):
    shown = opened.evaluate(DRAWN)
    boxes = [found.box_xyxy for found in detector(picture)]
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes]
    assert shown["state"]["query"] > 0, "the surest is a small one here"
    assert shown["box"][2] * shown["box"][3] * 256**2 >= sorted(areas)[len(areas) // 2]


def test_it_plays_the_layers_names_what_is_under_the_pointer_and_explains_a_miss(opened):
    canvas = opened.locator("canvas").first
    pixels = "c => c.toDataURL()"
    still = canvas.evaluate(pixels)
    box = canvas.bounding_box()
    changed = set()
    for x in range(10):
        opened.mouse.move(box["x"] + (0.1 + 0.08 * x) * box["width"], box["y"] + box["height"] / 2)
        changed.add(canvas.evaluate(pixels) != still)
    assert changed == {True, False}, "a name appears over an object, and only there"
    opened.get_by_role("button", name="play the layers").click()
    for layer in ("layer 0", "layer 1", "layer 2"):
        opened.locator("tr[aria-current=true]", has_text=layer).wait_for()
    for x in range(30):
        click(opened, 0.03 * x, 0.95)
        if "No detection here." in opened.locator(".xp-readout").inner_text():
            break
    assert "a detection has 0.5 or more" in opened.locator(".xp-readout").inner_text()
