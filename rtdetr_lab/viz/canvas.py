r"""# Canvas: the common part of all figures

This module has axes, given or new, a picture to draw on, and a colour bar.

- **Positions on a picture are pixels**, x to the right and y down. The left edge of the first pixel
  is 0 and not −½, so a fraction times the size is a position.
- **A quiet picture** is grey and dark, so that colour and brightness show only the data.
- **Marks have a dark rim.** Colours are Okabe and Ito's (`palette.py`). Every colour comes with a
  second difference (a shape, a dash, a word).
- **Light or dark** depends on the page: use `with themed(DARK):` around any figure. Functions read
  the background of their axes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from rtdetr_lab.config import require
from rtdetr_lab.images.arrays import RGB, rgb_from_array
from rtdetr_lab.notation import Size
from rtdetr_lab.viz.palette import DARK, FRAME, HEAT, LIGHT, OUTSIDE, Palette, luminance

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Axes
else:  # only functions that draw import matplotlib, not annotations
    Axes = Any

Picture = np.ndarray | Tensor
WIDTH = 7.0
"""Inches of a full-width figure: 700 pixels in the docs."""


@contextmanager
def themed(palette: Palette) -> Iterator[None]:
    """Give new figures in the block the page, ink and grid of `palette`."""
    import matplotlib

    ink = ("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")
    page = ("figure.facecolor", "axes.facecolor", "savefig.facecolor", "legend.facecolor")
    style = dict.fromkeys(ink, palette.ink) | dict.fromkeys(page, palette.background)
    with matplotlib.rc_context(style | {"axes.edgecolor": palette.muted}):
        yield


def page_of(ax: Axes) -> Palette:
    """The palette that fits the background of `ax`."""
    from matplotlib.colors import to_hex

    return DARK if luminance(to_hex(ax.get_facecolor())) < 0.5 else LIGHT


def as_rgb(image: Picture) -> RGB:
    """Convert the picture in an array or tensor to 8-bit RGB."""
    return rgb_from_array(image, "image")


def new_axes(ax: Axes | None, height: float, width: float = WIDTH) -> Axes:
    """Return `ax`, or the axes of a new figure of the given inches."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height), layout="compressed")[1]


def new_plot(ax: Axes | None, height: float, width: float = WIDTH) -> tuple[Axes, Palette]:
    """Return `new_axes`, and the palette of their page."""
    ax = new_axes(ax, height, width)
    return ax, page_of(ax)


def panel_width(ax: Axes) -> float:
    """Width of these axes in inches.

    It does not depend on the current position, because the layout changes that later.
    """
    cell = ax.get_subplotspec()
    share = 1.0 if cell is None else len(cell.colspan) / cell.get_gridspec().ncols
    return share * float(ax.figure.get_figwidth())


