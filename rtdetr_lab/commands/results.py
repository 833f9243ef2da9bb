"""# Results: what `detect` writes beside the pictures"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtdetr_lab.commands.base import say
from rtdetr_lab.commands.pictures import ResultNames
from rtdetr_lab.config import require
from rtdetr_lab.writing import write_text, writing

if TYPE_CHECKING:
    from rtdetr_lab.detections import Detections
    from rtdetr_lab.detector import Detector


def formats_of(words: str, pictures: Sequence[Path]) -> tuple[str, ...]:
    """Read `csv,yolo`. Raises `ConfigError` for an unknown format, and `OutputError` if two
    pictures would share a file."""
    formats = tuple(dict.fromkeys(word.strip() for word in words.split(",") if word.strip()))
    if formats:
        from rtdetr_lab.tables import FORMATS, yolo_labels

        unknown = [word for word in formats if word not in FORMATS]
        what = f"{unknown[0]!r} is no format" if unknown else ""
        require(not unknown, "--write", what, f"give {', '.join(FORMATS)}")
        if "yolo" in formats:
            yolo_labels(pictures)  # better now than after an hour
    return formats


@dataclass
class Report:
    """The results so far, and where they go. `rows` are those of `coco`, a results file."""

    folder: Path
    formats: tuple[str, ...]
    coco: Path | None
    images: list[dict[str, Any]] = field(default_factory=list)
    unread: list[dict[str, str]] = field(default_factory=list)
    found: "list[Detections]" = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    undrawn: int = 0

    def __post_init__(self) -> None:
        self.names = ResultNames(self.folder)

    def write(self, model: str, detector: "Detector", aside: bool) -> None:
        """Write everything; with `aside`, print the JSON, and everything else to stderr."""
        tree = {
            "model": model,
            "threshold": detector.threshold,
            "classes": list(detector.classes.names),
            "images": self.images,
            "unread": self.unread,
        }
        target = self.folder / "detections.json"
        write_text(target, json.dumps(tree, ensure_ascii=False, indent=1) + "\n")
        counts = f"{len(self.images)} done, {len(self.unread)} not read"
        counts += f", {self.undrawn} not drawn" if self.undrawn else ""
        say(f"{counts} → {target}", aside=aside)
        if self.coco:
            with writing(self.coco):
                self.coco.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.coco, json.dumps(self.rows) + "\n")
            say(f"{len(self.rows)} rows in COCO's format → {self.coco}", aside=aside)
        for name in self.formats:
            from rtdetr_lab.tables import FORMATS

            file, write = FORMATS[name]
            say(f"{name} → {write(self.found, self.folder / file)}", aside=aside)
        if aside:
            print(json.dumps(tree, indent=1))  # ASCII: no terminal obeys it
