"""The page "the line": its tables count what the chapters build, and all of it is drawn."""

import re

import pytest
import torch
from paths import ROOT

import rtdetr_lab as lab
from rtdetr_lab.notebook import num_parameters

PAGE = (ROOT / "docs/line.md").read_text(encoding="utf8")
PRESETS = {("RT-DETR", name): f"rtdetr_{name.lower().replace('-', '_')}" for name in
           ("R18", "R34", "R50-m", "L", "R50", "R101", "X")}  # fmt: skip
PRESETS |= {("D-FINE", name): f"dfine_{name.lower()}" for name in "NSMLX"}


@pytest.fixture
def line(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs/hooks"))
    import line as module

    return module


def table(line):
    return [row for row in line.rows(PAGE.split("## The numbers")[1]) if len(row) == 7]


@pytest.mark.parametrize("model", PRESETS, ids=" ".join)
def test_its_parameters_are_those_of_the_preset(line, model):
    (millions,) = [row[2] for row in table(line) if tuple(row[:2]) == model]
    with torch.device("meta"):
        made = getattr(lab, PRESETS[model])().build()
    assert f"{num_parameters(made) / 1e6:.1f}" == millions


def test_what_changes_nothing_at_inference_keeps_size_and_speed_of_its_base(line):
    of = {tuple(row[:2]): row for row in table(line)}
    for (family, name), row in of.items():
        backbone = re.sub(r".*\((.*)\)", r"\1", name)
        base = "D-FINE" if "D-FINE" in family else "RT-DETR"
        if backbone != name or family != base:
            *_, params, gflops, _, _, ms = of[base, backbone]
            assert (row[2], row[3], row[6]) == (params, gflops, ms)


def test_every_number_has_a_mark_at_its_place(line):
    drawn = line.chart(table(line))
    families = {row[0] for row in table(line)}
    assert drawn.count('class="mark"') == len(table(line)) + len(families)
    for family, model, _, _, ap, _, ms in table(line):
        x, y = line.place(float(ms), float(ap))
        head = drawn.split(f"<title>{family} {model}: ")[0]
        assert f"translate({x},{y})" in head[head.rindex("<g") :]
    assert line.place(3.0, 50.0)[0] < line.place(9.0, 50.0)[0]
    assert line.place(3.0, 55.0)[1] < line.place(3.0, 50.0)[1], "up is better"


def test_every_model_of_the_timeline_leads_to_its_chapters(line):
    dates = line.rows(PAGE.split("<!-- line: timeline -->")[1].split("Models in italics")[0])
    assert [row[0] for row in dates] == sorted(row[0] for row in dates)
    chapters = [name for row in dates for name in re.findall(r"[a-z][\w/]+", row[5])]
    missing = [n for n in chapters if not (ROOT / f"rtdetr_lab/{n}.py").is_file()]
    assert missing == []
    listed = line.timeline(dates, chapters)
    assert listed.count("<li") == len(dates)
    assert all(f"](chapters/{name}.md)" in listed for name in chapters)


def test_a_page_without_the_marks_stays_as_it_is(line):
    assert line.with_line("# Another page", []) == "# Another page"
