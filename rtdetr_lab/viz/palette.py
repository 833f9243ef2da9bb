r"""# Palette: one set of colours for every figure

Okabe and Ito's eight colours ("Color Universal Design", 2008) stay apart for the three common kinds
of colour blindness. A detector may know eighty classes; so the seven chromatic ones come again
lighter and darker, in a fixed order: class 3 has the same colour in every figure, notebook and run.
Nobody tells eighty colours apart, which is why a label is always written beside the colour.

`LIGHT` is for white pages, `DARK` for dark ones: the same hues, with those that would drown in the
background moved away from it (yellow on white, blue on black).
"""

from dataclasses import dataclass

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILLION, YELLOW = OKABE_ITO
LEVEL_COLORS = (SKY, ORANGE, PURPLE, GREEN, YELLOW)
RIM, FRAME = "#101010", "#808080"
OUTSIDE = "#2B2B2B"  # what lies beyond the edge of a picture
HEAT = "inferno"
"""Colour map of amounts: one lightness per value, for all kinds of colour vision."""

STEPS = (0.0, 0.45, -0.4, 0.22, -0.22, 0.62, -0.55)
"""How far round k of the seven moves towards white (+) or black (-)."""

MIN_CONTRAST = 1.9
"""What a line needs to be seen on the page (a text needs 4.5)."""


@dataclass(frozen=True)
class Palette:
    """Page, ink, and a colour for every class."""

    background: str
    ink: str
    muted: str

    def color(self, label: int) -> str:
        """The colour of a class, as #rrggbb: always the same, visible on the page."""
        base, turn = OKABE_ITO[label % 7], (label // 7) % len(STEPS)
        # After 49 the colours come again, a little off: still a function of the label alone.
        again = 0.1 * (label // (7 * len(STEPS)) % 5)
        color = mix(shade(base, STEPS[turn]), "#808080", again)
        away = -0.08 if luminance(self.background) > 0.5 else 0.08
        while contrast(color, self.background) < MIN_CONTRAST:
            color = shade(color, away)
        return color


LIGHT = Palette(background="#FFFFFF", ink="#1A1A1A", muted="#6E6E6E")
DARK = Palette(background="#111318", ink="#F2F2F2", muted="#9A9A9A")


def text_on(color: str) -> str:
    """Black or white, whichever is easier to read on `color`: never less than 4.5 : 1."""
    return max(("#000000", "#FFFFFF"), key=lambda ink: contrast(ink, color))


def rgb(color: str) -> tuple[int, int, int]:
    """#rrggbb → 0 … 255."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def mix(color: str, other: str, amount: float) -> str:
    """`amount` of the way from one to the other."""
    pairs = zip(rgb(color), rgb(other), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * amount):02X}" for a, b in pairs)


def shade(color: str, amount: float) -> str:
    """Towards white for positive amounts, towards black for negative ones."""
    return mix(color, "#FFFFFF" if amount > 0 else "#000000", abs(amount))


def luminance(color: str) -> float:
    """Relative luminance (WCAG 2.1): 0 black, 1 white."""
    parts = [c / 255 for c in rgb(color)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a: str, b: str) -> float:
    """Contrast ratio (WCAG 2.1), from 1 (the same) to 21 (black on white)."""
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)
