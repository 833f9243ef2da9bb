r"""# Looks: what one query looks at in one decoder layer

The numbers behind `sampling.py`: locations, weights and the reference box of a single query, cut
out of what a `record` has kept, and the part of the picture that holds them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rtdetr_lab.config import require
from rtdetr_lab.notation import Size

View = tuple[float, float, float, float]
"""The part of the picture that is shown: left, top, right, bottom in pixels."""

BEYOND = 0.15
"""How far around the picture the view may reach to show points that lie outside."""


@dataclass(frozen=True, eq=False)
class Looks:
    """What one query looks at in one decoder layer. Locations are (x, y) in [0, 1]; `points` per
    head on each level sum to P; `box` is the reference, cxcywh; `reads` as in the header."""

    locations: Float[Tensor, "M P 2"]
    weights: Float[Tensor, "M P"]
    points: tuple[int, ...]
    box: Float[Tensor, "4"] | None = None
    reads: Float[Tensor, "M P 2"] | None = None

    def __post_init__(self) -> None:
        require(
            sum(self.points) == self.weights.shape[1],
            "looks.points",
            f"{self.points} are not {self.weights.shape[1]} points",
            "pass the points per level of the layer that was recorded",
        )

    @property
    def levels(self) -> Int[Tensor, "P"]:
        """The level of every point."""
        counts = torch.tensor(self.points)
        return torch.arange(len(self.points)).repeat_interleave(counts)


def looks_of(
    seen: Mapping[str, Tensor], layer: int, query: int, points: Sequence[int], picture: int = 0
) -> Looks:
    """From the taps of a recorded model. `query` counts from the last end if negative."""
    where = f"decoder.layers.{layer}.cross_attn"
    return Looks(
        seen[f"{where}.locations"][picture, query],
        seen[f"{where}.weights"][picture, query],
        tuple(points),
        seen[f"decoder.reference.{layer}"][picture, query],
    )


def close_up(looks: Sequence[Looks], size: Size, margin: float = 0.15) -> View:
    """The part of a picture of `size`, as wide to high as the picture, that holds all points."""
    height, width = size
    places = torch.cat([one.locations.detach().cpu().double().flatten(0, 1) for one in looks])
    low, high = places.amin(0), places.amax(0)
    half = float((high - low).amax()) * (0.5 + margin)
    x, y = ((low + high) / 2).tolist()
    return ((x - half) * width, (y - half) * height, (x + half) * width, (y + half) * height)


def around(looks: Sequence[Looks], size: Size) -> View:
    """The picture, and around it as much as the points need, up to `BEYOND`."""
    height, width = size
    places = torch.cat([one.locations.detach().cpu().double().flatten(0, 1) for one in looks])
    left, top = places.amin(0).clamp(-BEYOND, 0).tolist()
    right, bottom = places.amax(0).clamp(1, 1 + BEYOND).tolist()
    return left * width, top * height, right * width, bottom * height
