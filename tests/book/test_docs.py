"""The pages of names speak of modules that exist, in ours and in both references."""

import re

import pytest
import torch
from paths import ROOT


def column(index: int) -> list[str]:
    """Full module names in a column of docs/names.md, as patterns: `{…}` stands for a number."""
    page = (ROOT / "docs/names.md").read_text(encoding="utf8")
    table = page.split("## Modules in a state dict")[1].split("## Outputs")[0]
    cells = [row.split("|")[index] for row in table.splitlines() if row.startswith("| `")]
    names = [name for cell in cells for name in re.findall(r"`([a-z][^`]*\.[^`]*)`", cell)]
    return [re.sub(r"\\\{[^}]*\}", r"[0-9a-c_]+", re.escape(name)) for name in names]


def missing(patterns: list[str], keys: list[str]) -> list[str]:
    return [p for p in patterns if not any(re.match(rf"{p}[._]", key) for key in keys)]


def test_our_names():
    rtdetr = pytest.importorskip("rtdetr_lab.rtdetr")
    with torch.device("meta"):
        keys = list(rtdetr.rtdetr_r50().build().state_dict())
    assert len(column(1)) > 15
    assert missing(column(1), keys) == []


def test_the_authors_names(shared):
    keys = shared("reference/keys_rtdetr_r50.txt").read_text(encoding="utf8").splitlines()
    assert len(column(2)) > 15
    assert missing(column(2), keys) == []


def test_the_names_in_transformers():
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        model = transformers.RTDetrForObjectDetection(transformers.RTDetrConfig())
    assert len(column(3)) > 15
    assert missing(column(3), list(model.state_dict())) == []


def test_a_name_that_is_nowhere_is_noticed():
    assert missing([r"decoder\.layers\.[0-9]+\.wrong"], ["decoder.layers.0.norm1.weight"])


def test_the_page_of_taps_lists_what_the_model_taps():
    from rtdetr_lab.rtdetr import rtdetr_nano
    from rtdetr_lab.taps import inventory

    model = rtdetr_nano(3).build().eval()
    hit = inventory(model, torch.rand(1, 3, 128, 128))
    names = {re.sub(r"\.\d+(?=\.|$)", ".<i>", name): len(shape) for name, shape in hit}
    rows = re.findall(r"^\| (.*?) \| `(.*?)` \|", (ROOT / "docs/taps.md").read_text(), re.M)
    listed = {
        name: len(shape.split()) for cell, shape in rows for name in re.findall(r"`(.*?)`", cell)
    }
    assert listed == names
