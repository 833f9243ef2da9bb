r"""# Notation: the letters and names everything else uses

A capital letter means the same in every chapter, notebook, test and figure, with a few exceptions.
C counts classes or channels; Q, K and V are also the inputs of an attention, and W is also a
weight. A page that uses a letter for something else says so (P in AIFI, N in denoising). Other
letters belong to one page: it defines them, and the next page may use them for something else. The
letters appear in the signatures (`Float[Tensor, "B Q 4"]`), where jaxtyping checks them while the
tests run.

| letter  | meaning                                                          | RT-DETR at 640² |
|---------|------------------------------------------------------------------|-----------------|
| `B`     | pictures in a batch                                              |                 |
| `C`     | classes; in a feature map the number of channels                 | 80              |
| `H`,`W` | height and width of a picture, or of a map                       | 640, 640        |
| `N`     | tokens: cells of all levels, one after the other; in AIFI of S5  | 8400            |
| `Q`     | queries of the decoder                                           | 300             |
| `D`     | channels of a token or query (its *width*)                       | 256             |
| `L`     | feature levels                                                   | 3               |
| `M`     | attention heads                                                  | 8               |
| `K`     | sampling points of one head on one level                         | 4               |
| `P`     | sampling points of one head on all levels, $\sum_l K_l$          | 12              |
| `T`     | ground-truth objects of one picture                              |                 |

| name             | meaning                                                                      |
|------------------|------------------------------------------------------------------------------|
| `S3`, `S4`, `S5` | backbone maps, strides 8, 16, 32 (paper Fig. 4)                               |
| `F5`             | S5 after AIFI                                                                |
| `logits`         | in a name: before the sigmoid; plain `boxes` and `score` are after it        |
| `_xyxy`          | corners; without it a box is centre-x, centre-y, width, height in [0, 1]     |
| `num_*`          | a count                                                                      |

**Sizes are (height, width) everywhere.** Points and boxes are (x, y) first, as in the papers.
**Tokens are level by level, each level row by row.** So token $n$ of level $l$, counted from 0 in
each level, lies in row $\lfloor n / W_l \rfloor$ and column $n \bmod W_l$; `token_grid` computes it
for all chapters.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

Size = tuple[int, int]
"""(height, width), in cells or pixels."""

Edges = tuple[int, int]
"""(shortest, longest) side of a picture that keeps its shape, in pixels."""

LEVEL_NAMES = ("S2", "S3", "S4", "S5", "S6")
"""Backbone maps by log2 of their stride, starting at stride 4."""


def num_tokens(shapes: Sequence[Size]) -> int:
    """Tokens of all levels together: 8400 for the three maps of a 640² picture."""
    return sum(height * width for height, width in shapes)


def level_starts(shapes: Sequence[Size]) -> list[int]:
    """Index of the first token of every level."""
    starts = [0]
    for height, width in shapes[:-1]:
        starts.append(starts[-1] + height * width)
    return starts


def token_grid(
    shapes: Sequence[Size], device: torch.device | str | None = None
) -> Int[Tensor, "N 3"]:
    """(level, row, column) of every token, in token order."""
    cells = []
    for level, (height, width) in enumerate(shapes):
        row = torch.arange(height, device=device)[:, None].expand(height, width)
        column = torch.arange(width, device=device).expand(height, width)
        cells.append(torch.stack([torch.full_like(row, level), row, column], dim=-1).flatten(0, 1))
    return torch.cat(cells)


def tokens_of(features: Float[Tensor, "B D H W"]) -> Float[Tensor, "B N D"]:
    """Lay the cells of one map end to end, row by row.

    Its gradient comes back with the memory layout of a map. torch's batch norm on a CPU (seen in
    2.13) computes wrong gradients for a batch of one picture if they have the layout of tokens.
    """
    if features.requires_grad and not features.is_leaf:
        features.register_hook(Tensor.contiguous)
    return features.flatten(2).transpose(1, 2)


def tokens_from_maps(maps: Sequence[Float[Tensor, "B D _ _"]]) -> Float[Tensor, "B N D"]:
    """Lay the cells of all levels end to end, each level row by row."""
    return torch.cat([tokens_of(m) for m in maps], dim=1)


def maps_from_tokens(
    tokens: Float[Tensor, "B N D"], shapes: Sequence[Size]
) -> list[Float[Tensor, "B D _ _"]]:
    """The inverse of `tokens_from_maps`."""
    parts = tokens.split([height * width for height, width in shapes], dim=1)
    return [p.transpose(1, 2).unflatten(2, shape) for p, shape in zip(parts, shapes, strict=True)]