def new_grid(
    axes: Sequence[Axes] | None, count: int, columns: int, aspect: float, extra: float = 0.45
) -> list[Axes]:
    """Return `axes` if there are `count`, or those of a new figure with at most `columns` per row.

    `aspect` is height divided by width of one panel, `extra` the inches of its title and legend.
    Raises `ConfigError` for a wrong number of axes.
    """
    if axes is not None:
        flat = list(np.ravel(np.array(axes, dtype=object)))
        what = f"{len(flat)} axes for {count} panels"
        require(len(flat) == count, "axes", what, f"pass {count}, or None for a new figure")
        return flat
    import matplotlib.pyplot as plt

    columns = min(columns, count)
    rows = -(-count // columns)
    height = rows * (WIDTH / columns * aspect + extra)
    look = {"figsize": (WIDTH, height), "layout": "compressed"}
    figure, made = plt.subplots(rows, columns, squeeze=False, **look)
    for spare in made.flat[count:]:
        figure.delaxes(spare)
    return list(made.flat[:count])


def show_picture(ax: Axes, image: Picture, quiet: float = 0.0) -> Size:
    """Draw the picture, mixed with dark grey by `quiet`; return (height, width) in pixels."""
    rgb = as_rgb(image)
    height, width = rgb.shape[:2]
    if quiet:
        grey = rgb @ np.array([0.299, 0.587, 0.114])
        muted = rgb * (1 - quiet) + grey[..., None] * quiet
        # The power keeps a dark shape on a dark wall visible.
        rgb = (255 * (muted / 255) ** 0.6 * (1 - 0.6 * quiet)).astype(np.uint8)
    ax.imshow(rgb, extent=(0, width, height, 0), aspect="equal")
    ax.set_facecolor(OUTSIDE)
    ax.autoscale(False)  # marks over the edge must not shrink the picture
    bare(ax)
    return height, width


def picture_axes(
    ax: Axes | None, image: Picture, quiet: float, extra: float = 0.4, across: float = WIDTH
) -> tuple[Axes, Size]:
    """Draw the picture on `ax` or on a new figure; return the axes and (height, width) in pixels.

    The new figure has a picture `across` inches wide, and `extra` inches of title and legend.
    """
    height, width = as_rgb(image).shape[:2]
    ax = new_axes(ax, across * height / width + extra)
    return ax, show_picture(ax, image, quiet)


def picture_grid(
    axes: Sequence[Axes] | None,
    image: Picture,
    count: int,
    columns: int,
    quiet: float,
    extra: float,
) -> tuple[list[Axes], Size]:
    """Draw the picture on each of `count` panels; return them and (height, width) in pixels."""
    height, width = as_rgb(image).shape[:2]
    panels = new_grid(axes, count, columns, height / width, extra)
    for ax in panels:
        show_picture(ax, image, quiet)
    return panels, (height, width)


def bare(ax: Axes) -> None:
    """Remove the ticks, and make the frame thin."""
    ax.set(xticks=[], yticks=[])
    for side in ax.spines.values():
        side.set(color=FRAME, linewidth=0.6)


def heat(
    ax: Axes,
    values: Float[Tensor, "h w"],
    size: Size,
    over_picture: bool = True,
    vmin: float = 0.0,
    vmax: float | None = None,
) -> Any:
    """Draw one number per cell over a picture of `size`; small values are transparent.

    The returned image contains the values themselves.
    """
    shown = values.detach().cpu().double().numpy()
    high = float(shown.max()) if vmax is None else vmax
    strength = np.clip((shown - vmin) / max(high - vmin, 1e-12), 0, 1)
    alpha = 0.9 * strength**0.5 if over_picture else None
    extent = (0, size[1], size[0], 0)
    style = {"cmap": HEAT, "interpolation": "nearest", "extent": extent, "alpha": alpha}
    return ax.imshow(shown, vmin=vmin, vmax=high, **style)


def scale_bar(drawn: Any, axes: Axes | Sequence[Axes], label: str, below: bool = False) -> None:
    """Draw a thin colour bar for the colours of `drawn`, beside one panel or all, or below one."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.ticker import MaxNLocator

    # A separate mappable: the alpha of the image would make the bar transparent as well.
    opaque = ScalarMappable(drawn.norm, drawn.get_cmap())
    if isinstance(axes, Sequence):
        bar = axes[0].figure.colorbar(opaque, ax=list(axes), fraction=0.04, pad=0.02, aspect=30)
    elif below:
        under = axes.inset_axes((0, -0.08, 1, 0.04))
        bar = axes.figure.colorbar(opaque, cax=under, orientation="horizontal")
    else:
        # As tall as the panel; a bar in the layout is not, if the panel keeps its aspect.
        beside = axes.inset_axes((1.02, 0, 0.03, 1))
        bar = axes.figure.colorbar(opaque, cax=beside)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.locator = MaxNLocator(nbins=4, min_n_ticks=2)
    bar.update_ticks()
    bar.outline.set(edgecolor=FRAME, linewidth=0.6)
