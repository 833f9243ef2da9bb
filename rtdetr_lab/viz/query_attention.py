r"""# Attention between queries: where duplicates are settled

Nothing removes duplicates after this decoder. In the self-attention of every layer, queries hear
who else looks at the same object, and one learns to step back. Row $q$ of the weights says whom
query $q$ listens to, and sums to one.

    weights = seen["decoder.layers.2.self_attn.weights"][0]             # M Q Q
    query_matrix(weights)
    query_links(weights, boxes, image, query=0)
"""

from jaxtyping import Float
from torch import Tensor

from rtdetr_lab.viz.attention import one_head
from rtdetr_lab.viz.canvas import Axes, Picture, new_axes, picture_axes, scale_bar
from rtdetr_lab.viz.marks import centres_of_boxes, frame_box, key_below, line_key
from rtdetr_lab.viz.palette import HEAT, ORANGE, SKY


def query_matrix(
    weights: Float[Tensor, "M Q Q"], head: int | None = None, ax: Axes | None = None
) -> Axes:
    """Self-attention between queries, best-scored first: each row sums to 1."""
    ax = new_axes(ax, 4.4, 5.0)
    rows, title = one_head(weights, head)
    shown = rows.detach().cpu().double().numpy()
    drawn = ax.imshow(shown, cmap=HEAT, vmin=0, interpolation="nearest")
    last = len(shown) - 1
    ax.set(xlabel="is listened to (query, by rank)", ylabel="listens (query, by rank)")
    ax.set(xticks=[0, last // 2, last], yticks=[0, last // 2, last])
    ax.set_title(title, fontsize=9)
    scale_bar(drawn, ax, "attention weight (rows sum to 1)")
    return ax


def query_links(
    weights: Float[Tensor, "M Q Q"],
    boxes: Float[Tensor, "Q 4"],
    image: Picture,
    query: int,
    count: int = 12,
    ax: Axes | None = None,
) -> Axes:
    """Lines from a query to the `count` others it listens to most, as wide as their weight."""
    ax, size = picture_axes(ax, image, quiet=0.6)
    heard = weights.mean(0)[query].detach().double().clone()
    to_itself = float(heard[query])
    heard[query] = -1
    top = heard.topk(min(count, len(heard) - 1))
    centres = centres_of_boxes(boxes, size)
    for other, weight in zip(top.indices.tolist(), top.values.tolist(), strict=True):
        thick = 0.5 + 5 * weight / max(float(top.values[0]), 1e-12)
        line = {"color": ORANGE, "lw": thick, "gid": f"{other}:{weight!r}", "alpha": 0.9}
        ax.plot(*centres[[query, other]].unbind(-1), **line)
        frame_box(ax, boxes[other], size, ORANGE, "--", 1.0)
    frame_box(ax, boxes[query], size, SKY, width=2.4).set_zorder(5)
    shown = float(top.values.sum())
    ax.set_title(f"{to_itself:.0%} to itself, {shown:.0%} to the boxes shown", fontsize=9)
    rest = line_key(f"the {len(top.values)} it listens to most", ORANGE, "--")
    key_below(ax, [line_key(f"query {query}", SKY), rest])
    return ax
