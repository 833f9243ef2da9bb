"""# Look: a data set as one page, with its labels, a batch, its counts and its faults"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from rtdetr_lab.commands.base import DONE, Reading, bar, say, size_of
from rtdetr_lab.commands.train_options import Augment, Learning
from rtdetr_lab.config import require_at_least
from rtdetr_lab.errors import LabError
from rtdetr_lab.writing import write_text, writing

if TYPE_CHECKING:
    from rtdetr_lab.data.annotated import Annotations, Picture
    from rtdetr_lab.data.layout import Layout
    from rtdetr_lab.data.places import Places
    from rtdetr_lab.data.report import Report
    from rtdetr_lab.structures import Batch
    from rtdetr_lab.viz.label_page import Labelled

ON_A_PAGE = 12
"""Pictures under one heading."""

IN_A_BATCH = 8

FEW = 8
"""Pictures of a finding that are listed without a click."""

CLASSES = "<p>Boxes of each class, in the colours of the pictures.</p>"
SIDES = "<p>√(w · h) of the boxes, in pixels. COCO calls up to 32 small, and above 96 large.</p>"


@dataclass(frozen=True, kw_only=True)
class Look:
    """Write one HTML page of a data set: labels drawn on pictures, an augmented batch, counts, and
    the findings of `data check` beside the pictures that cause them."""

    folder: Annotated[Path, tyro.conf.Positional]
    """A folder (COCO JSON, YOLO or Pascal VOC), one COCO annotation file, or a data.yaml."""
    out: Path = Path("look.html")
    """The page. It opens offline."""
    count: int = 48
    """Pictures of each split; those with findings come first."""
    size: str = "640"
    """Size of the batch: one number, or HxW."""
    augment: Augment = "flip"
    """Augmentation of the batch, as in `train`."""
    flip: bool = True
    """--no-flip: the batch is not mirrored, as in `train`."""
    turn: bool = False
    """Pictures of the batch are turned by quarters, as in `train`."""
    reading: Annotated[Reading, tyro.conf.OmitArgPrefixes] = field(default_factory=Reading)

    def run(self) -> int:
        """Check, draw and write."""
        from rtdetr_lab.data.layout import find_layout
        from rtdetr_lab.data.preflight import check_folder
        from rtdetr_lab.viz.label_page import label_page

        require_at_least(1, "data look", count=self.count)
        limits, origin = self.reading.limits, self.reading.voc_origin
        layout = find_layout(self.folder, origin)
        reports = check_folder(self.folder, (), bar(), limits=limits, voc_origin=origin)
        by_split = zip(layout.splits, reports, strict=True)
        parts = {split: dict(self._parts(split, report, layout)) for split, report in by_split}
        with writing(self.out):
            self.out.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.out, label_page(f"{self.folder.name}: labels", parts))
        say(f"{', '.join(layout.splits)} → {self.out}")
        return DONE

    def _parts(self, split: str, report: "Report", layout: "Layout") -> Iterator[tuple[str, str]]:
        """Yield headings and HTML of a split."""
        from rtdetr_lab.data.places import Places
        from rtdetr_lab.viz.label_page import bars, figures

        known = layout[split].inspect()
        places, shown = Places(layout.folder, known.path), _chosen(known, report, self.count)
        anchors = {picture.id: f"{split}-{picture.id}" for picture in shown}
        yield "findings", _findings(report, anchors)
        sizes = f"<div>{SIDES}{bars(_sides(report))}</div>"
        classes = f"<div>{CLASSES}{bars(report.classes, colored=True)}</div>"
        yield "classes and sizes", f'<div class="two">{classes}{sizes}</div>'
        if split == "train":
            yield "a batch", self._batch(known, layout)
        for first in range(0, len(shown), ON_A_PAGE):
            page = shown[first : first + ON_A_PAGE]
            drawn = [_drawn(p, places, anchors[p.id], report, self.reading) for p in page]
            yield f"pictures {first + 1}–{first + len(page)}", figures(drawn, known.names)

    def _batch(self, known: "Annotations", layout: "Layout") -> str:
        """Draw the first batch of a run, or say why there is none."""
        from rtdetr_lab.commands.sets import training_set
        from rtdetr_lab.data.coco import CocoDataset
        from rtdetr_lab.data.dense import augmentation_named
        from rtdetr_lab.data.findings import raise_first_error
        from rtdetr_lab.model import Metadata
        from rtdetr_lab.training.stream import Steps
        from rtdetr_lab.viz.label_page import figures, text

        size = size_of(self.size)
        how = Learning(augment=self.augment, flip=self.flip, turn=self.turn)
        augment = augmentation_named(self.augment, size, self.flip, self.turn)
        try:
            raise_first_error(known.findings)
            found = CocoDataset(known, layout.folder, limits=self.reading.limits)
            data = training_set(
                found, Metadata(image_size=size), 0, bool(augment), mirrored=how.mirrors
            )
            batch = Steps(data, IN_A_BATCH, 0, 200, augment).batch(0)
        except LabError as error:
            return f"<p>No batch can be made: {text(error)}</p>"
        height, width = batch.images.shape[-2:]
        also = " --no-flip" * (not self.flip) + " --turn" * self.turn
        about = (
            f"The first batch of a run with --augment {self.augment}{also}: {width} × {height} px."
        )
        return f"<p>{about}</p>{figures(_samples(batch), known.names)}"


def _samples(batch: "Batch") -> "Iterator[Labelled]":
    """Yield the pictures of a batch, with boxes in pixels."""
    from rtdetr_lab.boxes import scale_boxes, xyxy_from_cxcywh
    from rtdetr_lab.images.arrays import rgb_from_array
    from rtdetr_lab.viz.label_page import Labelled

    height, width = batch.images.shape[-2:]
    targets = zip(batch.targets.labels, batch.targets.boxes, strict=True)
    for number, (labels, boxes) in enumerate(targets):
        name = Path(batch.targets.pictures[number]).name
        corners = scale_boxes(xyxy_from_cxcywh(boxes), (height, width))
        image = rgb_from_array(batch.images[number], name)
        yield Labelled(name, f"batch-{number}", image, corners, labels.tolist())


def _drawn(
    picture: "Picture", places: "Places", anchor: str, report: "Report", reading: Reading
) -> "Labelled":
    """Read a picture in the frame of its boxes."""
    import torch

    from rtdetr_lab.boxes import xyxy_from_xywh
    from rtdetr_lab.data.coco import open_picture
    from rtdetr_lab.viz.label_page import Labelled

    image = open_picture(picture, places, reading.limits).raster
    boxes = torch.tensor([a.box_xywh for a in picture.objects], dtype=torch.float32)
    labels = [a.label for a in picture.objects]
    about = [f for f in report.findings if f.picture == picture.id]
    said = [(f.rule.severity.value, f"{f.rule.name}: {f.what}; {f.remedy}") for f in about]
    corners = xyxy_from_xywh(boxes.reshape(-1, 4))
    return Labelled(picture.file_name, anchor, image, corners, labels, said)


def _chosen(known: "Annotations", report: "Report", count: int) -> "Sequence[Picture]":
    """Return pictures that cause findings, the worst first, and then some of the whole set."""
    from rtdetr_lab.data.findings import Severity

    order = list(Severity)
    worst: dict[object, int] = {}
    for f in report.findings:
        if f.picture is not None and f.rule.severity is not Severity.NOTE:
            rank = order.index(f.rule.severity)
            worst[f.picture] = min(rank, worst.get(f.picture, rank))
    marked = sorted((p for p in known.pictures if p.id in worst), key=lambda p: worst[p.id])[:count]
    others = [p for p in known.pictures if p.id not in worst]
    free = min(count - len(marked), len(others))
    return marked + [others[i * len(others) // free] for i in range(free)]


def _findings(report: "Report", anchors: Mapping[int, str]) -> str:
    """List the findings by rule, with links to the pictures that are shown."""
    from rtdetr_lab.data.findings import RULES
    from rtdetr_lab.viz.label_page import marked, text

    lines = []
    for rule in filter(report.of, RULES):
        found = report.of(rule)
        head = f"{len(found)} × {text(rule.name)}: {text(rule.remedy)}"
        pictures = dict.fromkeys(f.picture for f in found if f.picture in anchors)
        links = "".join(f'<a href="#{text(anchors[p])}">picture {p}</a>' for p in pictures)
        first = "" if links else text(f"{found[0].where}: {found[0].what}")
        head = f"<summary>{marked(rule.severity.value, head)}</summary>"
        opened = " open" * (len(pictures) <= FEW)
        lines.append(f"<li><details{opened}>{head}<div>{links or first}</div></details></li>")
    most = f"at most {report.most_objects} in a picture"
    counts = f"<p>{report.num_pictures} pictures, {report.num_boxes} boxes, {most}.</p>"
    return counts + (f"<ul>{''.join(lines)}</ul>" if lines else "<p>There are no findings.</p>")


def _sides(report: "Report") -> "list[tuple[str, int]]":
    from rtdetr_lab.data.report import EDGES

    names = [*(f"≤ {edge}" for edge in EDGES), f"> {EDGES[-1]}"]
    return list(zip(names, report.sides, strict=True))
