"""# Printed sheets: cards, labels and signs that carry a symbol

A sheet is a rectangle with a symbol: small in its corners, or large in its middle. The rest of it
is a photograph, a pattern, lines of small text, or nothing. The symbol alone decides the class, and
on most sheets it is small. So a backbone that learns these classes learns to read fine detail. The
outlines of the shapes world do not teach that.

The symbols are capital letters and numbers that stay different when they are turned. So 6 and 9 do
not both occur, nor do N and Z, or M and W. Sheets are never mirrored.
"""

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image, ImageDraw, ImageFont
from PIL.ImageFont import FreeTypeFont

from rtdetr_lab.data.photographs import photograph
from rtdetr_lab.data.shapes_paint import Colour, Rng, colour, log_uniform

SYMBOLS = (*"ABCDEFGHJKLPQRSTUVXY2345789", "10")

FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSerif"),
    *("DejaVuSerif-Bold", "DejaVuSerif-Italic", "STIXGeneral", "STIXGeneralBol"),
    *("cmr10", "cmb10", "cmss10"),
)
"""Fonts that come with matplotlib."""

PALE, ANY, BLACK = ((0.0, 0.12), (0.75, 1.0)), ((0.0, 1.0), (0.15, 1.0)), ((0.0, 0.0), (0.0, 0.3))
"""Ranges of saturation and value."""

Ink = tuple[int, int, int]


@cache
def typeface(name: str, height: int) -> FreeTypeFont:
    """Return a font of `FONTS` at a height in pixels."""
    import matplotlib

    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    return ImageFont.truetype(file, height, layout_engine=ImageFont.Layout.BASIC)


@dataclass(frozen=True)
class Sheet:
    """A kind of sheet: all that carry this symbol."""

    symbol: str

    def drawn(self, rng: Rng, width: int, height: int) -> Image.Image:
        """Print one sheet of this size in pixels, upright, as an RGBA picture."""
        paper = colour(rng, *(PALE if rng.random() < 0.65 else ANY))
        page = _Page(rng, Image.new("RGBA", (width, height), (*_bytes(paper), 255)), paper)
        if rng.random() < 0.25:
            page.frame()
        if rng.random() < 0.2:
            page.print_large(self.symbol)
        else:
            page.fill_middle()
            page.print_corners(self.symbol)
        return page.sheet


