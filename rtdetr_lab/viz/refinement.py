r"""# Refinement: the steps of boxes

Every decoder layer moves every box. Colours go from yellow (the reference box) over orange to
vermillion (the last layer): darker is later, on every picture here.

    draw_life(life, image)                          # one query: boxes on the picture, scores beside
    box_trails(boxes, image, queries=[0, 4, 7])     # several: first and last box, the path between
    refinement_curves(boxes, objects)               # IoU of each with its object, per layer
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from rtdetr_lab.boxes import paired_iou, xyxy_from_cxcywh
from rtdetr_lab.viz import canvas, marks
from rtdetr_lab.viz.canvas import Axes, Picture
from rtdetr_lab.viz.cells import DECODER_LEVELS, corners_of_cells
from rtdetr_lab.viz.life import QueryLife
from rtdetr_lab.viz.palette import RIM, SKY
from rtdetr_lab.writing import figure_text


def draw_life(
    life: QueryLife, image: Picture, names: Sequence[str] = (), axes: Sequence[Axes] | None = None
) -> list[Axes]:
    """Draw the picture with token and boxes on the left, the score at each step on the right."""
    height, width = canvas.as_rgb(image).shape[:2]
    axes = _two_axes(height / width) if axes is None else canvas.new_grid(axes, 2, 2, 1.0)
    size = canvas.show_picture(axes[0], image, quiet=0.45)
    colors = marks.steps(len(life.boxes))
    _mark_token(axes[0], life, size)
    for step, (box, color) in enumerate(zip(life.boxes, colors, strict=True)):
        last = step == len(colors) - 1
        marks.frame_box(axes[0], box, size, color, "-" if step else "--", 3.0 if last else 1.6)
    level, row, column = life.cell
    where = f"{DECODER_LEVELS[level]} ({row}, {column})"
    axes[0].set_title(f"token {life.token} in {where}, rank {life.rank} of {life.num_tokens}")
    axes[0].title.set_fontsize(9)
    _score_steps(axes[1], life, names, colors)
    entries = [marks.mark_key("token", SKY, "s"), marks.line_key("reference box", colors[0], "--")]
    entries += [marks.line_key(f"layer {i}", color) for i, color in enumerate(colors[1:])]
    marks.key_below(axes, entries)
    return axes


def _two_axes(aspect: float) -> list[Axes]:
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(7.0, 4.6 * aspect + 0.75), layout="constrained")
    return list(figure.subplots(1, 2, width_ratios=(2.2, 1)))


def _mark_token(ax: Axes, life: QueryLife, size: tuple[int, int]) -> None:
    from matplotlib.patches import Rectangle

    cell = torch.tensor(life.cell)
    x0, y0, x1, y1 = corners_of_cells(cell, life.shapes, size).tolist()
    patch = Rectangle((x0, y0), x1 - x0, y1 - y0, fc=SKY, ec=RIM, lw=0.8, alpha=0.85, gid="token")
    ax.add_patch(patch)


def _score_steps(ax: Axes, life: QueryLife, names: Sequence[str], colors: Sequence[str]) -> None:
    page, scores = canvas.page_of(ax), life.scores.double().numpy()
    ax.plot(range(len(scores)), scores, color=page.muted, lw=1.2, zorder=1)
    ax.scatter(range(len(scores)), scores, c=colors, s=46, edgecolors=page.ink, lw=0.7, zorder=2)
    before = -1
    for step, (score, label) in enumerate(zip(scores, life.labels.tolist(), strict=True)):
        if label != before:  # only where the class changes
            name = figure_text(names[label]) if names else f"class {label}"
            below = score > 0.85
            marks.note(ax, name, (step, score), (0, -14 if below else 8), align="center")
        before = label
    ax.set(xlim=(-0.9, len(scores) - 0.5), ylim=(0, 1.02), ylabel="score of the best class")
    labels = ["token", *(f"layer {i}" for i in range(len(scores) - 1))]
    ax.set_xticks(range(len(scores)), labels, rotation=45, ha="right", fontsize=8)
    ax.set_title(f"final score {life.score:.2f}", fontsize=9)
    marks.open_frame(ax)


def box_trails(
    boxes: Float[Tensor, "S Q 4"], image: Picture, queries: Sequence[int], ax: Axes | None = None
) -> Axes:
    """Draw the reference box dashed, the last box solid, and the path of the centre."""
    ax, size = canvas.picture_axes(ax, image, quiet=0.6)
    colors = marks.steps(len(boxes))
    centres = marks.centres_of_boxes(boxes, size)
    for query in queries:
        marks.frame_box(ax, boxes[0, query], size, colors[0], "--", 1.0)
        marks.frame_box(ax, boxes[-1, query], size, colors[-1], "-", 1.8)
        x, y = centres[:, query].unbind(-1)
        (way,) = ax.plot(x, y, color="#FFFFFF", lw=1.2, zorder=3, gid=f"query {query}")
        way.set_path_effects(marks.rim(2.6))
        ax.scatter(x, y, c=colors, s=26, edgecolors=RIM, linewidths=0.6, zorder=4)
    entries = [marks.line_key("reference box", colors[0], "--")]
    entries.append(marks.line_key("last box", colors[-1]))
    entries.append(marks.mark_key("centre after each step", colors[len(colors) // 2], "o"))
    marks.key_below(ax, entries)
    return ax


def refinement_curves(
    boxes: Float[Tensor, "S Q 4"], objects: Float[Tensor, "Q 4"], ax: Axes | None = None
) -> Axes:
    """Draw the IoU of each query's box with its object after every step, and the mean."""
    ax, page = canvas.new_plot(ax, 3.4)
    overlap = paired_iou(xyxy_from_cxcywh(boxes), xyxy_from_cxcywh(objects)[None])
    overlap = overlap.detach().cpu().double()
    for query, curve in enumerate(overlap.unbind(1)):
        ax.plot(range(len(curve)), curve, color=page.muted, lw=0.8, alpha=0.7, gid=f"query {query}")
    mean = overlap.mean(1)
    ax.plot(range(len(mean)), mean, color=page.color(5), lw=2.4, marker="o", label="mean")
    ax.plot([], [], color=page.muted, lw=0.8, label="one query")
    ax.set(ylim=(0, 1.02), ylabel="IoU with its object")
    ax.set_xticks(range(len(mean)), ["reference", *(f"layer {i}" for i in range(len(mean) - 1))])
    marks.open_frame(ax)
    ax.legend(fontsize=8, frameon=False, loc="lower right")
    return ax
