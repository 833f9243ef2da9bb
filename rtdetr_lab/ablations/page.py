r"""# Page: a report as Markdown, and as one HTML file without links to other files"""

import base64
import html
import shlex
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from rtdetr_lab.ablations.findings import SHOWN, Entry, Findings
from rtdetr_lab.ablations.studies import TABLES
from rtdetr_lab.writing import (
    Markdown,
    markdown_block,
    markdown_code,
    markdown_table,
    markdown_text,
)

PAGE = Template(Path(__file__).with_suffix(".html").read_text(encoding="utf8"))


def results(report: Findings) -> str:
    """Make the table of scores, costs, and differences to the reference."""
    latency, measures = report.latency, report.measures
    head = _head(measures)
    return markdown_table(head, [_cells(e, measures, latency) for e in report.entries])


def _head(measures: list[str]) -> list[str]:
    first, *others = SHOWN  # the verdict stands beside the score that it judges
    sizes = ["params (M)", "GFLOPs", "ms"]
    return ["variant", first, "difference to reference", "p (Holm)", *others, *measures, *sizes]


def latex_of(report: Findings) -> str:
    """Make the table of results for LaTeX, with the rules of `booktabs`."""
    latency, measures = report.latency, report.measures
    rows = [_head(measures), *(_cells(e, measures, latency) for e in report.entries)]
    head, *body = [" & ".join(map(_latex, row)) + r" \\" for row in rows]
    lines = [r"\toprule", head, r"\midrule", *body, r"\bottomrule"]
    start = rf"\begin{{tabular}}{{lrl{'r' * (len(rows[0]) - 3)}}}"
    return "\n".join([start, *lines, r"\end{tabular}"]) + "\n"


def _latex(text: str) -> str:
    """Escape a cell for LaTeX."""
    special = {c: rf"\{c}" for c in "&%$#_{}"} | {"~": r"\textasciitilde{}"}
    special |= {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}"}
    special |= {"±": r"$\pm$", "–": "--", "−": "$-$"}
    return "".join(special.get(c, c) for c in text)


def _cells(entry: Entry, measures: list[str], latency: Mapping[str, Any]) -> list[str]:
    score, *others = [_mean_sd([100 * v for v in entry.values(n)], 1) for n in SHOWN]
    said = [_mean_sd(entry.measured(n), 2) for n in measures]
    ms = latency.get(entry.variant["name"]) if not entry.view else None
    speed = f"{ms['median']:.1f} ({ms['low']:.1f}–{ms['high']:.1f})" if ms else ""
    whole = not entry.view and "gflops" in entry.variant
    size = f"{entry.variant['parameters'] / 1e6:.2f}" if whole else ""
    flops = f"{entry.variant['gflops']:.3f}" if whole else ""
    p = "" if entry.p_value is None else f"{entry.p_value:.3f}"
    return [entry.name, score, entry.verdict, p, *others, *said, size, flops, speed]


def changes(report: Findings) -> str:
    """Make the table of changes and hypotheses, one row per variant."""
    rows = []
    for v in report.plan["variants"]:
        found = "; ".join(_changed(*change) for change in v["differences"])
        same = "nothing: the reference" if v["name"] == report.plan["reference"] else "failed"
        rows.append([v["name"], Markdown(found or same), v["hypothesis"]])
    return markdown_table(["variant", "changes", "hypothesis"], rows)


def _changed(path: str, before: object, after: object) -> str:
    return f"{markdown_code(path)}: {markdown_text(before)} → {markdown_text(after)}"


def order_sentence(report: Findings) -> str:
    """Compare the order of the miniature with the paper's; list the pairs that differ."""
    published = TABLES[report.name].published if report.name in TABLES else {}
    found = {e.name: float(np.mean(e.values("AP"))) for e in report.entries if e.values("AP")}
    both = [n for n in published if n in found]
    if len(both) < 2:
        return "The papers give no numbers for these rows."
    theirs = sorted(both, key=lambda n: published[n])
    ours = sorted(both, key=lambda n: found[n])
    pairs = [(a, b) for a, b in combinations(theirs, 2) if published[a] != published[b]]
    wrong = [f"{a} above {b}" for a, b in pairs if found[a] > found[b]]
    agree = f"{len(pairs) - len(wrong)} of {len(pairs)} pairs are in the paper's order"
    text = f"Paper: {' < '.join(theirs)}. Here: {' < '.join(ours)}. {agree}"
    return f"{text}; the others: {', '.join(wrong)}." if wrong else f"{text}."


