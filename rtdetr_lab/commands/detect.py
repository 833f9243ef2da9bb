"""# Detect: read pictures, write annotated pictures and JSON"""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from rtdetr_lab.commands.base import (
    DONE,
    FAILED,
    USAGE,
    Command,
    bar,
    complain,
    device_of,
    model_of,
    say,
)
from rtdetr_lab.commands.pictures import gather, listed
from rtdetr_lab.commands.results import Report, formats_of
from rtdetr_lab.commands.video import Watch, is_video
from rtdetr_lab.commands.wanted import USUAL, Wanted
from rtdetr_lab.config import require
from rtdetr_lab.errors import ImageError, OutputError
from rtdetr_lab.writing import first_few, locked, writing

if TYPE_CHECKING:
    from rtdetr_lab.data.annotated import Listed
    from rtdetr_lab.detections import Detections
    from rtdetr_lab.detector import Detector


@dataclass(frozen=True, kw_only=True)
class Detect(Command):
    """Detect objects in pictures; write annotated copies and one JSON file."""

    images: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMG …")]
    """Files, globs (in quotes) and folders; or one clip, camera (0) or stream (rtsp://…)."""
    model: str = "nano"
    """A short name (r18, v2_r50 …; nano is for shapes), a hub id, a folder, a weights file or an
    ONNX file that `export` wrote."""
    revision: str | None = None
    """Branch, tag or commit of a hub id; a commit pins it."""
    threshold: str = str(USUAL)
    """Keep detections with a score above this. cat=0.4,dog=0.6 sets it by class (others 0.5);
    auto is the threshold that is stored with the model."""
    only: str | None = None
    """Keep only these classes: cat,dog."""
    out: Path = Path("out")
    """Folder for the annotated pictures and detections.json. For a video: a folder, or the new
    clip (.mp4, .mov, .mkv), with its boxes beside it in a .jsonl file."""
    pictures: bool = True
    """Write annotated pictures or frames; --no-pictures writes only JSON."""
    json: bool = False
    """Print the JSON to stdout, and everything else to stderr."""
    write: str = ""
    """Also write the boxes for other tools, into --out: csv, yolo, label_studio, coco."""
    coco: Path | None = None
    """Also write COCO's results format to this file (with --threshold 0 for AP)."""
    annotations: Path | None = None
    """COCO JSON in which --coco looks up the ids of pictures, by their paths.
    Boxes are in its frame: the raster as stored, or upright if the JSON gives the upright size."""
    size: str | None = None
    """Size of the model's input: one number, or HxW; default: the size it was trained for."""
    tile: int | None = None
    """Also detect in overlapping windows of this many pixels, for large pictures."""
    max_iou: float | None = None
    """Remove a box if its IoU with a better one is above this; the classes do not matter."""
    batch_size: int = 8
    """Pictures (or windows) per batch."""
    device: str | None = None
    """cpu, cuda, cuda:1 …; default: the GPU, if there is one."""
    bits: int | None = None
    """Used bits of 16-bit pictures, if the file does not give them: 10, 12 or 14."""
    limit: int | None = None
    """Stop after this many pictures, or frames."""

    def run(self) -> int:
        if not self.images:
            complain(ValueError("detect: no picture given; see rtdetr-lab detect --help"))
            return USAGE
        require(self.limit is None or self.limit > 0, "limit", f"is {self.limit}", "give 1 or more")
        if any(map(is_video, self.images)):
            return self._watch()
        paths = gather(self.images, leave_out=self.out)[: self.limit]
        known = listed(paths, self.annotations)
        wanted = Wanted.read(self.threshold, self.only)
        report = Report(self.out, formats_of(self.write, paths), self.coco)
        detector = self._detector(wanted)
        results = detector.each(paths, batch_size=self.batch_size)
        if len(paths) > self.batch_size:
            results = bar()(results, total=len(paths))
        with locked(self.out, name=".lock"):
            try:
                for path, one, result in zip(paths, known, results, strict=True):
                    self._take(report, path, one, wanted, result)
            finally:  # after Ctrl-C too: keep the results so far
                report.write(self.model, detector, aside=self.json)
        return FAILED if report.unread or report.undrawn else DONE

    def _watch(self) -> int:
        """Detect in a video."""
        what = f"{len(self.images)} words, and a video among them"
        require(len(self.images) == 1, "detect", what, "give a video alone")
        for option in ("write", "coco", "annotations", "bits"):
            what, remedy = "is for pictures", "leave it out; a video writes a .jsonl file"
            require(not getattr(self, option), f"--{option}", what, remedy)
        shared = ("out", "pictures", "json", "limit", "batch_size")
        watch = Watch(word=self.images[0], **{name: getattr(self, name) for name in shared})
        wanted = Wanted.read(self.threshold, self.only)
        return watch.run(lambda: self._detector(wanted), wanted)

    def _detector(self, wanted: Wanted) -> "Detector":
        from rtdetr_lab.detector import Detector
        from rtdetr_lab.images.decode import Limits
        from rtdetr_lab.images.tiling import Tiling

        model = model_of(self.model, self.size, revision=self.revision, to_run=True)
        detector = Detector(
            model,
            threshold=wanted.threshold,
            device=device_of(self.device, model),
            tiling=Tiling(self.tile) if self.tile else None,
            max_iou=self.max_iou,
            limits=Limits(bits=self.bits),
        )
        introduce(self.model, detector, aside=self.json)
        wanted.check(detector.classes)
        return detector

    def _take(
        self,
        report: Report,
        path: Path,
        listed: "Listed",
        wanted: Wanted,
        result: "Detections | ImageError",
    ) -> None:
        try:
            if isinstance(result, ImageError):
                raise result
            result = wanted.of(result)
            rows = result.to_coco(listed.id, size=listed.size) if self.coco else []
        except ImageError as error:
            complain(error)
            report.unread.append({"image": str(path), "problem": str(error)})
            return
        report.rows += rows
        if report.formats:
            report.found.append(replace(result, image=None, masks=None))  # they fill the memory
        row, line = result.to_json(), f"{path}: {summary(result)}"
        if self.pictures:
            target = report.names(path)
            try:
                with writing(target):
                    result.save(target)
                row["annotated"] = str(target)
                line += f" → {target}"
            except OutputError as error:  # the other pictures are detected and written
                complain(error)
                report.undrawn += 1
        report.images.append(row)
        say(line, aside=self.json)


def introduce(model: str, detector: "Detector", aside: bool = False) -> None:
    """Print the classes of a model, and the licence of its weights."""
    from rtdetr_lab.model import declared

    names = detector.classes.names
    licence = declared(detector.model).metadata.licence
    say(f"{model} has {len(names)} classes: {first_few(names, 12)}", aside=aside)
    say(f"licence of its weights: {licence or 'not stated'}", aside=aside)
    if recommended := declared(detector.model).metadata.threshold:
        used = "used" if detector.threshold == recommended else "--threshold auto uses it"
        say(f"its validation recommends the threshold {recommended:.2f} ({used})", aside=aside)


def summary(found: "Detections") -> str:
    """Count the detections by class: `2 cat, 1 remote`, or `nothing`."""
    counts = Counter(found.names).most_common()
    return ", ".join(f"{count} {name}" for name, count in counts) or "nothing"
