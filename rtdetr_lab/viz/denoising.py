r"""# Denoising: noised objects, and the attention mask between groups

A group contains a positive and a negative copy of every object. `noised_boxes` shows one group on
the picture: positives are near their object, negatives farther away. `mask_matrix` shows the
attention mask, one pixel per pair of queries: a group never attends to another group, and matching
queries never attend to the groups, which would reveal the objects.

    noised_boxes(batch, objects, image, group=0)
    mask_matrix(batch.blocked, batch.num_queries, batch.num_groups)
"""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from rtdetr_lab.structures import CDNBatch
from rtdetr_lab.viz.canvas import Axes, Picture, new_plot, picture_axes
from rtdetr_lab.viz.marks import frame_box, key_below, line_key, mark_key, matrix
from rtdetr_lab.viz.palette import ORANGE, SKY, Palette, mix

OBJECT = "#FFFFFF"


def noised_boxes(
    batch: CDNBatch,
    objects: Float[Tensor, "T 4"],
    image: Picture,
    picture: int = 0,
    group: int = 0,
    ax: Axes | None = None,
) -> Axes:
    """Draw the objects of a picture and their positive and negative copies in one group."""
    ax, size = picture_axes(ax, image, quiet=0.6)
    per_group = batch.num_queries // batch.num_groups
    rows = range(group * per_group, (group + 1) * per_group)
    boxes = batch.reference_logits[picture].detach().sigmoid()
    for box in objects:
        frame_box(ax, box, size, OBJECT, width=2.4).set_gid("object")
    for row in rows:
        if int(batch.target_index[picture, row]) < 0:
            continue  # padding
        positive = bool(batch.is_positive[picture, row])
        color, dash = (SKY, "--") if positive else (ORANGE, "-.")
        drawn = frame_box(ax, boxes[row], size, color, dash, 1.8)
        drawn.set_gid(f"{'positive' if positive else 'negative'} {row}")
    ax.set_title(f"group {group} of {batch.num_groups}", fontsize=9)
    entries = [line_key("object", OBJECT), line_key("positive: restore the object", SKY, "--")]
    key_below(ax, [*entries, line_key("negative: predict nothing", ORANGE, "-.")])
    return ax


def mask_matrix(
    blocked: Bool[Tensor, "S S"], num_denoising: int, num_groups: int, ax: Axes | None = None
) -> Axes:
    """Draw the attention mask; it is open where the query of a row may attend to a column."""
    from matplotlib.colors import ListedColormap

    ax, page = new_plot(ax, 5.2, 5.4)
    closed, opened = _mask_colors(page)
    shown = (~blocked).detach().cpu().numpy().astype(float)
    matrix(ax, shown, cmap=ListedColormap([closed, opened]), vmin=0, vmax=1)
    per_group = num_denoising // num_groups
    for group in range(1, num_groups + 1) if num_groups <= 10 else ():
        for line in (ax.axhline, ax.axvline):
            line(per_group * group - 0.5, color=page.ink, lw=0.5)
    total = len(blocked)
    middles = [num_denoising / 2, (num_denoising + total) / 2]
    first = f"{num_denoising} denoising\n({num_groups} groups)"
    names = [first, f"{total - num_denoising} matching"]
    _name_sides(ax, middles, names, rotation=90, va="center")
    ax.xaxis.set_label_position("top")
    key = [mark_key("may attend", opened, "s"), mark_key("blocked", closed, "s")]
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.1), "frameon": False}
    ax.legend(handles=key, ncols=2, fontsize=8, **below)
    return ax


def _name_sides(ax: Axes, places: Sequence[float | int], names: Sequence[str], **look: Any) -> None:
    ax.set_xticks(places, names, fontsize=8)
    ax.set_yticks(places, names, fontsize=8, **look)
    ax.set(xlabel="attended", ylabel="attends")
    ax.tick_params(length=0)


def _mask_colors(page: Palette) -> tuple[str, str]:
    """Return colours: blocked is close to the page, open is blue; they differ in lightness."""
    return mix(page.background, page.muted, 0.25), page.color(0)