class _Page:
    """A sheet while it is printed. `margin` is the width of the strip that holds the symbols."""

    def __init__(self, rng: Rng, sheet: Image.Image, paper: Colour) -> None:
        self.rng, self.sheet, self.paper = rng, sheet, paper
        self.pen, self.short = ImageDraw.Draw(sheet), min(sheet.size)
        self.margin = self.short * rng.uniform(0.1, 0.24)
        self.font, self.ink = FONTS[int(rng.integers(len(FONTS)))], self._ink()

    def frame(self) -> None:
        edge, thick = int(self.short * self.rng.uniform(0.02, 0.06)), max(1, self.short // 80)
        width, height = self.sheet.size
        corners = (edge, edge, width - edge - 1, height - edge - 1)
        self.pen.rectangle(corners, outline=self._ink(), width=thick)

    def print_large(self, symbol: str) -> None:
        glyph = self._glyph(symbol, self.short * self.rng.uniform(0.4, 0.85))
        self._lay(glyph, *((n - g) // 2 for n, g in zip(self.sheet.size, glyph.size, strict=True)))

    def print_corners(self, symbol: str) -> None:
        """Print the symbol in one corner, and mostly in the opposite one, upside down."""
        glyph = self._glyph(symbol, self.margin * self.rng.uniform(1.0, 1.5))
        edge = int(self.short * self.rng.uniform(0.03, 0.07))
        self._lay(glyph, edge, edge)
        if self.rng.random() < 0.85:
            other = glyph.rotate(180) if self.rng.random() < 0.8 else glyph
            far = (n - edge - g for n, g in zip(self.sheet.size, glyph.size, strict=True))
            self._lay(other, *far)

    def fill_middle(self) -> None:
        """Draw a photograph, a pattern, text or nothing between the margins."""
        left, top = (int(self.margin * self.rng.uniform(0.6, 1.3)) for _ in range(2))
        wide, high = self.sheet.width - 2 * left, self.sheet.height - 2 * top
        ways = (self._photograph, self._pattern, self._text, lambda *_: None)
        chosen = int(self.rng.choice(4, p=(0.35, 0.4, 0.1, 0.15)))
        if min(wide, high) > 8:
            ways[chosen](left, top, wide, high)

    def _photograph(self, left: int, top: int, wide: int, high: int) -> None:
        pixels = (photograph(self.rng, (high, wide)).transpose(1, 2, 0) * 255).astype(np.uint8)
        if self.rng.random() < 0.5:  # the lower half is the upper one upside down
            pixels[high // 2 :] = pixels[::-1, ::-1][high // 2 :]
        self.sheet.paste(Image.fromarray(pixels), (left, top))

    def _pattern(self, left: int, top: int, wide: int, high: int) -> None:
        """Draw a figure up to three times in a row, in up to four rows; some are left out."""
        columns, rows = int(self.rng.integers(1, 4)), int(self.rng.integers(1, 5))
        radius = min(wide / columns, high / rows) * self.rng.uniform(0.25, 0.48)
        sides, turn = int(self.rng.integers(2, 9)), int(self.rng.integers(360))
        ink = self.ink if self.rng.random() < 0.7 else self._ink()
        for place in range(columns * rows):
            x = left + (place % columns + 0.5) * wide / columns
            y = top + (place // columns + 0.5) * high / rows
            if self.rng.random() < 0.12:
                continue
            if sides == 2:
                self.pen.circle((x, y), radius, fill=ink)
            else:
                self.pen.regular_polygon((x, y, radius), sides, turn, fill=ink)

    def _text(self, left: int, top: int, wide: int, high: int) -> None:
        font = typeface(self.font, max(4, int(self.short * 0.06)))
        letters = max(1, int(wide / (0.6 * font.size)))
        for y in range(top, top + high - int(font.size), max(5, int(1.5 * font.size))):
            line = "".join(chr(97 + int(n)) for n in self.rng.integers(26, size=letters))
            self.pen.text((left, y), line, fill=self.ink, font=font)

    def _glyph(self, text: str, height: float) -> Image.Image:
        font = typeface(self.font, max(6, int(height)))
        left, top, right, bottom = (int(n) for n in font.getbbox(text))
        glyph = Image.new("RGBA", (right - left + 2, bottom - top + 2), (*self.ink, 0))
        pen = ImageDraw.Draw(glyph)
        pen.text((1 - left, 1 - top), text, fill=(*self.ink, 255), font=font)
        return glyph

    def _lay(self, glyph: Image.Image, x: int, y: int) -> None:
        self.sheet.alpha_composite(glyph, (max(0, x), max(0, y)))

    def _ink(self) -> Ink:
        """Draw black, red or any colour, until it is lighter or darker than the paper; at most
        eight times."""
        for _ in range(8):
            kind = self.rng.random()
            if kind < 0.5:
                drawn = colour(self.rng, *BLACK)
            elif kind < 0.75:
                low, high = (0.6, 0.0, 0.0), (1.0, 0.2, 0.25)
                drawn = self.rng.uniform(low, high).astype(np.float32)
            else:
                drawn = colour(self.rng, (0.0, 1.0), (0.0, 1.0))
            if abs(drawn.mean() - self.paper.mean()) > 0.3:
                break
        return _bytes(drawn)


def _bytes(tint: Colour) -> Ink:
    red, green, blue = (tint * 255).astype(int).tolist()
    return red, green, blue


@dataclass(frozen=True, eq=False)
class Sticker:
    """A sheet as a camera sees it: turned, tilted and scaled; red, green, blue and coverage."""

    pixels: Float32[np.ndarray, "4 n n"]
    half: int

    @property
    def mask(self) -> Bool[np.ndarray, "n n"]:
        """The pixels of which the sheet covers more than half."""
        return self.pixels[3] > 0.5

    @classmethod
    def of(cls, sheet: Sheet, side: float, rng: Rng) -> "Sticker":
        """Draw a sheet whose area is `side`² pixels before it is tilted. Four in ten lie almost
        along the picture, the others in any direction."""
        aspect = log_uniform(rng, 1.0, 1.7)
        wide, high = side / math.sqrt(aspect), side * math.sqrt(aspect)
        if rng.random() < 0.25:
            wide, high = high, wide
        printed = sheet.drawn(rng, int(1.3 * wide) + 4, int(1.3 * high) + 4)
        turn = float(rng.normal(0, 0.12) + rng.integers(4) * math.pi / 2)
        if rng.random() < 0.6:
            turn = rng.uniform(0, 2 * math.pi)
        tilt = rng.uniform(0.65, 1.0) if rng.random() < 0.4 else 1.0
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (wide / 2, high / 2)
        cosine, sine = math.cos(turn), math.sin(turn)
        corners = corners @ np.array([[cosine, sine], [-sine, cosine]]) * (1.0, tilt)
        corners *= 1 + rng.uniform(-0.06, 0.06, (4, 1))
        half = math.ceil(np.abs(corners).max()) + 2
        seen = _seen(printed, corners + half, 2 * half)
        pixels = seen.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
        pixels[:3] *= np.float32(rng.uniform(0.6, 1.05))
        return cls(pixels, half)


def _seen(printed: Image.Image, corners: np.ndarray, size: int) -> UInt8[np.ndarray, "n n 4"]:
    """Project a picture into a square so that its corners come to lie on `corners` (x, y)."""
    width, height = printed.size
    rows, values = [], []
    for (x, y), (u, v) in zip(
        corners, ((0, 0), (width, 0), (width, height), (0, height)), strict=True
    ):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    how = np.linalg.solve(np.array(rows), np.array(values))
    way, smooth = Image.Transform.PERSPECTIVE, Image.Resampling.BILINEAR
    return np.asarray(printed.transform((size, size), way, tuple(how), smooth))
