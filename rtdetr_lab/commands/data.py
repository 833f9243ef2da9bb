"""# Data: sets of pictures, made"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from rtdetr_lab.commands.base import DONE, Command, say


@dataclass(frozen=True, kw_only=True)
class Data(Command):
    """`data shapes DIR`: write a piece of the shapes world as COCO JSON and PNG."""

    what: Annotated[Literal["shapes"], tyro.conf.Positional]
    """What to do."""
    folder: Annotated[Path, tyro.conf.Positional]
    """A new folder for it."""
    count: int = 1000
    """Training pictures."""
    val_count: int | None = None
    """Validation pictures; default: a fifth of that."""
    size: int = 320
    """Height and width of the pictures."""

    def run(self) -> int:
        from tqdm import tqdm

        from rtdetr_lab.commands.sets import world
        from rtdetr_lab.data.shapes_export import export_coco

        for path in export_coco(self.folder, self.count, self.val_count, world(self.size), tqdm):
            say(str(path))
        return DONE
