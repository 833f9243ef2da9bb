"""# Report: the result of a preflight, as text, as JSON and as a picture"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rtdetr_lab.data.findings import RULES, Finding, Rule, Severity, count_dropped
from rtdetr_lab.errors import DataError
from rtdetr_lab.writing import figure_text

EDGES = (8, 16, 32, 64, 96, 128, 256, 512)
"""Edges between the bars of the histogram of sides. COCO: small is below 32, large above 96."""

EXAMPLES = 3
"""The number of findings per rule that are printed; the JSON has all."""


@dataclass(frozen=True, eq=False)
class Report:
    """The findings about one annotation file and its pictures.

    `classes` are (name, boxes that training sees) by label. `sides` counts those boxes by √(w·h),
    up to 8 px, 16 px, … (`EDGES`) and above. `digests` maps the sha256 of picture files to ids.
    `most_objects` is the largest number of objects in one picture.
    """

    file: str
    findings: tuple[Finding, ...]
    num_pictures: int
    classes: tuple[tuple[str, int], ...]
    sides: tuple[int, ...]
    digests: Mapping[str, int]
    most_objects: int = 0

    @property
    def ok(self) -> bool:
        """True if training meets no error."""
        return not any(f.rule.severity is Severity.ERROR for f in self.findings)

    @property
    def dropped(self) -> dict[str, int]:
        """The number of annotations that training does not see, by rule."""
        return count_dropped(self.findings)

    @property
    def num_boxes(self) -> int:
        """The number of boxes that training sees."""
        return sum(count for _, count in self.classes)

    def of(self, rule: Rule) -> tuple[Finding, ...]:
        """Return the findings of one rule."""
        return tuple(f for f in self.findings if f.rule is rule)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "file": self.file,
            "ok": self.ok,
            "pictures": self.num_pictures,
            "boxes": self.num_boxes,
            "most_objects": self.most_objects,
            "classes": [{"name": name, "boxes": count} for name, count in self.classes],
            "dropped": self.dropped,
            "box_sides": {"edges": list(EDGES), "counts": list(self.sides)},
            "findings": [finding.to_dict() for finding in self.findings],
        }

    def __str__(self) -> str:
        head = f"{self.file}: {self.num_pictures} pictures, {self.num_boxes} boxes"
        most = f"at most {self.most_objects} objects in a picture"
        lines = [f"{head}, {len(self.classes)} classes, {most}"]
        lines += [f"  {count:>8}  {name}" for name, count in _rank_classes(self.classes, 12)]
        bars = zip([*(f"≤ {edge}" for edge in EDGES), f"> {EDGES[-1]}"], self.sides, strict=True)
        lines.append("  sides in px: " + ", ".join(f"{name}: {count}" for name, count in bars))
        for rule in filter(self.of, RULES):  # from errors to notes
            lines += self._lines(rule)
        return "\n".join([*lines, "  " + self._verdict()])

    def _lines(self, rule: Rule) -> list[str]:
        findings = self.of(rule)
        indent, more = " " * 11, len(findings) - EXAMPLES
        places = [f.where.removeprefix(f"{self.file}: ") for f in findings]
        examples = zip(places[:EXAMPLES], findings, strict=False)
        return [
            f"  {rule.severity.value.upper():<8} {rule.name}: {len(findings)}",
            *(f"{indent}{place}: {f.what}" for place, f in examples),
            *([f"{indent}… and {more} more"] if more > 0 else []),
            f"{indent}→ {findings[0].remedy}",
        ]

    def _verdict(self) -> str:
        errors = sum(f.rule.severity is Severity.ERROR for f in self.findings)
        if errors:
            return f"{errors} errors: training would stop"
        dropped = sum(self.dropped.values())
        out = f"training leaves out {dropped} annotations" if dropped else "nothing is left out"
        warned = len({f.rule for f in self.findings if f.rule.severity is Severity.WARNING})
        return f"ready: {out}" + (f"; look at the warnings first ({warned})" if warned else "")


def histogram_of_sides(boxes_xywh: Iterable[Sequence[float]]) -> tuple[int, ...]:
    """Count the boxes with √(w·h) up to 8, 16, … and above the last of `EDGES`."""
    sides = [math.sqrt(w * h) for _, _, w, h in boxes_xywh]
    counts = np.bincount(np.searchsorted(EDGES, sides), minlength=len(EDGES) + 1)
    return tuple(counts.tolist())


def _rank_classes(classes: Sequence[tuple[str, int]], most: int) -> list[tuple[str, int]]:
    """Return the classes with the most boxes; the rest becomes one row."""
    ranked = sorted(classes, key=lambda c: -c[1])
    rest = ranked[most:]
    more = [(f"{len(rest)} more classes", sum(count for _, count in rest))] if rest else []
    return ranked[:most] + more


def draw_reports(reports: Sequence[Report], path: Path) -> None:
    """Draw class counts and box sizes, one row per report, and save the picture. Raises `DataError`
    for a file format that we cannot write."""
    import matplotlib.pyplot as plt

    if path.suffix.lower() not in (".png", ".svg", ".pdf", ".jpg"):
        what, remedy = "is no format we can write", "end its name in .png, .svg or .pdf"
        raise DataError(str(path), what, remedy)
    rows = len(reports)
    tallest = max(min(len(r.classes), MOST_BARS) for r in reports)
    height = rows * max(2.6, 0.6 + 0.17 * tallest)
    figure, axes = plt.subplots(rows, 2, figsize=(9, height), layout="compressed", squeeze=False)
    for report, (left, right) in zip(reports, axes, strict=True):
        _draw_classes(left, report)
        _draw_sides(right, report)
    figure.savefig(path, dpi=110)
    plt.close(figure)


MOST_BARS = 30
BLUE, GREY = "#0072B2", "#808080"


def _draw_classes(ax: Any, report: Report) -> None:
    ranked = _rank_classes(report.classes, MOST_BARS - (len(report.classes) > MOST_BARS))
    names, counts = [figure_text(name) for name, _ in ranked], [count for _, count in ranked]
    colours = [BLUE if row in report.classes else GREY for row in ranked]
    ax.set_yticks(range(len(names)), names, fontsize=7)
    ax.invert_yaxis()
    ax.set_xticks([])
    file = figure_text(Path(report.file).name)
    title = f"{file}: {report.num_pictures} pictures, {report.num_boxes} boxes"
    _finish(ax, ax.barh(range(len(names)), counts, color=colours), title)


def _draw_sides(ax: Any, report: Report) -> None:
    bars = ax.bar(range(len(report.sides)), report.sides, width=0.95, color=BLUE)
    ax.set_xticks([i + 0.5 for i in range(len(EDGES))], [str(e) for e in EDGES], fontsize=7)
    ax.set_yticks([])
    for edge in (32, 96):
        ax.axvline(EDGES.index(edge) + 0.5, color=GREY, linewidth=0.8, linestyle="--")
    _finish(ax, bars, "√(w · h) of the boxes, px; dashed: COCO's small and large")


def _finish(ax: Any, bars: Any, title: str) -> None:
    ax.bar_label(bars, padding=2, fontsize=7)
    ax.set_title(title, fontsize=9, loc="left")
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.margins(x=0.12)
