r"""# Report: the results of a study as a page, as files with figures, or in a notebook

| file          | content                                                                 |
|---------------|-------------------------------------------------------------------------|
| `NAME.md`     | for the site: links to the figures beside it                            |
| `NAME_page.html` | the same in one file (a site makes its own NAME.html from the .md)   |
| `NAME.csv`    | a line per row and seed; two equal studies give two equal files         |
| `NAME.json`   | everything, for another program                                         |
| `NAME_*.png`, `.svg` | bars, differences, curves, AP against latency, scatter           |
"""

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rtdetr_lab.ablations.findings import Findings
from rtdetr_lab.ablations.journal import Journal
from rtdetr_lab.ablations.page import html_of, markdown_of
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

    def figures(self) -> Mapping[str, object]:
        """Draw the figures for a notebook; return title → axes."""
        return {title: draw() for title, _, draw in self._drawings()}

    def save(self, folder: str | Path) -> list[Path]:
        """Write report and figures; returns the files, the Markdown first."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        stem, links, pictures = file_stem(self.name), {}, {}
        figures: dict[str, bytes] = {}
        for title, name, draw in self._drawings():
            pictures[title], svg = _rendered(draw)
            links[title] = f"{stem}_{name}.png"
            figures |= {f"_{name}.png": pictures[title], f"_{name}.svg": svg}
        texts = {
            ".md": markdown_of(self, links),
            ".csv": self.csv,
            ".json": self.json,
            "_page.html": html_of(self, pictures),
        }
        contents = {end: text.encode() for end, text in texts.items()} | figures
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
