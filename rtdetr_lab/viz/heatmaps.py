r"""# Heat maps: three readings of one detection, over its picture

    maps = lab.heatmap(detector, "picture.png")    # `commands/readings.py` runs the model
    maps.sampling, maps.attention, maps.gradient   # H W each, in pixels of the picture
    maps.plot()
    maps.save("heatmap.png")

A detector computes on cells, and a picture has pixels. `spread` divides the number of a cell evenly
among the pixels that the cell covers. So sums stay the same, and a square of one colour is one
cell: no map is finer than its level.

Every panel has its own scale. Its unit is the mean of the map over the picture, so 1 is the colour
of a map that is equal everywhere, and 10 is ten times as much.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from rtdetr_lab.images.arrays import RGB
from rtdetr_lab.notation import Size
from rtdetr_lab.viz.canvas import Axes, heat, picture_grid, scale_bar
from rtdetr_lab.viz.marks import frame_corners, key_below, line_key
from rtdetr_lab.viz.palette import SKY
from rtdetr_lab.writing import figure_text

DPI = 180
"""Dots per inch of a saved figure: 1260 pixels, twice the width of a column of text."""


@dataclass(frozen=True, eq=False)
class Heatmaps:
    """Three maps of one detection, in pixels of the upright picture; none is negative.

    `sampling` sums to the fraction of the weight that lies on cells (points outside the picture
    read zeros), `attention` to 1. `gradient` is in units of score. `commands/readings.py` defines
    them. `box_xyxy` has the corners in pixels.
    """

    sampling: Float[Tensor, "H W"] = field(repr=False)
    attention: Float[Tensor, "H W"] = field(repr=False)
    gradient: Float[Tensor, "H W"] = field(repr=False)
    box_xyxy: Float[Tensor, "4"]
    name: str
    score: float
    query: int
    image: RGB = field(repr=False)
    reads: str = "sampling points"

    def plot(self, axes: Sequence[Axes] | None = None) -> list[Axes]:
        """Draw the three maps side by side over the picture; return the axes."""
        axes, size = picture_grid(axes, self.image, 3, 3, quiet=0.6, extra=1.15)
        panels = {
            f"1  Where it reads\n{self.reads}, by weight": self.sampling,
            "2  What its cells attend to\nself-attention under the box": self.attention,
            "3  What its score depends on\ngradient × features, S3 to S5": self.gradient,
        }
        for ax, (title, values) in zip(axes, panels.items(), strict=True):
            mean = values.mean().clamp(min=1e-30)
            drawn = heat(ax, values / mean, size)
            frame_corners(ax, self.box_xyxy, SKY, "-", 1.8)
            ax.set_title(title, fontsize=9)
            scale_bar(drawn, ax, "times the mean of the picture", below=True)
        found = f"{self.name} {self.score:.2f}, query {self.query}"
        key_below(axes, [line_key(figure_text(found), SKY)])
        return axes

    def save(self, path: str | Path) -> Path:
        """Write `plot` to a file; the suffix of its name chooses the format."""
        import matplotlib.pyplot as plt

        figure = self.plot()[0].figure
        figure.savefig(path, dpi=DPI)
        plt.close(figure)
        return Path(path)


def spread(cells: Float[Tensor, "h w"], size: Size) -> Float[Tensor, "H W"]:
    """Divide the number of every cell among the pixels it covers; the sum stays the same."""
    down, across = (
        torch.stack([inside(i / side, (i + 1) / side, count) for i in range(side)])
        for side, count in zip(size, cells.shape, strict=True)
    )
    cells = cells.detach().cpu().double()
    return down @ cells @ across.T


def inside(low: float, high: float, count: int) -> Float[Tensor, " count"]:
    """Return the fraction of each of `count` equal cells of [0, 1] between `low` and `high`."""
    edges = torch.arange(count + 1, dtype=torch.float64) / count
    covered = edges[1:].clamp(max=high) - edges[:-1].clamp(min=low)
    return covered.clamp(min=0) * count
