"""# Heat map: draw the three readings of one detection into a file"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rtdetr_lab.commands.base import DONE, Command, device_of, model_of, say
from rtdetr_lab.writing import writing


@dataclass(frozen=True, kw_only=True)
class Heatmap(Command):
    """Draw what the model looks at for one detection: three maps over the picture."""

    image: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="IMG")] = None
    """A picture; default: a sample from the shapes world."""
    model: str = "nano"
    """A short name (r18, v2_r50 …; nano is for shapes), a hub id, a folder or a weights file."""
    revision: str | None = None
    """Branch, tag or commit of a hub id; a commit pins it."""
    query: int | None = None
    """Number of a query, as `explore` shows it; default: the one with the best detection."""
    out: Path = Path("heatmap.png")
    """File for the figure; its suffix chooses the format."""
    size: str | None = None
    """Size of the model's input: one number, or HxW; default: the size it was trained for."""
    device: str | None = None
    """cpu, cuda, cuda:1 …; default: the GPU, if there is one."""

    def run(self) -> int:
        from rtdetr_lab.commands.readings import heatmap
        from rtdetr_lab.data.shapes import DEFAULT, VAL, draw
        from rtdetr_lab.detector import Detector

        model = model_of(self.model, self.size, revision=self.revision)
        detector = Detector(model, device=device_of(self.device))
        maps = heatmap(detector, self.image or draw(DEFAULT, VAL, 0).image, self.query)
        with writing(self.out):
            self.out.parent.mkdir(parents=True, exist_ok=True)
            maps.save(self.out)
        say(f"{maps.name} {maps.score:.2f} (query {maps.query}) → {self.out}")
        return DONE
