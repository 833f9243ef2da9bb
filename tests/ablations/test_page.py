"""A report as a page: Markdown, and HTML in which only what we wrote is markup."""

import json
import re
import statistics
from dataclasses import replace

import numpy as np
import pytest

from rtdetr_lab.ablations.findings import Entry
from rtdetr_lab.ablations.page import html_of, latex_of, order_sentence
from rtdetr_lab.ablations.shipped import shipped
from rtdetr_lab.ablations.statistics import holm
from rtdetr_lab.ablations.studies import TABLES


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


def test_a_score_without_such_objects_is_in_no_mean():
    rows = tuple({"scores": {"": {"APs": score}}} for score in (-1.0, 0.25, -1.0))
    assert Entry("small", {}, "", rows, None).values("APs") == [0.25]


def test_spreads_of_seeds_are_those_of_a_sample():
    report = shipped("decoder-depth")
    rows = json.loads(report.json)["rows"]
    for entry, row in zip(report.entries, rows, strict=True):
        values = entry.values("AP")
        mean, spread = statistics.mean(values), statistics.stdev(values)
        assert row["mean_sd"]["AP"] == pytest.approx([mean, spread], abs=1e-6)
        assert f"| {100 * mean:.1f} ± {100 * spread:.1f} |" in report.markdown


def test_the_latest_times_of_the_planned_runs_are_shown():
    report = shipped("decoder-depth")
    one = report.entries[0].name

    def times(median, **more):
        found = {one: {"median": median, "low": median - 1, "high": median + 2}}
        return {"kind": "latency", "milliseconds": found, **more}

    runs = report.plan["runs"]
    measured = (times(30.0, runs=runs), times(20.0), times(10.0, runs={"another": ["plan"]}))
    shown = replace(report, lines=(*report.lines, *measured)).markdown
    assert "| 20.0 (19.0–22.0) |" in shown
    assert "30.0 (" not in shown
    assert "10.0 (" not in shown


def test_seeds_are_paired_by_their_numbers():
    """The reference lacks its first seed."""
    report = shipped("decoder-depth")
    lost = {"kind": "row", "variant": report.plan["reference"], "seed": report.plan["seeds"][0]}
    lines = tuple(line for line in report.lines if not lost.items() <= line.items())
    report = replace(report, lines=lines)
    reference = next(e for e in report.entries if e.name == report.plan["reference"])
    for entry in report.entries:
        if entry.variant["name"] != reference.name:
            gaps = np.subtract(entry.values("AP")[1:], reference.values("AP"))
            assert entry.difference.mean == pytest.approx(gaps.mean())


@pytest.mark.parametrize("factor", [0.01, -0.01])
def test_pairs_in_the_order_of_the_paper_are_counted(factor):
    report = shipped("selection")
    published, lines = TABLES[report.name].published, []
    for line in report.lines:
        if line["kind"] == "row":
            scores = {**line["scores"][""], "AP": 1 + factor * published[line["variant"]]}
            line = {**line, "scores": {"": scores}}
        lines.append(line)
    said = order_sentence(replace(report, lines=tuple(lines)))
    found = re.search(r"(\d+) of (\d+) pairs are in the paper's order", said)
    assert found[1] == (found[2] if factor > 0 else "0")
    assert ("the others" in said) == (factor < 0)


def test_the_table_for_latex_has_every_cell_and_no_open_special_character():
    text = latex_of(saying("never in the table"))
    assert text.startswith(r"\begin{tabular}{l")
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len({row.replace(r"\&", "").count("&") for row in rows}) == 1
    assert len(rows) == 1 + len(shipped("selection").entries)
    assert r"Prop\_both" in rows[0]
    assert r"$\pm$" in rows[1]
    assert not re.search(r"(?<!\\)[_%#]", text)
