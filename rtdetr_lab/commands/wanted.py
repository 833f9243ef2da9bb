"""# Wanted: which detections to keep, from words on the command line"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rtdetr_lab.config import require

if TYPE_CHECKING:
    from rtdetr_lab.detections import Detections
    from rtdetr_lab.images.classes import Classes

USUAL = 0.5
"""The threshold of classes that are not named."""


@dataclass(frozen=True)
class Wanted:
    """Detections above a threshold, which may differ by class, and only of some classes."""

    threshold: float | Literal["auto"]
    """The least of all; "auto" is the one that is stored with the model."""
    by_class: Mapping[str, float]
    only: tuple[str, ...]

    @classmethod
    def read(cls, threshold: str, only: str | None) -> "Wanted":
        """Read `0.5`, `auto` or `cat=0.4,dog=0.6`, and `cat,dog`. Raises `ConfigError`."""
        names = tuple(name.strip() for name in (only or "").split(",") if name.strip())
        if threshold == "auto":
            return cls("auto", {}, names)
        if "=" not in threshold:
            return cls(_score(threshold), {}, names)
        pairs = [part.rpartition("=") for part in threshold.split(",") if part.strip()]
        scores = {name.strip(): _score(score) for name, _, score in pairs}
        return cls(min(USUAL, *scores.values()), scores, names)

    def check(self, classes: "Classes") -> None:
        """Raise `ConfigError` for a class that the model does not have."""
        for name in (*self.by_class, *self.only):
            classes.label_of(name)

    def of(self, found: "Detections") -> "Detections":
        """Keep what is wanted."""
        if self.by_class:
            others = dict.fromkeys(found.classes.names, USUAL)
            found = found.above(others | dict(self.by_class))
        return found.only(*self.only) if self.only else found


def _score(text: str) -> float:
    """Read a score from 0 to 1."""
    try:
        score = float(text)
    except ValueError:
        score = -1.0
    remedy = "give a score from 0 to 1, auto, or cat=0.4,dog=0.6"
    require(0 <= score <= 1, "--threshold", f"{text.strip()!r} is not a score", remedy)
    return score
