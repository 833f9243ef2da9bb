"""The curves of the page: memory of the long runs over time."""

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

GREY = "#808080"


def draw_long(runs: list[dict[str, Any]], path: Path) -> None:
    """Draw the memory of every run over time as an SVG that reads on light and dark pages."""
    with matplotlib.rc_context({"svg.hashsalt": "long", "font.size": 9, "text.color": GREY}):
        figure = Figure(figsize=(7.2, 2.4), layout="constrained")
        for run, axes in zip(runs, figure.subplots(1, len(runs)), strict=True):
            minutes = [second / 60 for second in run["seconds"]]
            axes.plot(minutes, run["megabytes"], color="#0072b2", linewidth=1.2)
            axes.set_ylim(0, 1.25 * max(run["megabytes"]))
            axes.set_title(run["name"], fontsize=10)
            axes.set_xlabel("minutes", color=GREY)
            axes.tick_params(colors=GREY)
            axes.patch.set_alpha(0)
            for side, spine in axes.spines.items():
                spine.set_color(GREY)
                spine.set_visible(side in ("left", "bottom"))
        figure.axes[0].set_ylabel("memory in MB", color=GREY)
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})
