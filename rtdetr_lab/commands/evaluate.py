"""# Eval: COCO's numbers of a model on a data set"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from rtdetr_lab.commands.base import DONE, ModelCommand, Reading, device_of, model_of, say
from rtdetr_lab.writing import first_few, writing

if TYPE_CHECKING:
    from rtdetr_lab.model import DetectionModel


@dataclass(frozen=True, kw_only=True)
class Eval(ModelCommand):
    """Average precision of a model on `shapes`, or on a COCO folder."""

    data: str = "shapes"
    """`shapes`, a folder (COCO JSON, YOLO or Pascal VOC), an annotation file or a data.yaml."""
    split: str = "val"
    """Which annotations of the folder."""
    size: str | None = None
    """What the model sees: one number (of a DETR: the shortest side), or HxW; default: what it was
    trained for."""
    names: str | None = None
    """What the model's classes are called, with commas, if its file does not say; default: as the
    data calls them, if it has as many."""
    batch_size: int = 16
    """Pictures at a time."""
    device: str | None = None
    """cpu, cuda, cuda:1 …; default: the GPU where there is one."""
    limit: int | None = None
    """Stop after this many pictures."""
    out: Path | None = None
    """Write a report here: tables, curves, confusions, AP by layer and by number of queries, and
    the worst pictures drawn."""
    threshold: float = 0.5
    """The score above which the report looks for mistakes."""
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

        found = stored_sets(self.data, [self.split], self.reading).get(self.split)
        model = model_of(self.name, self.size, self.names).to(device_of(self.device))
        data = validation_set(found, model.metadata, self.limit)
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
        if self.json:
            print(json.dumps(asdict(metrics) | dict(metrics)))
            return DONE
        say(f"{metrics}\n{len(data)} pictures")
        if self.out is not None:
            say(f"{self.out / 'report.md'}")
        return DONE


def check_classes(model: "DetectionModel", data: Sequence[str], where: str) -> None:
    """A model is judged by the data only if both mean the same by every label. Where nobody named
    the model's classes and the data has as many, its names are taken, and it is said."""
    from rtdetr_lab.errors import DataError

    known = model.metadata.names
    if known == tuple(data):
        return
    if not known and model.num_classes == len(data):
        taken = f"its {len(data)} classes have no names and are taken for those of the data"
        say(f"{where}: {taken}: {first_few(data, 12)}", aside=True)
        return
    classes = f"the classes {_listed(known)}" if known else f"{model.num_classes} unnamed classes"
    what = f"knows {classes}; the data has {_listed(data)}"
    remedy = "give a model that was trained on these classes, in this order"
    raise DataError(where, what, f"{remedy}, or say what it calls them: --names")


def _listed(names: Sequence[str]) -> str:
    return f"({len(names)}) {first_few(names, 12)}"
