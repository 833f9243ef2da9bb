"""# Explore: a picture's queries as one page that opens offline"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rtdetr_lab.commands.base import DONE, Command, device_of, model_of, say, writing


@dataclass(frozen=True, kw_only=True)
class Explore(Command):
    """Write a page in which a click shows where a query looked. It opens offline."""

    image: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="IMG")] = None
    """A picture; without one, a sample that nano knows."""
    model: str = "nano"
    """A short name (r18, v2_r50 …; nano knows shapes), a hub id, a folder or a weights file."""
    revision: str | None = None
    """Branch, tag or commit of a hub id; a commit pins it."""
    out: Path = Path("explorer.html")
    """The page."""
    queries: int = 60
    """How many of the best queries can be selected."""
    size: str | None = None
    """What the model sees: one number, or HxW; default: what it was trained for."""
    device: str | None = None
    """cpu, cuda, cuda:1 …; default: the GPU where there is one."""

    def run(self) -> int:
        from rtdetr_lab.data.shapes import DEFAULT, VAL, draw
        from rtdetr_lab.detector import Detector
        from rtdetr_lab.explored import explore

        model = model_of(self.model, self.size, revision=self.revision)
        detector = Detector(model, device=device_of(self.device))
        picture = self.image or draw(DEFAULT, VAL, 0).image
        explored = explore(detector, picture, most=self.queries)
        with writing(self.out):
            path = explored.save(self.out)
        say(f"{path} ({path.stat().st_size / 1e6:.1f} MB): open it in a browser")
        return DONE
