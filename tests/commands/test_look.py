"""A page shows what lies in a data set: each label where it is, each fault at its picture."""

import json
import re

import numpy as np
import pytest
from damaged_data import at, box, on_disk, save, sound, truncate
from odd_names import ODD, Page

from rtdetr_lab.cli import main
from rtdetr_lab.writing import printable

ELEMENTS = {"html", "head", "meta", "title", "link", "style", "body", "h1", "h2", "nav", "a", "b"}
ELEMENTS |= {"p", "ul", "li", "details", "summary", "span", "div", "dl", "dt", "dd", "i", "img"}
ELEMENTS |= {"figure", "figcaption"}


@pytest.fixture
def look(tmp_path):
    """Write a data set with these faults, and its page; returns the page."""

    def write(*faults, options=()):
        folder, tree = tmp_path / "set", sound()
        for entry in tree["images"]:
            save(folder / "images" / entry["file_name"], (entry["height"], entry["width"]), 1)
        for fault in faults:
            fault(tree, folder)
        (folder / "train.json").write_text(json.dumps(tree))
        out = tmp_path / "deep" / "page.html"
        assert main(["data", "look", str(folder), "--out", str(out), *options]) == 0
        return out.read_text(encoding="utf8")

    return write


def figures(page):
    """Figure by anchor, in the order of the page."""
    return dict(re.findall(r'<figure id="([^"]+)">(.*?)</figure>', page, re.S))


def boxes(figure):
    """Left, top, width and height in percent, and the name, of every box."""
    side = r"(-?[\d.]+)%"
    style = rf"left:{side};top:{side};border-color:#\w+;width:{side};height:{side}"
    found = re.findall(rf'<i style="{style}" title="([^"]*)">', figure)
    return sorted((*map(float, numbers), name) for *numbers, name in found)


def test_boxes_lie_on_the_picture_where_they_were_drawn(look):
    shown = figures(look())
    first = boxes(shown["train-1"])  # 30 px high, 40 wide
    assert first == [(5, 10, 20, 30, "cell"), (27.5, 10, 20, 30, "platelet")]
    assert boxes(shown["train-2"])[0] == (4, 15, 16, 45, "cell")  # 20 px high, 50 wide
    assert "40 × 30 · 2 boxes" in shown["train-1"]


def test_the_batch_is_that_of_a_run(look):
    plain = figures(look(options=["--size", "64x96"]))
    assert sum(anchor.startswith("batch-") for anchor in plain) == 8
    stored = {tuple(boxes(plain[f"train-{i}"])) for i in (1, 2, 3)}
    mirrored = {
        tuple(sorted((round(100 - x - w, 3), y, w, h, name) for x, y, w, h, name in rows))
        for rows in stored
    }
    batch = {tuple(boxes(plain[f"batch-{i}"])) for i in range(8)}
    near = [np.round([row[:4] for row in rows], 1).tolist() for rows in stored | mirrored]
    assert all(np.round([row[:4] for row in rows], 1).tolist() in near for rows in batch)
    assert batch - stored, "some are mirrored"
    assert "96 × 64 · 2 boxes" in plain["batch-0"]
    strong = look(options=["--size", "64", "--augment", "paper"])
    assert "--augment paper" in strong
    still = look(options=["--size", "64", "--augment", "light", "--no-flip"])
    assert "--augment light --no-flip: 64 × 64 px" in still
    turned = look(options=["--augment", "none", "--turn", "--size", "64"])
    assert "--augment none --turn: 64 × 64 px" in turned
    assert {tuple(boxes(figures(turned)[f"batch-{i}"])) for i in range(8)} != batch
    assert {tuple(boxes(figures(strong)[f"batch-{i}"])) for i in range(8)} != batch


def test_a_finding_stands_at_the_picture_that_causes_it_and_comes_first(look):
    page = look(box(20, 3, -8, 9))  # annotation 3, the second of picture 1
    shown = figures(page)
    lines = [anchor for anchor, figure in shown.items() if "box with a negative side" in figure]
    assert lines == ["train-1"]
    assert len(boxes(shown["train-1"])) == 1, "it is not drawn, because training leaves it out"
    assert '<a href="#train-1">picture 1</a>' in page
    page = look(lambda tree, where: at(tree, "annotations", 7).update(bbox=[30, 3, 12, 9]))
    pictures = [anchor for anchor in figures(page) if anchor.startswith("train-")]
    assert pictures == ["train-3", "train-1", "train-2"], "a box over the edge, on the third"


def test_a_picture_that_cannot_be_read_has_its_place_and_no_batch_is_drawn(look):
    page = look(on_disk(truncate))
    assert "picture that cannot be decoded" in figures(page)["train-2"]
    assert "<img" not in figures(page)["train-2"]
    assert re.search(r"<p>No batch can be made: .*2\.png", page)


def test_counts_are_bars_of_their_length(look):
    page = look(lambda tree, where: at(tree, "annotations", 3).update(category_id=1))
    (cell, platelet) = re.findall(r"width:([\d.]+)%;background:#\w+\"></i>(\d+)</dd>", page)
    assert cell == ("70.00", "4")
    assert platelet == ("35.00", "2")
    sizes = re.findall(r"<dt>(≤ \d+|&gt; 512)</dt><dd>.*?</i>(\d+)</dd>", page)
    assert sizes[:2] == [("≤ 8", "0"), ("≤ 16", "6")]


def test_only_a_part_is_shown_of_many_pictures(look):
    shown = [a for a in figures(look(options=["--count", "2"])) if a.startswith("train-")]
    assert shown == ["train-1", "train-2"]
    with pytest.raises(AssertionError):
        look(options=["--count", "0"])


def test_names_are_text_and_the_page_loads_nothing(look):
    def rename(tree, where):
        tree["categories"] = [{"id": i, "name": name} for i, name in enumerate(ODD, 1)]
        for annotation, category in zip(tree["annotations"], (10, 4, 1, 7, 9, 2), strict=True):
            annotation["category_id"] = category
        old, new = where / "images/1.png", '"><img src=x onerror=alert(1)>.png'
        old.rename(old.with_name(new))
        at(tree, "images", 1)["file_name"] = new

    html = look(rename)
    page = Page(html)
    assert page.tags <= ELEMENTS
    assert page.wrong == []
    assert set(re.findall(r'(?:src|href)="([^"#]{5})', html)) == {"data:"}
    assert "default-src 'none'" in html
    for name in ODD:
        assert printable(name) in page.text
    assert all(c.isprintable() or c == "\n" for c in html)
    anchors = set(re.findall(r'href="#([^"]+)"', html))
    assert anchors <= set(re.findall(r'id="([^"]+)"', html))
