"""A report as a page: Markdown, and HTML in which only what we wrote is markup."""

import re
from dataclasses import replace

from rtdetr_lab.ablations.page import html_of, latex_of
from rtdetr_lab.ablations.shipped import shipped
from rtdetr_lab.ablations.statistics import holm


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


def learning(ap, other):
    """The report of a shipped study in which the reference has one AP, and its variants another."""
    report = shipped("selection")
    reference, lines = report.plan["reference"], []
    for line in report.lines:
        if line["kind"] == "row":
            scores = {"AP": ap if line["variant"] == reference else other}
            line = {**line, "scores": {"": {**line["scores"][""], **scores}}}
        lines.append(line)
    return replace(report, lines=tuple(lines))


def test_where_nothing_was_learned_there_is_no_verdict():
    for entry in learning(0.004, 0.0001).entries:
        assert entry.verdict == "no verdict: nothing learned yet (AP below 1)"
        assert entry.difference is entry.p_value is None
    assert "There is nothing to compare yet." in learning(0.004, 0.0001).markdown
    for report in (learning(0.004, 0.2), learning(0.2, 0.004)):
        compared = [
            e.verdict for e in report.entries if e.variant["name"] != report.plan["reference"]
        ]
        assert compared
        assert not any("no verdict" in said for said in compared), "one side has learned"


def test_p_values_are_adjusted_for_all_rows_of_the_table():
    entries = [e for e in shipped("decoder-depth").entries if e.difference]
    alone = [e.difference.p_value for e in entries]
    assert len(alone) == 4
    assert [e.p_value for e in entries] == holm(alone) != alone
    assert f"| {entries[0].p_value:.3f} |" in shipped("decoder-depth").markdown


def test_the_table_for_latex_has_every_cell_and_no_open_special_character():
    text = latex_of(saying("never in the table"))
    assert text.startswith(r"\begin{tabular}{l")
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len({row.replace(r"\&", "").count("&") for row in rows}) == 1
    assert len(rows) == 1 + len(shipped("selection").entries)
    assert r"Prop\_both" in rows[0]
    assert r"$\pm$" in rows[1]
    assert not re.search(r"(?<!\\)[_%#]", text)
