"""# Data: make, check and convert data sets"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from rtdetr_lab.commands.base import DONE, FAILED, VAL_SPLIT, Command, Reading, bar, say, square_of
from rtdetr_lab.commands.look import Look


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """Write a part of the shapes world as COCO JSON and PNG."""

    folder: Annotated[Path, tyro.conf.Positional]
    """A new folder for the result."""
    count: int = 1000
    """Training pictures."""
    val_count: int | None = None
    """Validation pictures; default: a fifth of --count."""
    size: str = "320"
    """Side of the square pictures."""

    def run(self) -> int:
        """Draw and write."""
        from rtdetr_lab.commands.sets import world
        from rtdetr_lab.data.convert import export_coco

        size = world(square_of(self.size))
        made = export_coco(self.folder, self.count, self.val_count, size, bar())
        say("\n".join(map(str, made)))
        return DONE


@dataclass(frozen=True, kw_only=True)
class Check:
    """Read every annotation and picture once, and list what training would find. Exit code 1 if it
    would stop."""

    folder: Annotated[Path, tyro.conf.Positional]
    """A folder (COCO JSON, YOLO or Pascal VOC), one COCO annotation file, or a data.yaml."""
    split: tuple[str, ...] = ()
    """Only these splits; default: all."""
    images: Path | None = None
    """Folder of the pictures, if it is not the folder of the annotations."""
    queries: int = 300
    """Objects that the model can find in a picture: 300 for RT-DETR, 100 for DETR and nano."""
    json: bool = False
    """Print JSON, with every finding."""
    picture: Path | None = None
    """Also draw class counts and box sizes to this file (.png, .svg, .pdf)."""
    reading: Annotated[Reading, tyro.conf.OmitArgPrefixes] = field(default_factory=Reading)

    def run(self) -> int:
        """Check and report."""
        from rtdetr_lab.data.preflight import check_folder
        from rtdetr_lab.data.report import draw_reports

        read = (self.reading.limits, self.reading.voc_origin)
        reports = check_folder(self.folder, self.split, bar(), self.images, self.queries, *read)
        if self.json:
            print(json.dumps([report.to_dict() for report in reports]))
        else:
            say("\n\n".join(map(str, reports)))
        if self.picture:
            draw_reports(reports, self.picture)
            say(f"class counts and box sizes → {self.picture}", aside=self.json)
        return DONE if all(report.ok for report in reports) else FAILED


@dataclass(frozen=True, kw_only=True)
class Rewrite:
    """A verb that writes a data set again, as COCO JSON and a folder of pictures."""

    source: Annotated[Path, tyro.conf.Positional]
    """A folder (COCO JSON, YOLO or Pascal VOC), one COCO annotation file, or a data.yaml."""
    folder: Annotated[Path, tyro.conf.Positional]
    """A new folder for the result."""
    voc_origin: int = 1
    """Index of VOC's first column of pixels: 1 by its definition, 0 in some tools."""


@dataclass(frozen=True, kw_only=True)
class Convert(Rewrite):
    """Turn a YOLO or Pascal VOC folder into COCO JSON and a folder of pictures."""

    def run(self) -> int:
        """Read, copy and write."""
        from rtdetr_lab.commands.sets import tell
        from rtdetr_lab.data.convert import read_whole, write_coco

        splits = read_whole(self.source, self.voc_origin)
        for annotations in splits.values():
            tell(annotations.findings)
        say("\n".join(map(str, write_coco(splits, self.folder, bar()))))
        say(f"now check it: rtdetr-lab data check {self.folder}")
        return DONE


@dataclass(frozen=True, kw_only=True)
class Split(Rewrite):
    """Divide a data set that has one annotation file, or no validation set, and write it as COCO.
    Every class has its share of each part; near duplicates stay in one part."""

    val: float = VAL_SPLIT
    """Part of the pictures for validation."""
    test: float = 0.0
    """Part of the pictures for a test at the very end."""
    seed: int = 0
    """Another seed gives another division."""

    def run(self) -> int:
        """Read, divide, copy and write."""
        from rtdetr_lab.data.convert import split_set

        shares = {"train": 1 - self.val - self.test, "val": self.val, "test": self.test}
        shares = {name: share for name, share in shares.items() if share}
        made = split_set(self.source, self.folder, shares, self.seed, self.voc_origin, bar())
        say("\n".join(map(str, made)))
        say(f"now train on it: rtdetr-lab train --data {self.folder}")
        return DONE


@dataclass(frozen=True, kw_only=True)
class Upright(Rewrite):
    """Write a data set as COCO, with pictures that EXIF turns as a viewer shows them."""

    def run(self) -> int:
        """Read, turn and write."""
        from rtdetr_lab.data.upright import write_upright

        made, turned = write_upright(self.source, self.folder, self.voc_origin, bar())
        say("\n".join(map(str, made)))
        say(f"{turned} pictures turned; now check: rtdetr-lab data check {self.folder}")
        return DONE


def _verb(name: str) -> Any:
    return tyro.conf.subcommand(name, prefix_name=False)


@dataclass(frozen=True, kw_only=True)
class Data(Command):
    """Make, check and rewrite data sets: data shapes, check, look, convert, split, upright."""

    verb: tyro.conf.OmitArgPrefixes[
        Annotated[Shapes, _verb("shapes")]
        | Annotated[Check, _verb("check")]
        | Annotated[Look, _verb("look")]
        | Annotated[Convert, _verb("convert")]
        | Annotated[Split, _verb("split")]
        | Annotated[Upright, _verb("upright")]
    ]

    def run(self) -> int:
        return self.verb.run()
