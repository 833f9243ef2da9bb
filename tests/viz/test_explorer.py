"""The explorer shows what was recorded, and nothing in it can run but its own script."""

import base64
import hashlib
import json
import re

import numpy as np
import pytest
import torch
from families import built

from rtdetr_lab.commands.explore import TAPS, explore
from rtdetr_lab.data.shapes import DEFAULT, VAL, draw
from rtdetr_lab.detector import Detector
from rtdetr_lab.errors import ConfigError, RecordError
from rtdetr_lab.taps import record
from rtdetr_lab.viz.exploration import data_uri, exploration
from rtdetr_lab.viz.explorer import Explorer, frame
from rtdetr_lab.viz.explorer_page import SCRIPT, page

HOSTILE = '</script><script>alert(1)</script><img src=x onerror="alert(2)">\x1b[31m'


@pytest.fixture(scope="module")
def detector():
    return Detector.from_pretrained("nano", device="cpu")


@pytest.fixture(scope="module")
def picture():
    return draw(DEFAULT, VAL, 0).image


@pytest.fixture(scope="module")
def explored(detector, picture):
    return explore(detector, picture, most=12)


@pytest.fixture(scope="module")
def seen(detector, picture):
    with torch.no_grad(), record(detector.model, keep=TAPS) as seen:
        prediction = detector.model(detector.preprocess(picture)[None])
    return prediction, dict(seen)


def unpacked(payload):
    """The arrays as the page reads them: by their place in the bytes."""
    meta, data = payload
    found = {}
    for name, entry in meta["layout"].items():
        count = int(np.prod(entry["shape"]))
        flat = np.frombuffer(data, "<" + entry["kind"], count, entry["at"])
        found[name] = flat.reshape(entry["shape"])
    return found


def test_the_page_holds_what_the_taps_saw(explored, seen):
    prediction, taps = seen
    arrays = unpacked(explored.payload)
    kept = arrays["kept"].tolist()
    best = prediction.logits[0].sigmoid().amax(-1).argsort(descending=True)[:12]
    assert kept == best.tolist()
    for layer in range(3):
        where = f"decoder.layers.{layer}"
        for name in ("locations", "weights"):
            recorded = taps[f"{where}.cross_attn.{name}"][0, kept].numpy()
            np.testing.assert_allclose(arrays[name][layer], recorded, atol=1e-6)
        attention = taps[f"{where}.self_attn.weights"][0]
        attention = torch.cat([attention, attention.mean(0, keepdim=True)])
        for head in range(7):  # the last is the mean of six
            for k in (0, 11):
                others = arrays["listens"][layer, k, head]
                told = attention[head, kept[k]][torch.from_numpy(others.copy()).long()]
                np.testing.assert_allclose(arrays["hears"][layer, k, head], told, atol=1e-6)
                assert told[0] == attention[head, kept[k]].max()
        boxes = taps[f"decoder.boxes.{layer}"][0].numpy()
        np.testing.assert_allclose(arrays["boxes"][layer + 1], boxes, atol=1e-6)
    np.testing.assert_allclose(arrays["weights"].sum(-1), 1, atol=1e-5)


def test_the_life_ends_in_the_detection_and_begins_in_its_cell(explored, seen, detector, picture):
    prediction, _ = seen
    arrays = unpacked(explored.payload)
    found = detector(picture, threshold=0.5)
    by_query = dict(zip(arrays["kept"].tolist(), range(12), strict=True))
    for one in list(found)[:5]:
        assert one.query in by_query
        assert arrays["scores"][-1, one.query] == pytest.approx(one.score, abs=1e-6)
        assert arrays["labels"][-1, one.query] == one.label
        cx, cy, w, h = arrays["boxes"][-1, one.query] * np.tile(picture.shape[1::-1], 2)
        corners = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]
        np.testing.assert_allclose(corners, one.box_xyxy, atol=1e-3)
    meta = explored.meta
    assert meta["num_tokens"] == sum(h * w for h, w in meta["shapes"])
    starts = np.cumsum([0] + [h * w for h, w in meta["shapes"]])
    for token, (level, row, column) in zip(arrays["tokens"], arrays["cells"], strict=True):
        assert token == starts[level] + row * meta["shapes"][level][1] + column
    assert arrays["tokens"].tolist() == prediction.proposals.index[0].tolist()


