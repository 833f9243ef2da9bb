r"""# Attention between queries: where duplicates are settled

Nothing removes duplicates after this decoder. In the self-attention of every layer, queries hear
who else looks at the same object, and one learns to step back. Row $q$ of the weights says whom
query $q$ listens to, and sums to one.

    weights = seen["decoder.layers.2.self_attn.weights"][0]             # M Q Q
    query_matrix(weights)
    query_links(weights, boxes, image, query=0)
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rtdetr_lab.viz.canvas import (
    HEAT,
    ORANGE,
    SKY,
    as_rgb,
    frame_box,
    key_below,
    line_key,
    new_axes,
    scale_bar,
    show_picture,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def query_matrix(
    weights: Float[Tensor, "M Q Q"], head: int | None = None, ax: "Axes | None" = None
) -> "Axes":
    """Self-attention between queries, best-scored first: each row sums to 1."""
    ax = new_axes(ax, 4.4, 5.0)
    shown = (weights.mean(0) if head is None else weights[head]).detach().cpu().double().numpy()
    drawn = ax.imshow(shown, cmap=HEAT, vmin=0, interpolation="nearest")
    last = len(shown) - 1
    ax.set(xlabel="is listened to (query, by rank)", ylabel="listens (query, by rank)")
    ax.set(xticks=[0, last // 2, last], yticks=[0, last // 2, last])
    ax.set_title("mean of all heads" if head is None else f"head {head}", fontsize=9)
    scale_bar(drawn, ax, "attention weight (rows sum to 1)")
    return ax


def query_links(
    weights: Float[Tensor, "M Q Q"],
    boxes: Float[Tensor, "Q 4"],
    image: np.ndarray | Tensor,
    query: int,
    count: int = 12,
    ax: "Axes | None" = None,
) -> "Axes":
    """Lines from a query to the `count` others it listens to most, as wide as their weight."""
    height, width = as_rgb(image).shape[:2]
    ax = new_axes(ax, 7.0 * height / width + 0.4)
    size = show_picture(ax, image, quiet=0.6)
    heard = weights.mean(0)[query].detach().double().clone()
    to_itself = float(heard[query])
    heard[query] = -1
    top = heard.topk(min(count, len(heard) - 1))
    centres = boxes[:, :2].detach().cpu().double() * torch.tensor([width, height])
    x, y = centres[query].tolist()
    for other, weight in zip(top.indices.tolist(), top.values.tolist(), strict=True):
        thick = 0.5 + 5 * weight / max(float(top.values[0]), 1e-12)
        line = {"color": ORANGE, "lw": thick, "gid": f"{other}:{weight!r}", "alpha": 0.9}
        ax.plot([x, *centres[other, :1].tolist()], [y, *centres[other, 1:].tolist()], **line)
        frame_box(ax, boxes[other], size, ORANGE, "--", 1.0)
    frame_box(ax, boxes[query], size, SKY, width=2.4).set_zorder(5)
    shown = float(top.values.sum())
    ax.set_title(f"{to_itself:.0%} to itself, {shown:.0%} to the boxes shown", fontsize=9)
    rest = line_key(f"the {len(top.values)} it listens to most", ORANGE, "--")
    key_below(ax, [line_key(f"query {query}", SKY), rest])
    return ax
