"""# Eval: COCO's numbers of a model on a data set"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rtdetr_lab.commands.base import DONE, ModelCommand, say
from rtdetr_lab.writing import writing


@dataclass(frozen=True, kw_only=True)
class Eval(ModelCommand):
    """Average precision of a model on `shapes`, or on a COCO folder."""

    data: str = "shapes"
    """`shapes`, or a folder with COCO annotations."""
    split: str = "val"
    """Which annotations of the folder."""
    size: int | None = None
    """Height and width the model sees (a DETR: the shortest side); default: what it was trained
    for."""
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

    def run(self) -> int:
        import torch
        from tqdm import tqdm

        from rtdetr_lab.checkpoints.load import load_pretrained
        from rtdetr_lab.commands.sets import edges_for, say_which, validation_set
        from rtdetr_lab.evaluation.evaluate import evaluate
        from rtdetr_lab.evaluation.examine import examine
        from rtdetr_lab.evaluation.report import write_report

        say_which(self.data)
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        model: Any = load_pretrained(self.name).to(device)
        size, edges = self.size or max(model.metadata.image_size), model.metadata.edges
        if edges and self.size:
            edges = edges_for(self.size)
        data = validation_set(self.data, size, self.limit, self.split, edges)
        check_classes(model.metadata.names, data.names, self.name)
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


def check_classes(model: Sequence[str], data: Sequence[str], where: str) -> None:
    """A model is judged by the data only if both mean the same by every label."""
    from rtdetr_lab.errors import DataError

    if tuple(model) == tuple(data):
        return
    what = f"knows the classes {_listed(model)}; the data has {_listed(data)}"
    raise DataError(where, what, "give a model that was trained on these classes, in this order")


def _listed(names: Sequence[str], most: int = 12) -> str:
    more = f" … and {len(names) - most} more" if len(names) > most else ""
    return f"({len(names)}) {', '.join(names[:most])}{more}"
