"""What the README says is true: its links, its make targets, its commands, its twelve lines."""

import re
import runpy
from pathlib import Path

import pytest
from paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def make_targets() -> set[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf8")
    return set(re.search(r"^\.PHONY: (.*)$", text, re.M).group(1).split())


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_link_to_a_file_leads_somewhere(page):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_make_target_that_is_named_exists(page):
    text = page.read_text(encoding="utf8")
    named = set(re.findall(r"(?:^|`)make ([a-z][a-z-]*)", text, re.M))
    assert named <= make_targets()


def test_the_two_commands_are_there():
    assert {"demo", "test"} <= set(re.findall(r"^make ([a-z-]+)", README, re.M))


def test_without_make_does_what_make_does():
    makefile = (ROOT / "Makefile").read_text(encoding="utf8").replace("$(BIN)", ".venv/bin")
    for line in re.findall(r"^\.venv/bin/pip install (.*)$", README, re.M):
        extras = line.split("-e ")[-1]
        assert f"{extras}\n" in makefile or line.endswith("torch"), line


def quickstart() -> str:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    return code


def test_the_quickstart_has_twelve_lines():
    assert len(quickstart().strip().splitlines()) <= 12


def test_the_quickstart_runs(tmp_path, monkeypatch):
    """As printed, but for the weights: a folder with random ones stands in for the hub."""
    import rtdetr_lab as lab

    if not {"Detector", "save_pretrained", "rtdetr_nano"} <= set(dir(lab)):
        pytest.skip("waits for the front door (detector.py) and checkpoints/")
    from PIL import Image
    from skimage import data

    monkeypatch.chdir(tmp_path)
    Image.fromarray(data.chelsea()).save("picture.png")
    lab.save_pretrained(lab.rtdetr_nano(num_classes=3).build().eval(), "stand-in")

    Path("quickstart.py").write_text(quickstart().replace('"r18"', '"stand-in"'), encoding="utf8")
    names = runpy.run_path("quickstart.py")
    assert names["found"].boxes_xyxy.shape[-1] == 4
    assert names["prediction"].boxes.shape == (1, 300, 4)
    assert any(tap.startswith("decoder.") for tap in names["seen"])
    assert Path("out/model.safetensors").is_file()
