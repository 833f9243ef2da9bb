"""A live page loads the files of its folder, and its policy lets it reach nothing else."""

import gzip
import json
import re

import numpy as np
import pytest

from rtdetr_lab.viz.exploration import Exploration
from rtdetr_lab.viz.live_page import Live, write_live


@pytest.fixture
def folder(tmp_path):
    explored = Exploration({"kept": np.arange(3)}, {"title": "a scene", "image": "data:,"})
    live = Live(
        model=b"graph" * 99, runtime={"ort.mjs": b"script", "ort.wasm": b"code"}, input=(96, 64)
    )
    assert write_live(explored, live, tmp_path / "page") == tmp_path / "page" / "index.html"
    return tmp_path / "page"


def test_the_folder_is_complete_and_compressed(folder):
    assert gzip.decompress((folder / "model.bin").read_bytes()) == b"graph" * 99
    assert gzip.decompress((folder / "runtime.bin").read_bytes()) == b"code"
    text = (folder / "index.html").read_text("utf8")
    live = json.loads(re.search(r'id="meta">(.*?)</script>', text, re.S).group(1))["live"]
    named = {file["name"]: file["bytes"] for file in live["files"].values()}
    assert named == {n: (folder / n).stat().st_size for n in named}
    assert {"index.html", *named} == {path.name for path in folder.iterdir()}
    assert live["input"] == [96, 64]


def test_the_policy_allows_its_own_folder_and_no_other_address(folder):
    text = (folder / "index.html").read_text("utf8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text).group(1)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["connect-src"] == rules["worker-src"] == "'self'"
    assert rules["img-src"] == "data: blob:"
    scripts = text + (folder / "live_worker.js").read_text("utf8")
    assert not re.search(r"https?://(?!127\.0\.0\.1)|innerHTML|\beval\(", scripts)
