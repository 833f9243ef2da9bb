r"""# Report: the results of a study as a page, as files with figures, or in a notebook

| file          | content                                                                 |
|---------------|-------------------------------------------------------------------------|
| `NAME.md`     | for the site: links to the figures beside it                            |
| `NAME_page.html` | the same in one file (a site makes its own NAME.html from the .md)   |
| `NAME.csv`    | a line per row and seed; two equal studies give two equal files         |
| `NAME.json`   | everything, for another program                                         |
| `NAME_pictures.csv` | AP of every run on each validation picture alone                 |
| `NAME.tex`    | the table of results for LaTeX                                          |
| `NAME_*.png`, `.svg`, `.pdf` | bars, differences, curves, AP against latency, scatter   |
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rtdetr_lab.ablations.findings import SHOWN, Entry, Findings
from rtdetr_lab.ablations.journal import Journal, Line
from rtdetr_lab.ablations.page import html_of, latex_of, markdown_of
from rtdetr_lab.config import require
from rtdetr_lab.errors import TrainingError
from rtdetr_lab.viz import ablation as viz
from rtdetr_lab.writing import file_stem, write_bytes


@dataclass(frozen=True, eq=False)
class Report(Findings):
    """Results as `markdown`, `csv` and `json`; `save(folder)` writes them with their figures."""

    @property
    def markdown(self) -> str:
        """Whole report as Markdown, without figures."""
        return markdown_of(self)

    @property
    def csv(self) -> str:
        """Table as CSV: one line per row and seed, without times."""
        names = [n for e in self.entries for row in e.rows for n in row["scores"][e.view]]
        scores = [n for n in dict.fromkeys(names) if n not in ("resampled", "pictures")]
        lines = []
        for entry in self.entries:
            size = [entry.variant.get(n) for n in ("parameters", "gflops")]
            for row in entry.rows:
                first = [row["variant"], entry.view, row["seed"], row["run"], row["pictures"]]
                values = [row["scores"][entry.view][n] for n in scores]
                said = [row["measures"].get(n, "") for n in self.measures]
                lines.append([*first, *size, *values, *said])
        head = ["variant", "view", "seed", "run", "pictures", "parameters", "gflops"]
        return _csv([*head, *scores, *self.measures], lines)

    @property
    def json(self) -> str:
        """Everything for another program: means, spreads, differences, verdicts, plan, cost."""
        rows = [_as_data(entry, self.measures) for entry in self.entries]
        tree = {"plan": self.plan, "cost": self.cost, "latency_ms": self.latency, "rows": rows}
        return json.dumps(tree, indent=1) + "\n"

    def figures(self) -> Mapping[str, object]:
        """Draw the figures for a notebook; return title → axes."""
        return {title: draw() for title, _, draw in self._drawings()}

    def save(self, folder: str | Path) -> list[Path]:
        """Write report and figures; returns the files, the Markdown first."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        stem, links, pictures = file_stem(self.name), {}, {}
        figures: dict[str, bytes] = {}
        for title, name, draw in self._drawings():
            drawn = rendered(draw)
            pictures[title], links[title] = drawn["png"], f"{stem}_{name}.png"
            figures |= {f"_{name}.{kind}": content for kind, content in drawn.items()}
        texts = {
            ".md": markdown_of(self, links),
            ".csv": self.csv,
            ".json": self.json,
            "_page.html": html_of(self, pictures),
            ".tex": latex_of(self),
            "_pictures.csv": pictures_csv_of(self),
        }
        contents = {end: text.encode() for end, text in texts.items() if text} | figures
        paths = {Path(folder) / f"{stem}{end}": content for end, content in contents.items()}
        for path, content in paths.items():
            write_bytes(path, content, error=TrainingError)
        return list(paths)

    def _drawings(self) -> Iterator[tuple[str, str, Callable[[], Any]]]:
        """Yield (title, name, draw function) for all figures that the journal has numbers for."""
        reference = str(self.plan["reference"])
        scores = {e.name: e.values("AP") for e in self.entries}
        yield "AP by variant", "bars", partial(viz.score_bars, scores, reference)
        intervals = {e.name: e.difference for e in self.entries if e.difference}
        if intervals:
            draw = partial(viz.differences, intervals, reference)
            yield "Paired differences", "differences", draw
        whole = [e for e in self.entries if not e.view and e.rows]
        curves = {e.name: [row["curve"] for row in e.rows] for e in whole}
        if any(c for seeds in curves.values() for c in seeds):
            yield "AP over pictures seen", "curves", partial(viz.score_curves, curves)
        if self.latency:
            trained = {e.name: e.values("AP") for e in whole}
            yield "AP against latency", "front", partial(viz.front, trained, self.latency)
        measures = {e.name: e.rows[0]["measures"] for e in whole}
        points = {n: tuple(m["score_iou"]) for n, m in measures.items() if "score_iou" in m}
        if points:
            yield "Score against IoU of proposals", "scatter", partial(viz.score_iou, points)

    def _repr_markdown_(self) -> str:
        return self.markdown


def report_of(journal: Journal) -> Report:
    """Make the report of the journal's last plan; raise `ConfigError` if there is none."""
    require(journal.plan, str(journal.path), "has no study", "run it first, or give its folder")
    return Report(journal.plan, tuple(journal.lines))


def rendered(draw: Callable[[], Any]) -> dict[str, bytes]:
    """Draw a figure; return the bytes of its PNG, SVG and PDF, the same for the same figure."""
    import matplotlib
    import matplotlib.pyplot as plt

    with matplotlib.rc_context({"svg.hashsalt": "rtdetr_lab"}):
        drawn = draw()
        figure = (drawn[0] if isinstance(drawn, list) else drawn).figure
        found = {}
        # without dates: two equal reports are equal files
        for kind, said in {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}.items():
            out = io.BytesIO()
            figure.savefig(out, format=kind, dpi=110, bbox_inches="tight", metadata=said)
            found[kind] = out.getvalue()
        plt.close(figure)
    return found


def pictures_csv_of(found: Findings) -> str:
    """AP on each validation picture alone, as CSV; empty if the journal has none."""
    lines = [
        [row["variant"], entry.view, row["seed"], *pair]
        for entry in found.entries
        for row in entry.rows
        for pair in row["scores"][entry.view].get("pictures", [])
    ]
    return _csv(["variant", "view", "seed", "image_id", "AP"], lines) if lines else ""


def _csv(head: list[str], lines: list[list[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([head, *lines])
    return out.getvalue()


def _as_data(entry: Entry, measures: list[str]) -> Line:
    d, spoken = entry.difference, [n for n in measures if entry.measured(n)]
    return {
        "name": entry.name,
        "seeds": [row["seed"] for row in entry.rows],
        "mean_sd": {n: _mean_sd(entry.values(n)) for n in SHOWN},
        "measures": {n: _mean_sd(entry.measured(n)) for n in spoken},
        "difference": None if d is None else vars(d),
        "p_holm": entry.p_value,
        "verdict": entry.verdict,
        "failures": [f["traceback"] for f in entry.failures],
    }


def _mean_sd(values: list[float]) -> list[float | None]:
    mean = round(float(np.mean(values)), 6) if values else None
    return [mean, round(float(np.std(values, ddof=1)), 6) if len(values) > 1 else None]