def power_sentence(report: Findings) -> str:
    """State how small a difference the study could detect."""
    widths = [100 * e.difference.half_width for e in report.entries if e.difference]
    clear = [e for e in report.entries if e.difference and e.difference.is_clear]
    if not widths:
        return "There is nothing to compare yet."
    return (
        f"{len(clear)} of {len(widths)} intervals exclude zero. Half an interval is "
        f"{min(widths):.1f} to {max(widths):.1f} points of AP (median {np.median(widths):.1f}): "
        "this study cannot distinguish smaller differences from chance."
    )


def facts(report: Findings) -> list[str]:
    """List command, data, budget, machine, date and cost, one sentence each."""
    plan, cost = report.plan, report.cost
    height, width = plan["picture_size"]
    threads = " and ".join(f"{n} thread{'s' if n > 1 else ''}" for n in cost["threads"])
    machine = markdown_text("; ".join(cost["machine"]))
    command = shlex.join(str(part) for part in plan["command"][1:])
    again = f"{markdown_code(f'rtdetr-lab {command}')}; report again: add `--report-only`"
    return [
        f"Command: {again if command else 'none, called from Python'}.",
        f"Runs: {cost['runs']}, each on {plan['pictures']} pictures of {height}×{width}; seeds "
        f"{', '.join(map(str, plan['seeds']))}; evaluated on {plan['val_pictures']} pictures.",
        f"Starts from: {_beginning(plan.get('base', {}))}.",
        f"Cost: {cost['train_hours']:.2f} h of training, {threads}. "
        f"Date: {markdown_text(cost['date'])}. Machine: {machine}. "
        f"Commit: {markdown_text(', '.join(cost['commits']))}.",
    ]


def _beginning(base: Mapping[str, Any]) -> str:
    if base.get("weights"):
        return f"the weights of {markdown_text(base['weights'])}, where names and shapes fit"
    if base.get("backbone_weights"):
        return f"the backbone of {markdown_text(base['backbone_weights'])}; everything else is new"
    return "new weights"


def markdown_of(report: Findings, images: Mapping[str, str] | None = None) -> str:
    """Render the page as Markdown; `images` maps titles to links of figures."""
    table = TABLES.get(report.name)
    parts = [
        f"# Ablation: {markdown_text(report.name)}",
        *([f"{table.question} ({table.source})"] if table else []),
        results(report),
        power_sentence(report),
        f"**Order.** {order_sentence(report)}",
        *(f"![{title}]({link})" for title, link in (images or {}).items()),
        "## What was changed",
        changes(report),
        "## How",
        "\n".join(f"- {fact}" for fact in facts(report)),
        *_failures(report),
    ]
    return "\n\n".join(parts) + "\n"


def _failures(report: Findings) -> list[str]:
    found = [(markdown_text(e.name), f) for e in report.entries for f in e.failures]
    said = [f"{name}{_seed(f)}:\n\n{markdown_block(f['traceback'])}" for name, f in found]
    return ["## Failed", *said] if said else []


def _seed(failure: Mapping[str, Any]) -> str:
    return ", before its first run" if failure["seed"] is None else f", seed {failure['seed']}"


def html_of(report: Findings, images: Mapping[str, bytes]) -> str:
    """Render the page as HTML that loads nothing; `images` are PNG by title."""
    from markdown_it import MarkdownIt

    coded = {title: base64.b64encode(png).decode() for title, png in images.items()}
    links = {title: f"data:image/png;base64,{data}" for title, data in coded.items()}
    body = MarkdownIt("js-default").render(markdown_of(report, links))
    return PAGE.substitute(title=html.escape(f"Ablation: {report.name}"), body=body)


def _mean_sd(values: list[float], digits: int) -> str:
    if not values:
        return "–"
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"


def catalogue() -> str:
    """List every study with its rows and hypotheses, as in `docs/ablations.md`."""
    from rtdetr_lab.ablations.bases import full_size

    base, lines = full_size("r50"), []
    for name, table in TABLES.items():
        known = table.published
        rows = [[v.name, v.hypothesis, str(known.get(v.name, ""))] for v in table.rows(base.cfg)]
        lines += [f"### {name}", "", f"{table.question} *{table.source}*", ""]
        lines += [markdown_table(["row", "hypothesis", "AP (paper)"], rows), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    print(catalogue())
