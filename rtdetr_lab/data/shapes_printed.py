"""# The printed world: sheets that carry a symbol, on photographs

In the shapes world the outline decides, so a backbone that learned only outlines tells two playing
cards apart badly. Here a small printed symbol decides (`sheets.py`), and the background is mostly a
photograph. Half of the pictures also hold shapes of the shapes world, with their classes.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rtdetr_lab.data.photographs import photograph
from rtdetr_lab.data.shapes_outlines import CLASSES
from rtdetr_lab.data.shapes_paint import CLUTTER, Canvas, Regions, Rng, log_uniform
from rtdetr_lab.data.shapes_plan import ShapesConfig, Thing
from rtdetr_lab.data.sheets import SYMBOLS, Sheet


@dataclass(frozen=True)
class Printed(ShapesConfig):
    """Settings of the printed world; those of the shapes apply to half of the pictures."""

    min_objects: int = 0
    max_objects: int = 6
    crowding: float = 0.1
    crowd_size: int = 6
    max_sheets: int = 6
    """The largest number of sheets; beside shapes, two fewer."""
    min_sheet: float = 44.0
    max_sheet: float = 160.0
    """Limits of the square root of a sheet's area, in pixels."""
    photos: float = 0.65
    """Share of pictures whose background is a photograph: 0 … 1."""
    names: ClassVar[tuple[str, ...]] = (
        *ShapesConfig.names,
        *(f"sheet {symbol}" for symbol in SYMBOLS),
    )

    def background(self, rng: Rng) -> tuple[Canvas, Regions]:
        """Paint a part of a photograph, which counts as clutter, or the shapes world's stuff."""
        if rng.random() >= self.photos:
            return super().background(rng)
        size = self.size, self.size
        return photograph(rng, size), np.full(size, CLUTTER, np.uint8)

    def changed(self, rng: Rng, things: list[Thing]) -> list[Thing]:
        """Add sheets, in front of the shapes and behind them, or keep no shape at all."""
        kept = things if rng.random() < 0.5 else []
        most = max(1, self.max_sheets - 2 * bool(kept))
        sheets = [self._sheet(rng) for _ in range(int(rng.integers(1, most + 1)))]
        both = [*kept, *sheets]
        return [both[i] for i in rng.permutation(len(both))]

    def _sheet(self, rng: Rng) -> Thing:
        symbol = int(rng.integers(len(SYMBOLS)))
        side = log_uniform(rng, self.min_sheet, self.max_sheet)
        return Thing(Sheet(SYMBOLS[symbol]), len(CLASSES) + symbol, side)


def printed(size: int = 256) -> Printed:
    """Return the printed world with another picture size; the objects scale with it."""
    share = size / 256
    return Printed(
        size=size,
        min_side=max(4.0, 14 * share),
        max_side=128 * share,
        min_sheet=44 * share,
        max_sheet=160 * share,
    )
