r"""# Training: the loss of every layer, and validation curves

The loss of a detector with deep supervision is a sum over layers and terms. Bars stack the terms of
one layer, so you see which layer and which term is largest.

    layer_losses({"class": [1.2, 0.9, 0.8], "L1": […], "GIoU": […]}, ["layer 0", …])

We compare runs over the pictures they have seen, not over steps or hours:

    validation_curves({"from scratch": records, "from nano": others}, "AP50")
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rtdetr_lab.config import require
from rtdetr_lab.viz.canvas import Axes, new_plot
from rtdetr_lab.viz.marks import key_above, open_frame, series_style
from rtdetr_lab.writing import figure_text

HATCHES = ("", "///", "...", "xxx", "\\\\\\")
"""Hatches of the terms, a second difference beside the colour."""

DASHES = ("-", "--", "-.", ":", (0, (3, 1, 1, 1)))


def layer_losses(
    terms: Mapping[str, Sequence[float]], layer_names: Sequence[str] = (), ax: Axes | None = None
) -> Axes:
    """Draw stacked bars: one bar per layer, one colour per term, and the sum above."""
    lengths = {len(values) for values in terms.values()}
    what = f"terms have {sorted(lengths)} values"
    require(len(lengths) == 1, "terms", what, "give every term one value per layer")
    (layers,) = lengths
    ax, page = new_plot(ax, 3.4)
    bottom = np.zeros(layers)
    for t, (name, values) in enumerate(terms.items()):
        height = np.asarray([float(v) for v in values])
        style = {"color": page.color(t), "edgecolor": page.background, "hatch": HATCHES[t % 5]}
        bars = ax.bar(range(layers), height, 0.7, bottom, label=name, linewidth=0.6, **style)
        bottom = bottom + height
    ax.bar_label(bars, [f"{total:.2f}" for total in bottom], padding=3)
    ax.set_xticks(range(layers), list(layer_names) or [f"layer {i}" for i in range(layers)])
    ax.set(ylabel="loss (weighted)", ylim=(0, 1.12 * max(float(bottom.max()), 1e-12)))
    open_frame(ax)
    key_above(ax, len(terms))
    return ax


def validation_curves(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], score: str = "AP50", ax: Axes | None = None
) -> Axes:
    """Draw a line per run: `score` of its validations over the pictures seen.

    `runs` maps a name to the lines of a `metrics.jsonl`. Raises `ConfigError` for a run without
    validation.
    """
    ax, page = new_plot(ax, 3.4)
    for i, (name, records) in enumerate(runs.items()):
        points = [(r["pictures"], r[score]) for r in records if score in r]
        require(points, name, f"has no line with {score}", "train with --eval-every")
        style = {**series_style(page, i, 4), "linestyle": DASHES[i % len(DASHES)]}
        ax.plot(*zip(*points, strict=True), label=figure_text(name), **style)
    ax.set(xlabel="pictures seen", ylabel=f"{score} on validation", ylim=(0, 1), xlim=(0, None))
    ax.grid(color=page.muted, alpha=0.25)
    open_frame(ax)
    ax.legend(frameon=False, loc="lower right")
    return ax
