"""# Eval: COCO's metrics of a model on a data set"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from rtdetr_lab.commands.base import DONE, HELD_OUT, ModelCommand, Reading, device_of, model_of, say
from rtdetr_lab.writing import first_few, writing

if TYPE_CHECKING:
    from rtdetr_lab.model import DetectionModel


@dataclass(frozen=True, kw_only=True)
class Eval(ModelCommand):
    """Measure the average precision of a model on `shapes`, or on your data."""

    data: str = "shapes"
    """`shapes`, a folder (COCO JSON, YOLO or Pascal VOC), an annotation file or a data.yaml."""
    split: str = "val"
    """The split of the folder."""
    val_split: Annotated[float | None, HELD_OUT] = None
    """The part that `train` held out."""
    size: str | None = None
    """Size of the model's input: one number (for a DETR: the shortest side), or HxW.
    Default: the size it was trained for."""
    names: str | None = None
    """Names of the model's classes, with commas, if its file has none.
    Default: the names of the data, if it has as many classes."""
    batch_size: int = 16
    """Pictures per batch."""
    device: str | None = None
    """cpu, cuda, cuda:1 …; default: the GPU, if there is one."""
    limit: int | None = None
    """Stop after this many pictures."""
    out: Path | None = None
    """Write a report here: tables, curves, confusions, drawings of the worst pictures.
    It also has AP by layer and by number of queries."""
    threshold: float = 0.5
    """The report looks for mistakes in detections above this score."""
    masks: bool = True
    """Also measure masks, if the model draws them; --no-masks if the data has boxes only."""
    json: bool = False
    """Print JSON."""
    reading: Annotated[Reading, tyro.conf.OmitArgPrefixes] = field(default_factory=Reading)

    def run(self) -> int:
        from tqdm import tqdm

        from rtdetr_lab.commands.sets import stored_sets, tell, validation_set
        from rtdetr_lab.data.preflight import look_at
        from rtdetr_lab.evaluation.evaluate import evaluate
        from rtdetr_lab.evaluation.examine import examine
        from rtdetr_lab.evaluation.report import write_report

        stored = stored_sets(self.data, [self.split], self.reading, self.val_split)
        model = model_of(self.name, self.size, self.names, to_run=True)
        model = model.to(device_of(self.device, model))
        judged, masks = stored.get(self.split, self.data), self.masks and model.draws_masks
        data = validation_set(judged, model.metadata, self.limit, masks)
        check_classes(model, data.names, self.name)
        tell(look_at(data))
        total = -(-len(data) // self.batch_size)
        bar: Any = partial(tqdm, total=total)
        if self.out is None:
            metrics = evaluate(model, data, self.batch_size, progress=bar)
        else:
            seen = partial(examine, threshold=self.threshold)
            exam = seen(model, data, self.batch_size, progress=bar)
            with writing(self.out):
                write_report(self.out, exam, data)
            metrics = exam.scored.metrics
        quality = self._panoptic(model) if self.masks and model.draws_masks else {}
        if self.json:
            print(json.dumps(asdict(metrics) | dict(metrics) | quality))
            return DONE
        say(f"{metrics}\n{len(data)} pictures")
        if quality:
            say("  ".join(f"{name} {value:.3f}" for name, value in quality.items()))
        if self.out is not None:
            say(f"{self.out / 'report.md'}")
        return DONE

    def _panoptic(self, model: "DetectionModel") -> dict[str, float]:
        """Measure the panoptic quality, if the data has a segment for every pixel."""
        from rtdetr_lab.commands.sets import is_world
        from rtdetr_lab.data.coco_panoptic import PanopticDataset
        from rtdetr_lab.data.layout import PANOPTIC, find_layout
        from rtdetr_lab.evaluation.panoptic import evaluate_panoptic

        layout = None if is_world(self.data) else find_layout(self.data)
        if layout is None or layout.format != PANOPTIC:
            return {}
        data = PanopticDataset.from_folder(layout.folder, self.split)
        few = replace(data, entries=data.entries[: self.limit])
        found = evaluate_panoptic(model, few, batch_size=self.batch_size)
        return {name: value for name, value in found.items() if not isnan(value)}


def check_classes(model: "DetectionModel", data: Sequence[str], where: str) -> None:
    """Raise `DataError` if the labels of model and data mean different classes.

    If the model's classes have no names and the data has as many, the names of the data are used,
    and a line says so.
    """
    from rtdetr_lab.errors import DataError

    known = model.metadata.names
    if known == tuple(data):
        return
    if not known and model.num_classes == len(data):
        taken = f"its {len(data)} classes have no names and are taken for those of the data"
        say(f"{where}: {taken}: {first_few(data, 12)}", aside=True)
        return
    classes = f"the classes {_listed(known)}" if known else f"{model.num_classes} unnamed classes"
    what = f"has {classes}; the data has {_listed(data)}"
    remedy = "give a model that was trained on these classes, in this order"
    raise DataError(where, what, f"{remedy}, or give their names with --names")


def _listed(names: Sequence[str]) -> str:
    return f"({len(names)}) {first_few(names, 12)}"