def test_a_record_of_another_run_is_refused(seen, picture, detector):
    prediction, taps = seen
    other = {**taps, "decoder.boxes.1": taps["decoder.boxes.1"] + 1e-3}
    args = (picture, detector.classes.names, (4, 4, 4), [(32, 32), (16, 16), (8, 8)])
    with pytest.raises(RecordError, match=r"decoder\.boxes\.1"):
        exploration(prediction, other, *args)


def test_hostile_names_are_words_and_nothing_else(seen, picture):
    prediction, taps = seen
    names = [HOSTILE] + [f"class {i}" for i in range(1, prediction.logits.shape[-1])]
    shapes = [(32, 32), (16, 16), (8, 8)]
    made = exploration(prediction, taps, picture, names, (4, 4, 4), shapes, most=3, title=HOSTILE)
    text = page(made)
    assert text.count("<script") == 3
    assert text.count("</script>") == 3
    assert "<img" not in text
    assert "\x1b" not in text
    meta = json.loads(re.search(r'id="meta">(.*?)</script>', text, re.S).group(1))
    assert meta["names"][0].startswith("</script>")  # whole, for textContent to show
    inside = frame(made)
    assert inside.count("<iframe") == 1
    assert "<script" not in inside
    assert 'sandbox="allow-scripts"' in inside


def test_the_policy_allows_this_script_and_no_network(explored):
    text = page(explored)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text).group(1)
    script = re.search(r'<script type="module">(.*?)</script>', text, re.S).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy
    assert not re.search(r"https?:|//[a-z0-9.-]+\.[a-z]{2,}", policy + SCRIPT.read_text("utf8"))
    assert "innerHTML" not in script
    assert "eval" not in script.replace("level", "")


def test_the_widget_keeps_to_the_queries_it_has(explored):
    widget = Explorer(explored)
    assert widget.meta["layout"]["kept"]["shape"] == [12]
    assert (
        unpacked((widget.meta, widget.data))["kept"].tolist()
        == unpacked(explored.payload)["kept"].tolist()
    )
    widget.query = 11
    with pytest.raises(Exception, match="12"):
        widget.query = 12
    data, _ = widget._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert len(str(data)) < 1000  # a notebook keeps the view, not a page


def test_rectangles_and_files_are_explored_too(detector, tmp_path):
    from PIL import Image

    wide = draw(DEFAULT, VAL, 1).image[:160, :233]
    path = tmp_path / "a<b>.png"
    Image.fromarray(wide).save(path)
    made = explore(detector, path, most=5)
    assert made.meta["size"] == [160, 233]
    assert made.meta["title"] == "a<b>.png"
    assert made.num_queries == 5


@pytest.mark.parametrize("family", ["rtdetr_hgnet", "rtdetr_dfine"])
def test_what_came_after_rtdetr_is_explored_under_the_same_names(family):
    other = Detector(built(family, torch.float32), size=(96, 64))
    image = np.random.default_rng(0).integers(0, 256, (96, 64, 3), dtype=np.uint8)
    arrays = unpacked(explore(other, image, most=4).payload)
    with torch.no_grad(), record(other.model, keep=TAPS) as taps:
        other.model(other.preprocess(image)[None])
    for layer in range(3):
        locations = taps[f"decoder.layers.{layer}.cross_attn.locations"][0, arrays["kept"].tolist()]
        np.testing.assert_allclose(arrays["locations"][layer], locations, atol=1e-6)
        boxes = taps[f"decoder.boxes.{layer}"][0]
        np.testing.assert_allclose(arrays["boxes"][layer + 1], boxes, atol=1e-6)


def test_large_pictures_are_made_smaller_for_the_page_only():
    uri = data_uri(np.zeros((50, 1800, 3), np.uint8))
    assert uri.startswith("data:image/webp;base64,")
    assert len(uri) < 2000


def test_what_cannot_be_explored_says_why(picture):
    from rtdetr_lab.detr.model import detr_nano

    detr = Detector(detr_nano(num_classes=3).build().eval(), size=(64, 64))
    with pytest.raises(ConfigError, match="sampling points"):
        explore(detr, picture)


def test_the_command_writes_the_page(tmp_path, capsys):
    from rtdetr_lab.cli import main

    out = tmp_path / "deep" / "page.html"
    assert main(["explore", "--queries", "4", "--out", str(out)]) == 0
    assert out.read_text("utf8").startswith("<!doctype html>")
    assert "open it in a browser" in capsys.readouterr().out
    assert main(["explore", str(tmp_path / "none.png"), "--out", str(out)]) == 1
