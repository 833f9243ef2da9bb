r"""# Speed: the time of each part, and its lower limit

| figure       | shows                                                                          |
|--------------|--------------------------------------------------------------------------------|
| `part_bars`  | the time of several forms of a model, part by part, on one axis                |
| `time_lines` | times over a variable; a time that does not depend on it is a level line       |
| `roofline`   | work per byte against work per second, below the ceilings of the machine       |

A roofline (Williams et al. 2009) has two edges. A part with many bytes and little work cannot be
faster than copies of the machine: it is below the slope. A part with much work per byte is below
the level line of the matrix products. The distance to the line is the possible gain.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rtdetr_lab.config import require
from rtdetr_lab.viz.canvas import Axes, new_plot
from rtdetr_lab.viz.marks import key_above, name_rows, note, series_style
from rtdetr_lab.viz.palette import text_on

WIDE = 0.09
"""Share of the axis that a segment needs to have room for its number."""


def part_bars(
    forms: Mapping[str, Mapping[str, float]], unit: str = "ms", ax: Axes | None = None
) -> Axes:
    """Draw a horizontal bar per form, with a segment per part and the sum.

    `forms` maps a form to the times of its parts; all forms have the same parts.
    """
    kinds = {tuple(parts) for parts in forms.values()}
    require(len(kinds) == 1, "forms", "have different parts", "give every form the same parts")
    (names,) = kinds
    ax, page = new_plot(ax, 0.9 + 0.45 * len(forms))
    longest = max(sum(parts.values()) for parts in forms.values())
    for y, parts in enumerate(forms.values()):
        left = 0.0
        for i, name in enumerate(names):
            color, value = page.color(i), parts[name]
            label = name if y == 0 else None
            ax.barh(y, value, 0.7, left, color=color, edgecolor=page.background, label=label)
            if value > WIDE * longest:
                style = {"ha": "center", "va": "center", "fontsize": 8, "color": text_on(color)}
                ax.text(left + value / 2, y, f"{value:.1f}", **style)
            left += value
        total = note(ax, f"{left:.1f}", (left, y), (5, 0), page.ink)
        total.set(va="center", weight="bold")
    name_rows(ax, list(forms))
    ax.set(xlabel=unit, xlim=(0, 1.1 * longest))
    key_above(ax, min(len(names), 5), middle=0.45)
    return ax


def time_lines(
    x: Sequence[float | int],
    lines: Mapping[str, Sequence[float | int]],
    xlabel: str,
    ylabel: str = "ms",
    ax: Axes | None = None,
) -> Axes:
    """Draw a line per name over `x`; both axes are logarithmic."""
    wrong = [name for name, values in lines.items() if len(values) != len(x)]
    require(not wrong, "lines", f"{wrong} have not {len(x)} values", "give one value per x")
    ax, page = new_plot(ax, 3.0)
    for i, (name, values) in enumerate(lines.items()):
        ax.loglog(x, values, label=name, linewidth=1.6, **series_style(page, i))
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.set_xticks(list(x), [f"{value:,g}" for value in x])
    ax.set_xticks([], minor=True)
    _plain_numbers(ax.yaxis)
    ax.grid(color=page.muted, alpha=0.25)
    key_above(ax, 2)
    return ax


def roofline(
    parts: Mapping[str, tuple[float, float | int, float | int]],
    flops: float,
    bytes: float,
    ax: Axes | None = None,
) -> Axes:
    """Plot every part (seconds, FLOPs, bytes moved) below the ceilings of the machine.

    The ceilings are FLOP/s of matrix products and bytes/s of copies. A thin line connects every
    part with its limit.
    """
    require(parts, "parts", "is empty", "give at least one part")
    ax, page = new_plot(ax, 3.6)
    ridge = flops / bytes
    reach = [work / max(moved, 1) for _, work, moved in parts.values()]
    low, high = min([*reach, ridge]) / 3, max([*reach, ridge]) * 3
    roof = [(x, min(flops, x * bytes) / 1e9) for x in (low, ridge, high)]
    ax.loglog(*zip(*roof, strict=True), color=page.ink, linewidth=2, solid_joinstyle="miter")
    done = [work / seconds / 1e9 for seconds, work, _ in parts.values()]
    bottom = min([*done, roof[0][1]]) / 2.5
    ax.fill_between([x for x, _ in roof], bottom, [y for _, y in roof], color=page.muted, alpha=0.1)
    for i, (name, (seconds, work, moved)) in enumerate(parts.items()):
        x, y = work / max(moved, 1), work / seconds / 1e9
        limit = min(flops, x * bytes) / 1e9
        color, label = page.color(i), f"{name}: {y / limit:.0%} of its limit"
        ax.plot([x, x], [y, limit], color=color, linewidth=1, linestyle=":")
        mark = {**series_style(page, i, 8), "linestyle": ""}
        ax.plot(x, y, **mark, markeredgecolor=page.ink, label=label)
    products, copies = f"{flops / 1e9:.0f} GFLOP/s", f"copies:\n{bytes / 1e9:.0f} GB/s"
    note(ax, f"matrix products: {products}", (ridge, flops / 1e9), (0, 6), page.ink)
    middle = (low * ridge) ** 0.5
    note(ax, copies, (middle, middle * bytes / 1e9), (9, -24), page.ink)
    ax.set(xlabel="FLOP per byte moved", ylabel="GFLOP/s", xlim=(low, high))
    ax.set_ylim(bottom, 2.2 * max([*done, flops / 1e9]))
    _plain_numbers(ax.xaxis)
    _plain_numbers(ax.yaxis)
    key_above(ax, 2)
    return ax


def _plain_numbers(axis: Any) -> None:
    """Label a logarithmic axis with 1, 2, 5, 10 …, not with powers."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axis.set_minor_formatter(NullFormatter())
