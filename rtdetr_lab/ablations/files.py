r"""# Files: a report in a folder, with its figures

| file          | what it is                                                              |
|---------------|-------------------------------------------------------------------------|
| `NAME.md`     | for the site: links to the figures beside it                            |
| `NAME_page.html` | the same in one file (a site makes its own NAME.html of the .md)     |
| `NAME.csv`    | a line per row and seed; two equal studies give two equal files         |
| `NAME.json`   | everything, for another program                                         |
| `NAME_*.png`, `.svg` | bars, differences, curves, AP against latency, scatter           |
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rtdetr_lab.ablations.findings import Findings
from rtdetr_lab.ablations.page import html_of, markdown_of
from rtdetr_lab.errors import TrainingError
from rtdetr_lab.viz import ablation as viz
from rtdetr_lab.writing import write_bytes


def save(report: Findings, folder: Path) -> list[Path]:
    """Write everything; returns the files, the Markdown first."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures, written = {}, []
    for title, (name, draw) in figures(report).items():
        png, svg = _rendered(draw)
        pictures[title] = (f"{report.name}_{name}", png)
        written += [_write(folder / f"{report.name}_{name}.png", png)]
        written += [_write(folder / f"{report.name}_{name}.svg", svg)]
    links = {title: f"{name}.png" for title, (name, _) in pictures.items()}
    whole = html_of(report, {title: png for title, (_, png) in pictures.items()})
    texts = {
        ".md": markdown_of(report, links),
        ".csv": report.csv,
        ".json": report.json,
        "_page.html": whole,
    }
    home = [_write(folder / f"{report.name}{end}", t.encode()) for end, t in texts.items()]
    return [*home, *written]


def figures(report: Findings) -> dict[str, tuple[str, Callable[[], Any]]]:
    """Title → (name, what draws it), for everything the journal has numbers for."""
    scores = {e.name: e.values("AP") for e in report.entries}
    found: dict[str, tuple[str, Callable[[], Any]]] = {
        "AP by variant": ("bars", lambda: viz.score_bars(scores, report.plan["reference"]))
    }
    intervals = {
        e.name: viz.Interval(e.difference.mean, e.difference.low, e.difference.high)
        for e in report.entries
        if e.difference
    }
    if intervals:
        reference = str(report.plan["reference"])
        found["Paired differences"] = (
            "differences",
            lambda: viz.differences(intervals, reference),
        )
    whole = [e for e in report.entries if not e.view]
    curves = {e.name: [row["curve"] for row in e.rows] for e in whole}
    if any(c for seeds in curves.values() for c in seeds):
        found["AP over pictures seen"] = ("curves", lambda: viz.score_curves(curves))
    if report.latency:
        by_variant = {e.variant["name"]: e.values("AP") for e in whole if e.rows}
        found["AP against latency"] = ("front", lambda: viz.front(by_variant, report.latency))
    scatter = {
        e.name: (e.rows[0]["measures"]["score_iou"][0], e.rows[0]["measures"]["score_iou"][1])
        for e in whole
        if e.rows and "score_iou" in e.rows[0]["measures"]
    }
    if scatter:
        found["Score against IoU of proposals"] = ("scatter", lambda: viz.score_iou(scatter))
    return found


def _rendered(draw: Callable[[], Any]) -> tuple[bytes, bytes]:
    import matplotlib
    import matplotlib.pyplot as plt

    with matplotlib.rc_context({"svg.hashsalt": "rtdetr_lab"}):
        drawn = draw()
        figure = (drawn[0] if isinstance(drawn, list) else drawn).figure
        png, svg = io.BytesIO(), io.BytesIO()
        figure.savefig(png, format="png", dpi=110, bbox_inches="tight")
        figure.savefig(svg, format="svg", bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)
    return png.getvalue(), svg.getvalue()


def _write(path: Path, content: bytes) -> Path:
    write_bytes(path, content, error=TrainingError)
    return path
