r"""# Features: what a level holds, before and after a stage

A map has hundreds of channels and a page has room for a few pictures. We show one number per cell,
the root mean square over channels, "how much is said here", or a single channel as it is.

    feature_maps([seen[f"backbone.{name}"][0] for name in ("S3", "S4", "S5")], image)
    feature_stages({"projected": before, "top-down": down, "bottom-up": up}, image)

Rows of `feature_stages` are stages and columns are levels, so CCFF reads from top to bottom. Every
panel has its own scale unless `shared=True`: where a stage puts its strength is comparable, how
much it is only then.
"""

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from rtdetr_lab.viz.canvas import Axes, Picture, as_rgb, bare, heat, new_grid, scale_bar
from rtdetr_lab.viz.cells import level_name


def strength(features: Float[Tensor, "D h w"]) -> Float[Tensor, "h w"]:
    """Root mean square over channels."""
    return features.detach().double().square().mean(0).sqrt()


def feature_maps(
    maps: Sequence[Float[Tensor, "_ _ _"]],
    image: Picture,
    channel: int | None = None,
    axes: Sequence[Axes] | None = None,
) -> list[Axes]:
    """The picture, then one panel per level: strength, or one channel."""
    size = as_rgb(image).shape[:2]
    axes = new_grid(axes, len(maps) + 1, len(maps) + 1, size[0] / size[1])
    axes[0].imshow(as_rgb(image), extent=(0, size[1], size[0], 0))
    axes[0].set_title("picture", fontsize=9)
    bare(axes[0])
    _level_panels(axes[1:], maps, size, channel, shared=False)
    return axes


def feature_stages(
    stages: Mapping[str, Sequence[Float[Tensor, "_ _ _"]]],
    image: Picture,
    channel: int | None = None,
    shared: bool = False,
    axes: Sequence[Axes] | None = None,
) -> list[Axes]:
    """One row per stage, one column per level."""
    size = as_rgb(image).shape[:2]
    columns = len(next(iter(stages.values())))
    axes = new_grid(axes, columns * len(stages), columns, size[0] / size[1], extra=0.3)
    for row, (name, maps) in enumerate(stages.items()):
        own = axes[row * columns : (row + 1) * columns]
        _level_panels(own, maps, size, channel, shared)
        own[0].set_ylabel(name, fontsize=9)
    return axes


def _level_panels(
    axes: Sequence[Axes],
    maps: Sequence[Float[Tensor, "_ _ _"]],
    size: tuple[int, ...],
    channel: int | None,
    shared: bool,
) -> None:
    height, width = size
    unit = "RMS over channels" if channel is None else f"channel {channel}"
    shown = [strength(m) if channel is None else m[channel].detach().double() for m in maps]
    low = 0.0 if channel is None else min(float(s.min()) for s in shown)
    high = max(float(s.max()) for s in shown)
    for ax, values in zip(axes, shown, strict=True):
        own_low = low if shared or channel is None else float(values.min())
        own_high = high if shared else float(values.max())
        drawn = heat(ax, values, (height, width), False, vmin=own_low, vmax=own_high)
        rows, columns = values.shape
        ax.set_title(
            f"{level_name((rows, columns), (height, width))} · {rows}×{columns}", fontsize=9
        )
        bare(ax)
        if not shared:
            last = ax is axes[-1]
            scale_bar(drawn, ax, unit if last else "")
    if shared:
        scale_bar(drawn, list(axes), unit)
