r"""# Matching: the cost of each query, and the assignment

    cost = matcher.cost_matrix(logits[0], boxes[0], labels, objects)    # Q T
    cost_matrix(cost, queries, objects_of, names)
    matched_boxes(boxes[0], objects, queries, objects_of, image)
    matches_over_steps([query of object t at step s, …])

A detector learns fast when a query keeps its object from layer to layer and from epoch to epoch.
`matches_over_steps` draws one line per object. At every jump of a line the object gets another
query. The share of jumps is DN-DETR's *instability* (their §3.2).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rtdetr_lab.config import require
from rtdetr_lab.viz import marks
from rtdetr_lab.viz.canvas import Axes, Picture, new_axes, new_plot, picture_axes, scale_bar
from rtdetr_lab.viz.palette import ORANGE, SKY
from rtdetr_lab.writing import figure_text


def rows_to_show(cost: Float[Tensor, "Q T"], queries: Int[Tensor, "A"], count: int) -> list[int]:
    """Return the matched queries and the cheapest others, in order; 300 rows are unreadable."""
    matched = queries.tolist()
    cheapest = [q for q in cost.amin(1).argsort().tolist() if q not in matched]
    return sorted([*matched, *cheapest[: max(0, count - len(matched))]])


def cost_matrix(
    cost: Float[Tensor, "Q T"],
    queries: Int[Tensor, "A"],
    objects: Int[Tensor, "A"],
    names: Sequence[str] = (),
    count: int = 14,
    ax: Axes | None = None,
) -> Axes:
    """Draw the costs: rows are queries, columns objects; a frame is a match, dark is cheap."""
    from matplotlib.patches import Rectangle

    rows = rows_to_show(cost, queries, count)
    shown = cost[rows].detach().cpu().double().numpy()
    ax = new_axes(ax, 0.28 * len(rows) + 1.1, 5.4)
    words = [[f"{value:.1f}" for value in row] for row in shown] if shown.size <= 200 else ()
    drawn = marks.matrix(ax, shown, words, points=7, cmap="viridis", aspect="auto")
    for query, column in zip(queries.tolist(), objects.tolist(), strict=True):
        corner, pair = (column - 0.5, rows.index(query) - 0.5), f"{query}→{column}"
        ax.add_patch(Rectangle(corner, 1, 1, fill=False, ec=ORANGE, lw=2.6, gid=pair))
    titles = _titles(names, cost.shape[1])
    ax.set_xticks(range(len(titles)), titles, fontsize=8)
    ax.set_yticks(range(len(rows)), [str(r) for r in rows], fontsize=8)
    ax.set(xlabel="object", ylabel=f"query ({len(rows)} of {len(cost)})")
    ax.set_title("framed: the cheapest assignment in total", fontsize=9)
    ax.tick_params(length=0)
    scale_bar(drawn, ax, "matching cost")
    return ax


def matched_boxes(
    boxes: Float[Tensor, "Q 4"],
    targets: Float[Tensor, "T 4"],
    queries: Int[Tensor, "A"],
    objects: Int[Tensor, "A"],
    image: Picture,
    ax: Axes | None = None,
) -> Axes:
    """Draw every object, the box of its query, and a line between their centres."""
    ax, size = picture_axes(ax, image, quiet=0.6)
    for box in targets:
        marks.frame_box(ax, box, size, SKY, width=2.2).set_gid("object")
    for query, target in zip(queries.tolist(), objects.tolist(), strict=True):
        marks.frame_box(ax, boxes[query], size, ORANGE, "--", 1.4).set_gid(f"query {query}")
        x, y = marks.centres_of_boxes(torch.stack([boxes[query], targets[target]]), size).unbind(-1)
        (line,) = ax.plot(x, y, color=ORANGE, lw=1.4, marker="o", ms=3, gid=f"{query}→{target}")
        line.set_path_effects(marks.rim(2.8))
        text = marks.note(ax, f"q{query}", (float(x[0]), float(y[0])), (4, 4), ORANGE)
        text.set(path_effects=marks.rim(2.0), clip_on=True)
    entries = [marks.line_key("object", SKY)]
    entries.append(marks.line_key("matched query", ORANGE, "--"))
    marks.key_below(ax, entries)
    return ax


def instability(matches: Int[Tensor, "S T"]) -> float:
    """Compute the share of objects that change their query from one step to the next."""
    if len(matches) < 2 or not matches.shape[1]:
        return 0.0
    return float((matches[1:] != matches[:-1]).double().mean())


def matches_over_steps(
    matches: Int[Tensor, "S T"],
    step_names: Sequence[str] = (),
    names: Sequence[str] = (),
    ax: Axes | None = None,
) -> Axes:
    """Draw the query of object t at step s (a layer, or an epoch): one line per object."""
    what = f"{len(step_names)} names for {len(matches)} steps"
    fits = not step_names or len(step_names) == len(matches)
    require(fits, "step_names", what, "give one name per row of matches")
    ax, page = new_plot(ax, 3.6)
    x, titles = range(len(matches)), _titles(names, matches.shape[1])
    for t, (title, line) in enumerate(zip(titles, matches.cpu().unbind(1), strict=True)):
        style = {"marker": marks.MARKERS[t % 5], "ms": 6, "lw": 1.6, "color": page.color(t)}
        ax.plot(x, line, label=title, **style)
    ax.set_xticks(x, list(step_names) or [f"layer {i}" for i in x], fontsize=8)
    ax.set_ylabel("matched query")
    ax.locator_params(axis="y", integer=True)
    ax.set_title(f"{instability(matches):.0%} of the matches change from step to step", fontsize=9)
    marks.key_beside(ax)
    return ax


def _titles(names: Sequence[str], count: int) -> list[str]:
    return [figure_text(n) for n in names] or [f"object {t}" for t in range(count)]


def matches_of(queries: Sequence[Int[Tensor, "_"]], objects: Sequence[Int[Tensor, "_"]]) -> Tensor:
    """Collect the assignments of one picture at S steps: `S T`, the query of every object or −1."""
    count = 1 + max((int(o.max()) for o in objects if len(o)), default=-1)
    table = torch.full((len(queries), count), -1)
    for row, query, target in zip(table, queries, objects, strict=True):
        row[target.cpu()] = query.cpu()
    return table
