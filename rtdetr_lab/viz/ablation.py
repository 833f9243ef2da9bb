r"""# Ablation: which variant is better, how certain, at what cost

| figure         | shows                                                                           |
|----------------|---------------------------------------------------------------------------------|
| `score_bars`   | a mean per variant, its standard deviation, and every seed as a dot             |
| `differences`  | paired differences to the reference with their intervals, and a line at zero    |
| `score_curves` | AP over pictures seen, the mean of the seeds and their range                    |
| `front`        | AP against latency, both with their spread; a line joins the unbeaten variants  |
| `score_iou`    | scores of proposals against the overlap of their boxes, two variants            |
| `heat_map`     | differences of rows in several columns; those that are not clear stay pale      |

Bars begin at zero. Other bars would make differences look larger than they are. The intervals
decide which differences are clear, so they have a separate figure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rtdetr_lab.config import require
from rtdetr_lab.viz.canvas import Axes, new_grid, new_plot, page_of
from rtdetr_lab.viz.marks import key_beside, name_rows, note, series_style
from rtdetr_lab.writing import figure_text


@dataclass(frozen=True)
class Interval:
    """Paired difference and its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """True if the interval excludes zero."""
        return self.low > 0 or self.high < 0


def score_bars(
    scores: Mapping[str, Sequence[float]],
    reference: str | None = None,
    label: str = "AP",
    ax: Axes | None = None,
) -> Axes:
    """Draw horizontal bars: mean over seeds, whiskers of one standard deviation, a dot per seed."""
    require(scores, "scores", "are empty", "give at least one variant")
    ax, page = new_plot(ax, 0.7 + 0.34 * len(scores))
    for y, (name, values) in enumerate(scores.items()):
        found = 100 * np.asarray(values, float)
        if not len(found):
            note(ax, "no result", (0, y), (4, -3))
            continue
        color = page.color(1) if name == reference else page.color(0)
        spread = found.std(ddof=1) if len(found) > 1 else 0.0
        ax.barh(y, found.mean(), 0.66, color=color, alpha=0.75)
        ax.errorbar(found.mean(), y, xerr=spread, color=page.ink, capsize=3, linewidth=1.2)
        ax.plot(found, np.full(len(found), y + 0.2), ".", color=page.ink, markersize=3.5)
        edge = max(found.max(), found.mean() + spread)
        text = f"{found.mean():.1f}" + (f" ± {spread:.1f}" if len(found) > 1 else "")
        note(ax, text, (edge, y), (5, -3), page.ink)
    name_rows(ax, [name + " (reference)" * (name == reference) for name in scores])
    ax.set_xlabel(f"{label} (%): mean ± sd, a dot per seed")
    ax.set_xlim(0, ax.get_xlim()[1] * 1.14)
    return ax


def differences(found: Mapping[str, Interval], reference: str, ax: Axes | None = None) -> Axes:
    """Draw dots with intervals; a dot is filled if its interval excludes zero."""
    require(found, "found", "is empty", "give at least one difference")
    ax, page = new_plot(ax, 0.8 + 0.34 * len(found))
    ax.axvline(0, color=page.muted, linewidth=1)
    for y, (_, d) in enumerate(found.items()):
        color = page.color(0 if d.mean > 0 else 5) if d.is_clear else page.muted
        ax.plot([100 * d.low, 100 * d.high], [y, y], color=color, linewidth=2)
        face = color if d.is_clear else page.background
        ax.plot(100 * d.mean, y, "o", color=color, markerfacecolor=face, markersize=6)
        note(ax, f"{100 * d.mean:+.1f}", (100 * d.mean, y), (0, 5), page.ink, align="center")
    name_rows(ax, list(found))
    ax.set_ylim(len(found) - 0.5, -0.75)
    units = f"difference in AP (points) to “{figure_text(reference)}”"
    ax.set_xlabel(f"{units}\n95 % interval; filled: excludes zero")
    return ax


