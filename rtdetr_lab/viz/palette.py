r"""# Palette: one set of colours for every figure

Okabe and Ito's eight colours ("Color Universal Design", 2008) are distinct for the three common
kinds of colour blindness. A detector may have eighty classes. So the seven chromatic colours
repeat, lighter and darker, in a fixed order: class 3 has the same colour in every figure, notebook
and run.
Eighty colours are too many to distinguish, so we always write a label beside the colour.

`LIGHT` is for white pages, `DARK` for dark ones. Both have the same hues. A colour too close to the
background is moved away from it (yellow on white, blue on black).
"""

from dataclasses import dataclass

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, YELLOW = OKABE_ITO
LEVEL_COLORS = (SKY, ORANGE, PURPLE, GREEN, YELLOW)
RIM, FRAME = "#101010", "#808080"
OUTSIDE = "#2B2B2B"  # the area beyond the edge of a picture
HEAT = "inferno"
"""Colour map of amounts; lightness grows with the value, for all kinds of colour vision."""

STEPS = (0.0, 0.45, -0.4, 0.22, -0.22, 0.62, -0.55)
"""Shift of the k-th round of the seven colours towards white (+) or black (-)."""

MIN_CONTRAST = 1.9
"""Contrast that a line needs on the page (a text needs 4.5)."""


@dataclass(frozen=True)
class Palette:
    """Page, ink, and a colour for every class."""

    background: str
    ink: str
    muted: str

    def color(self, label: int) -> str:
        """Return the colour of a class as #rrggbb: always the same, visible on the page."""
        base, turn = OKABE_ITO[label % 7], (label // 7) % len(STEPS)
        # After 49 the colours repeat with a small shift: still a function of the label alone.
        again = 0.1 * (label // (7 * len(STEPS)) % 5)
        color = mix(shade(base, STEPS[turn]), "#808080", again)
        away = -0.08 if luminance(self.background) > 0.5 else 0.08
        while contrast(color, self.background) < MIN_CONTRAST:
            color = shade(color, away)
        return color


LIGHT = Palette(background="#FFFFFF", ink="#1A1A1A", muted="#6E6E6E")
DARK = Palette(background="#111318", ink="#F2F2F2", muted="#9A9A9A")


def text_on(color: str) -> str:
    """Return black or white, with the higher contrast on `color`: never less than 4.5 : 1."""
    return max(("#000000", "#FFFFFF"), key=lambda ink: contrast(ink, color))


def rgb(color: str) -> tuple[int, int, int]:
    """Convert #rrggbb to numbers from 0 to 255."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def mix(color: str, other: str, amount: float) -> str:
    """Mix two colours: 0 gives `color`, 1 gives `other`."""
    pairs = zip(rgb(color), rgb(other), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * amount):02X}" for a, b in pairs)


def shade(color: str, amount: float) -> str:
    """Shift a colour towards white for positive amounts, towards black for negative ones."""
    return mix(color, "#FFFFFF" if amount > 0 else "#000000", abs(amount))


def luminance(color: str) -> float:
    """Compute relative luminance (WCAG 2.1): 0 is black, 1 is white."""
    parts = [c / 255 for c in rgb(color)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a: str, b: str) -> float:
    """Compute the contrast ratio (WCAG 2.1), from 1 (equal) to 21 (black on white)."""
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)
