"""# Classes: the classes of a model"""

import json
from dataclasses import dataclass

from rtdetr_lab.commands.base import DONE, ModelCommand, say


@dataclass(frozen=True, kw_only=True)
class Classes(ModelCommand):
    """List the classes of a model: label, category id and name."""

    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        from rtdetr_lab.detector import Detector

        classes = Detector.from_pretrained(self.name, "cpu", revision=self.revision).classes
        rows = list(zip(range(len(classes)), classes.category_ids, classes.names, strict=True))
        if self.json:
            keys = ("label", "category_id", "name")
            print(json.dumps([dict(zip(keys, row, strict=True)) for row in rows]))
            return DONE
        say(f"{'label':>5}  {'category id':>11}  name")
        for label, category_id, name in rows:
            say(f"{label:>5}  {category_id:>11}  {name}")
        return DONE