def score_curves(
    curves: Mapping[str, Sequence[Sequence[Sequence[float | int]]]], ax: Axes | None = None
) -> Axes:
    """Draw AP over pictures seen; `curves` has (pictures, AP) pairs per variant and seed."""
    require(any(curves.values()), "curves", "are empty", "train with eval_every")
    ax, page = new_plot(ax, 3.6)
    for i, (name, seeds) in enumerate(curves.items()):
        points = [(pictures, 100 * score) for curve in seeds for pictures, score in curve]
        x = sorted({pictures for pictures, _ in points})
        found = [[score for pictures, score in points if pictures == at] for at in x]
        mean = [float(np.mean(scores)) for scores in found]
        ax.plot(x, mean, label=figure_text(name), linewidth=1.6, **series_style(page, i))
        low, high = list(map(min, found)), list(map(max, found))
        ax.fill_between(x, low, high, color=page.color(i), alpha=0.13, linewidth=0)
    ax.set(xlabel="pictures seen", ylabel="AP (%), mean and range of seeds", ylim=(0, None))
    key_beside(ax)
    return ax


def front(
    scores: Mapping[str, Sequence[float]],
    latencies: Mapping[str, Mapping[str, float | int]],
    ax: Axes | None = None,
) -> Axes:
    """Plot AP against milliseconds; a line joins the rows that no other row beats in both."""
    known = {n: 100 * np.asarray(v, float) for n, v in scores.items() if len(v) and n in latencies}
    require(known, "latencies", "are of other variants", "measure the variants that have scores")
    ax, page = new_plot(ax, 3.6)
    places = sorted((latencies[n]["median"], float(v.mean())) for n, v in known.items())
    ax.plot(*zip(*_unbeaten(places), strict=True), color=page.muted, linewidth=1, zorder=0)
    for i, (name, values) in enumerate(known.items()):
        t = latencies[name]
        spread = values.std(ddof=1) if len(values) > 1 else 0.0
        sides = [[t["median"] - t["low"]], [t["high"] - t["median"]]]
        style = {**series_style(page, i, 7), "capsize": 2, "label": figure_text(name)}
        ax.errorbar(t["median"], values.mean(), yerr=spread, xerr=sides, **style)
    ax.set(xlabel="ms per picture (median, quartiles)", ylabel="AP (%), mean ± sd over seeds")
    key_beside(ax)
    return ax


def score_iou(
    points: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    axes: Sequence[Axes] | None = None,
) -> list[Axes]:
    """Draw a scatter plot per variant: score of a proposal on x, best IoU of its box on y."""
    panels = new_grid(axes, len(points), 3, 1.0)
    for i, (ax, (name, (score, overlap))) in enumerate(zip(panels, points.items(), strict=True)):
        page = page_of(ax)
        ax.plot(score, overlap, ".", color=page.color(i), markersize=3, alpha=0.5)
        ax.axhline(0.5, color=page.muted, linewidth=0.8)
        ax.axvline(0.5, color=page.muted, linewidth=0.8)
        ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="class score", ylabel="IoU with an object")
        ax.set_title(figure_text(name), fontsize=9)
    return panels


def heat_map(cells: Mapping[tuple[str, str], tuple[float, bool]], ax: Axes | None = None) -> Axes:
    """Draw differences by (row, column), each with whether it is clear.

    Orange is worse, blue better. A cell that is not clear is pale, and its number grey.
    """
    require(cells, "cells", "are empty", "give at least one difference")
    rows, columns = (list(dict.fromkeys(at[axis] for at in cells)) for axis in (0, 1))
    ax, page = new_plot(ax, 0.9 + 0.28 * len(rows))
    most = max(abs(value) for value, _ in cells.values()) or 1.0
    for (row, column), (value, clear) in cells.items():
        x, y = columns.index(column), rows.index(row)
        strength = (0.25 + 0.65 * abs(value) / most) if clear else 0.06
        color = page.color(0 if value > 0 else 5)
        ax.barh(y, 0.96, 0.92, x - 0.48, color=color, alpha=strength)
        tone = page.ink if clear else page.muted
        ax.text(x, y, f"{100 * value:+.1f}", ha="center", va="center", color=tone, fontsize=8)
    name_rows(ax, rows)
    ax.set_xticks(range(len(columns)), [figure_text(name) for name in columns])
    ax.xaxis.tick_top()
    ax.set_xlim(-0.5, len(columns) - 0.5)
    ax.set_xlabel("difference in AP (points) to the whole model; strong colour: clear")
    return ax


def _unbeaten(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Keep the (ms, score) pairs that no other pair beats in both."""
    return [
        (ms, score)
        for ms, score in places
        if not any((m <= ms and s > score) or (m < ms and s >= score) for m, s in places)
    ]
