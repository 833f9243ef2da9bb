"""# Evaluation: figures of curves, confusions and mistakes

The kinds of mistakes differ in colour *and* in the dash of their frame. Correct detections have
thin frames, so that mistakes are easy to see.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from rtdetr_lab.images.arrays import RGB
from rtdetr_lab.viz.canvas import Axes, new_axes, new_plot, picture_axes
from rtdetr_lab.viz.marks import frame_corners, key_below, line_key, matrix
from rtdetr_lab.viz.palette import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILLION, YELLOW
from rtdetr_lab.writing import figure_text

STYLES = {
    "right": (SKY, "-", 1.0),
    "miss": (VERMILLION, ":", 2.8),
    "confusion": (PURPLE, "--", 2.2),
    "duplicate": (ORANGE, "-.", 2.0),
    "background": (YELLOW, "-", 2.2),
    "in a crowd": ("#B0B0B0", "--", 1.0),
}
"""Colour, dash and width of a frame, by kind."""

NO_OBJECT = ("found already", "nothing there")
"""Rows of a confusion matrix for detections without an object of their own."""

LONGEST = 120
"""Maximum number of characters of a text beside a picture."""

MANY = 8
"""Maximum number of classes with a name in a figure of curves."""


def draw_precision_recall(
    precision: Float[np.ndarray, "10 101 K"], names: Sequence[str], ax: Axes | None = None
) -> Axes:
    """Draw precision over recall: the class mean at IoU 0.5 and 0.75, and every class at 0.5."""
    ax, page = new_plot(ax, 4.2)
    recall = np.linspace(0, 1, 101)
    known = [k for k in range(len(names)) if (precision[0, :, k] > -1).all()]
    for k in known:
        labelled = len(known) <= MANY
        color = page.color(k) if labelled else page.muted
        style = {"lw": 1.2, "alpha": 0.9 if labelled else 0.25, "color": color}
        label = f"{figure_text(names[k])}, IoU 0.5" if labelled else None
        ax.plot(recall, precision[0, :, k], label=label, **style)
        if labelled:
            ax.plot(recall, precision[5, :, k], ls=":", **style)
    for place, iou, dash in ((0, "0.5", "-"), (5, "0.75", "--")):
        if known:
            mean = precision[place][:, known].mean(1)
            label = f"mean, IoU {iou} (AP {mean.mean():.3f})"
            ax.plot(recall, mean, color=page.ink, lw=2.2, ls=dash, label=label)
    ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    ax.grid(alpha=0.25)
    if known:
        title = "thin dots: a class at IoU 0.75" if len(known) <= MANY else None
        ax.legend(fontsize=8, frameon=False, loc="lower left", title=title, title_fontsize=7)
    return ax


def draw_confusion(
    counts: Int[np.ndarray, "R K"], names: Sequence[str], ax: Axes | None = None
) -> Axes:
    """Draw true classes (rows) against predicted ones (columns), shaded by the share of the row."""
    side, few = min(12.0, 2.4 + 0.45 * len(counts)), len(counts) <= 31
    ax, page = new_plot(ax, side, side + 1)
    part = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    words = np.where(counts > 0, counts.astype(str), "") if few else ()
    matrix(ax, part, words, cmap="Blues", vmin=0, vmax=1)
    shown, size = [figure_text(name) for name in names], 8 if few else 4
    columns, rows = [*shown, "not found"], [*shown, *NO_OBJECT]
    ax.set_xticks(range(len(columns)), columns, rotation=45, ha="right", fontsize=size)
    ax.set_yticks(range(len(rows)), rows, fontsize=size)
    ax.set(xlabel="predicted class", ylabel="true class")
    for line in (ax.axhline, ax.axvline):
        line(len(names) - 0.5, color=page.muted, lw=0.8)
    return ax


def draw_thresholds(
    thresholds: Float[np.ndarray, "n"],
    F1: Float[np.ndarray, "n K"],
    names: Sequence[str],
    recommended: float | None,
    ax: Axes | None = None,
) -> Axes:
    """Draw F1 over the threshold: every class, the mean, and the recommended threshold."""
    ax, page = new_plot(ax, 4.2)
    known = [k for k in range(len(names)) if not np.isnan(F1[0, k])]
    for k in known:
        labelled = len(known) <= MANY
        color, alpha = page.color(k) if labelled else page.muted, 0.9 if labelled else 0.25
        label = figure_text(names[k]) if labelled else "a class" if k == known[0] else None
        ax.plot(thresholds, F1[:, k], color=color, alpha=alpha, lw=1.2, label=label)
    if known:
        ax.plot(thresholds, F1[:, known].mean(1), color=page.ink, lw=2.2, label="mean")
    if recommended is not None:
        label = f"recommended: {recommended:.2f}"
        ax.axvline(recommended, color=page.muted, ls="--", lw=1.2, label=label)
    ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="threshold of the score", ylabel="F1")
    ax.grid(alpha=0.25)
    if known:
        ax.legend(fontsize=8, frameon=False, loc="lower left")
    return ax


def draw_calibration(
    score: Float[np.ndarray, "n"],
    right: Float[np.ndarray, "n"],
    count: Int[np.ndarray, "n"],
    ax: Axes | None = None,
) -> Axes:
    """Draw, for bins of detections, the share that is right over the mean score."""
    ax, page = new_plot(ax, 4.2, 4.6)
    there = count > 0
    ax.plot([0, 1], [0, 1], color=page.muted, ls="--", lw=1.2, label="if a score were a chance")
    ax.plot(
        score[there], right[there], color=BLUE, marker="o", label="ten bins, with their detections"
    )
    for x, y, number in zip(score[there], right[there], count[there], strict=True):
        place = {"textcoords": "offset points", "ha": "center", "fontsize": 7}
        ax.annotate(str(number), (x, y), (0, 6), **place)
    ax.set(xlim=(0, 1), ylim=(-0.02, 1.08), xlabel="mean score", ylabel="share that is right")
    ax.grid(alpha=0.25)
    ax.legend(fontsize=8, frameon=False, loc="upper left")
    return ax


def draw_bars(
    values: Mapping[str, Mapping[str, float]], xlabel: str, ax: Axes | None = None
) -> Axes:
    """Draw bars of AP and AP50 for every key."""
    ax = new_axes(ax, 2.8)
    place = np.arange(len(values))
    for shift, name, color in ((-0.2, "AP", BLUE), (0.2, "AP50", GREEN)):
        heights = [max(0.0, v[name]) for v in values.values()]
        drawn = ax.bar(place + shift, heights, 0.38, color=color, label=name)
        ax.bar_label(drawn, fmt="%.3f", fontsize=7, padding=1)
    ax.set_xticks(place, [figure_text(name) for name in values])
    ax.set(ylim=(0, 1.08), xlabel=xlabel)
    ax.legend(fontsize=8, frameon=False, ncols=2, loc="upper left")
    return ax


def draw_mistakes(
    image: RGB,
    boxes_xyxy: Float[Tensor, "n 4"],
    kinds: Sequence[str],
    texts: Sequence[str],
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw a picture with frames by kind (`STYLES`); correct detections get no text."""
    ax, (height, width) = picture_axes(ax, image, quiet=0.35, extra=0.7)
    wrong_last = sorted(range(len(kinds)), key=lambda i: kinds[i] != "right")
    for i in wrong_last:
        color, dash, thick = STYLES[kinds[i]]
        frame_corners(ax, boxes_xyxy[i], color, dash, thick, edge=1.4)
        if texts[i] and kinds[i] != "right":
            x, y = boxes_xyxy[i, :2].tolist()
            place = (min(max(x, 0), width), min(max(y, 0.04 * height), height))
            box = {"facecolor": "black", "alpha": 0.7, "pad": 1.0, "edgecolor": "none"}
            style = {"color": color, "fontsize": 7, "va": "bottom", "bbox": box, "clip_on": True}
            ax.text(*place, figure_text(texts[i], LONGEST), **style)
    present = [k for k in STYLES if k in kinds]
    if present:
        key_below(ax, [line_key(k, STYLES[k][0], STYLES[k][1]) for k in present])
    ax.set_title(figure_text(title, LONGEST), fontsize=9, loc="left")
    return ax
