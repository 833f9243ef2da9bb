"""What a notebook prints, how far it may differ on another machine, and whether it does.

A number may differ as far as its cell says: `# may differ: found ± 3 of 19` lets the number that
follows the word "found" be 3 off, where the prose claims an effect of 19. Without words it is every
number that the cell prints.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat

from rtdetr_lab.notebook_tools.outputs import normalised

NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?")
TAG = re.compile(r"# may differ: (.+)")
PART = re.compile(r"(?:([^±,]+) )?± ([\d.]+) of ([\d.]+)")


@dataclass(frozen=True)
class Wander:
    """By how much the numbers after these words may differ, and the effect that they show."""

    words: str
    by: float
    effect: float


@dataclass(frozen=True)
class Printed:
    """What a cell prints, and which of its numbers may differ."""

    text: str
    tags: tuple[Wander, ...] = ()

    def numbers(self) -> Iterator[tuple[re.Match, Wander | None]]:
        """Every number, and the tag whose words stand between it and the number before."""
        for line in re.finditer(".*", self.text):
            end = line.start()
            for number in NUMBER.finditer(self.text, *line.span()):
                before, end = self.text[end : number.start()], number.end()
                yield number, next((tag for tag in self.tags if tag.words in before), None)


def wanders(source: str) -> tuple[Wander, ...]:
    """The tags of a cell."""
    parts = [part for tag in TAG.findall(source) for part in tag.split(", ")]
    return tuple(map(wander, parts))


def wander(part: str) -> Wander:
    read = PART.fullmatch(part)
    if read is None:
        raise ValueError(f"{part!r} is no `words ± number of effect`")
    return Wander(read[1] or "", float(read[2]), float(read[3]))


def printed(path: Path) -> dict[str, Printed]:
    """What the cells of a notebook print, by cell id; not those that are tagged `varies`."""
    notebook = normalised(nbformat.read(path, as_version=4), path.stem)
    return {
        cell.id: Printed("\n".join(map(text_of, cell.outputs)), wanders(cell.source))
        for cell in notebook.cells
        if cell.cell_type == "code" and "varies" not in cell.metadata.get("tags", [])
    }


def text_of(output) -> str:
    if output.output_type == "stream":
        return output.text
    # Source code that is shown changes with the library, and is no result.
    return "" if "text/markdown" in output.data else output.data.get("text/plain", "")


def difference(expected: Printed, found: str) -> str:
    """Empty if both say the same: counts equal, fractions but for rounding, the rest as tagged."""
    if shape(expected.text) != shape(found):
        return f"printed {found!r} instead of {expected.text!r}"
    for (number, tag), other in zip(expected.numbers(), NUMBER.findall(found), strict=True):
        allowed = tag.by if tag else rounding(number[0], other)
        if abs(value(number[0]) - value(other)) > 1.0001 * allowed:
            return f"printed {other} instead of {number[0]} in {expected.text!r}"
    return ""


def shape(text: str) -> str:
    """The text with its numbers crossed out, and the white space that goes with their width."""
    return " ".join(NUMBER.sub("#", text).split())


def value(number: str) -> float:
    return float(number.replace(",", ""))


def rounding(a: str, b: str) -> float:
    """A unit of the last digit and 0.2 % for fractions; nothing for counts and powers of ten."""
    fractions = [number for number in (a, b) if "." in number]
    if not fractions:
        return 0.0
    return 1.01 * min(map(last_digit, fractions)) + 2e-3 * max(abs(value(a)), abs(value(b)))


def last_digit(fraction: str) -> float:
    """What its last digit counts: 0.01 for 1.25, 1e-7 for 2.5e-06."""
    mantissa, _, power = fraction.partition("e")
    return 10.0 ** (int(power or 0) - len(mantissa.partition(".")[2]))
