"""A report as a page: Markdown, and HTML in which only what we wrote is markup."""

from dataclasses import replace

from rtdetr_lab.ablations.page import html_of
from rtdetr_lab.ablations.shipped import shipped


def saying(hypothesis):
    """The report of a shipped study with another reason for every row."""
    report = shipped("selection")
    rows = [{**row, "hypothesis": hypothesis} for row in report.plan["variants"]]
    return replace(report, plan={**report.plan, "variants": rows})


def test_a_reason_of_two_lines_stays_in_its_cell():
    lines = saying("better,\nI think | hope").markdown.splitlines()
    rows = [line for line in lines if "better, I think \\| hope" in line]
    assert len(rows) == len(shipped("selection").plan["variants"])
    assert all(row.startswith("| ") and row.endswith(" |") for row in rows)


def test_html_shows_what_a_reader_wrote_as_text_and_pictures_lie_inside():
    page = html_of(saying("<script>alert(1)</script>"), {"Bars": b"\x89PNG"})
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert '<img src="data:image/png;base64,iVBORw==" alt="Bars"' in page
    assert page.count("<table>") == 2
