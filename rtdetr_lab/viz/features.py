r"""# Features: the maps of every level, before and after a stage

A map has hundreds of channels, and a page has room for a few pictures. So we show one number per
cell: the root mean square over channels, which is the strength of the cell, or a single channel.

    feature_maps([seen[f"backbone.{name}"][0] for name in ("S3", "S4", "S5")], image)
    feature_stages({"projected": before, "top-down": down, "bottom-up": up}, image)

Rows of `feature_stages` are stages and columns are levels, so CCFF reads from top to bottom. Every
panel has its own scale, so you can compare only *where* the strength is. With `shared=True` you can
also compare *how much* it is.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from rtdetr_lab.notation import Size
from rtdetr_lab.viz import canvas
from rtdetr_lab.viz.canvas import Axes, Picture
from rtdetr_lab.viz.cells import level_name


def strength(features: Float[Tensor, "D h w"]) -> Float[Tensor, "h w"]:
    """Compute the root mean square over channels."""
    return features.detach().double().square().mean(0).sqrt()


def feature_maps(
    maps: Sequence[Float[Tensor, "_ _ _"]],
    image: Picture,
    channel: int | None = None,
    axes: Sequence[Axes] | None = None,
) -> list[Axes]:
    """Draw the picture, then one panel per level: strength, or one channel."""
    height, width = canvas.as_rgb(image).shape[:2]
    axes = canvas.new_grid(axes, len(maps) + 1, len(maps) + 1, height / width)
    size = canvas.show_picture(axes[0], image)
    axes[0].set_title("picture", fontsize=9)
    _level_panels(axes[1:], maps, size, channel, shared=False)
    return axes


def feature_stages(
    stages: Mapping[str, Sequence[Float[Tensor, "_ _ _"]]],
    image: Picture,
    channel: int | None = None,
    shared: bool = False,
    axes: Sequence[Axes] | None = None,
) -> list[Axes]:
    """Draw feature maps: one row per stage, one column per level."""
    height, width = canvas.as_rgb(image).shape[:2]
    columns = len(next(iter(stages.values())))
    axes = canvas.new_grid(axes, columns * len(stages), columns, height / width, extra=0.3)
    for row, (name, maps) in enumerate(stages.items()):
        own = axes[row * columns : (row + 1) * columns]
        _level_panels(own, maps, (height, width), channel, shared)
        for ax, features in zip(own, maps, strict=True):  # a stage renames the maps, not their size
            ax.set_title(f"{features.shape[1]}×{features.shape[2]} cells", fontsize=9)
        own[0].set_ylabel(name, fontsize=9)
    return axes


def _level_panels(
    axes: Sequence[Axes],
    maps: Sequence[Float[Tensor, "_ _ _"]],
    size: Size,
    channel: int | None,
    shared: bool,
) -> None:
    unit = "RMS over channels" if channel is None else f"channel {channel}"
    shown = [strength(m) if channel is None else m[channel].detach().double() for m in maps]
    together = torch.cat([values.flatten() for values in shown])
    for ax, values in zip(axes, shown, strict=True):
        scale = together if shared else values
        low = 0.0 if channel is None else float(scale.min())
        drawn = canvas.heat(ax, values, size, over_picture=False, vmin=low, vmax=float(scale.max()))
        rows, columns = values.shape
        ax.set_title(f"{level_name((rows, columns), size)} · {rows}×{columns}", fontsize=9)
        canvas.bare(ax)
        if not shared:
            canvas.scale_bar(drawn, ax, unit if ax is axes[-1] else "")
    if shared:
        canvas.scale_bar(drawn, list(axes), unit)
