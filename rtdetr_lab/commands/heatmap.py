"""# Heat map: draw the three readings of one detection into a file"""

from dataclasses import dataclass
from pathlib import Path

from rtdetr_lab.commands.base import DONE, PictureCommand, say
from rtdetr_lab.writing import writing


@dataclass(frozen=True, kw_only=True)
class Heatmap(PictureCommand):
    """Draw what the model looks at for one detection: three maps over the picture."""

    query: int | None = None
    """Number of a query, as `explore` shows it; default: the one with the best detection."""
    out: Path = Path("heatmap.png")
    """File for the figure; its suffix chooses the format."""

    def run(self) -> int:
        from rtdetr_lab.commands.readings import heatmap

        maps = heatmap(self.detector(), self.picture(), self.query)
        with writing(self.out):
            self.out.parent.mkdir(parents=True, exist_ok=True)
            maps.save(self.out)
        say(f"{maps.name} {maps.score:.2f} (query {maps.query}) → {self.out}")
        return DONE
