"""# Evaluate: every picture once, every detection kept, COCO's numbers at the end

There is no threshold: average precision needs the detections with low scores too. Pictures are
resized to the size that the model is made for, like in `Detector`. Boxes go back to pixels of the
picture as stored. To evaluate a model at another size, change its metadata:

    model.metadata = replace(model.metadata, image_size=(320, 320))
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from rtdetr_lab.config import require
from rtdetr_lab.data.batch import Dataset, Sample, Truth, as_float, in_order
from rtdetr_lab.data.canvas import fitted
from rtdetr_lab.errors import DataError
from rtdetr_lab.evaluation.coco import Metrics, Scored, coco_truth, scored
from rtdetr_lab.evaluation.table import MAX_DETECTIONS, Table
from rtdetr_lab.evaluation.thresholds import Curves, Marks, curves_of
from rtdetr_lab.images.postprocess import Found
from rtdetr_lab.images.predict import predict
from rtdetr_lab.model import declared

Progress = Callable[[Iterable[list[Sample]]], Iterable[list[Sample]]]


def evaluate(
    model: nn.Module,
    dataset: Dataset,
    batch_size: int = 16,
    num_workers: int = 0,
    device: torch.device | str | None = None,
    progress: Progress = iter,
) -> Metrics:
    """Compute COCO's numbers of `model` on `dataset`, resized to the size of the model.

    Pictures of that size stay as they are. All pictures stay so if the model was not trained yet.
    They go to `device` (default: the device of the model's parameters). The model runs in eval mode
    and then returns to its mode before. `progress` may wrap the loop over batches, as tqdm does.
    Raises `ConfigError` for a model without a declaration (`rtdetr_lab.model`).
    """
    seen, answers = fitted(dataset, declared(model).metadata), Answers(dataset)
    with inference(model):
        for samples in progress(in_order(seen, batch_size, num_workers)):
            found, truths = detect(model, samples, device), [sample.truth for sample in samples]
            answers.add("last layer", samples, found)
            answers.take(truths, found)
    metrics = answers.scored()["last layer"].metrics
    return replace(metrics, threshold=answers.curves().recommended)


@dataclass
class Answers:
    """Detections of a model on a data set, in several ways, such as after every layer.

    For each way it keeps only what COCO evaluates, in columns, so that memory stays bounded on any
    data set.
    """

    dataset: Dataset
    truths: list[Truth] = field(default_factory=list)
    tables: dict[str, list[Table]] = field(default_factory=lambda: defaultdict(list))
    marks: list[Marks] = field(default_factory=list)

    def add(self, way: str, samples: Sequence[Sample], found: Sequence[Found]) -> None:
        """Keep the detections in some pictures."""
        rows = [(s.image_id, one) for s, one in zip(samples, found, strict=True)]
        table = Table.of_found(rows, self.dataset.category_ids)
        self.tables[way].append(table.best(MAX_DETECTIONS[-1]))

    def take(self, truths: Sequence[Truth], found: Sequence[Found]) -> None:
        """Keep the truth about some pictures, and which detections are right, for thresholds."""
        self.truths += truths
        self.marks.append(Marks.of(truths, found, len(self.dataset.names)))

    def curves(self) -> Curves:
        """Compute precision and recall above every threshold of scores."""
        return curves_of(self.marks, self.dataset.names)

    def scored(self) -> dict[str, Scored]:
        """Compute COCO's numbers for every way. Raises `DataError` if there are no pictures."""
        require(self.truths, "dataset", "holds no pictures", "give at least one", DataError)
        tree = coco_truth(self.truths, self.dataset.names, self.dataset.category_ids)
        return {way: scored(tree, Table.joined(tables)) for way, tables in self.tables.items()}


def detect(
    model: nn.Module, samples: list[Sample], device: torch.device | str | None = None
) -> list[Found]:
    """Return all Q detections for every sample, in pixels of the stored pictures.

    They have masks if the truth has segmentations and the model draws masks.
    """
    device = device or next((p.device for p in model.parameters()), None)
    images, sizes = [as_float(s.image) for s in samples], [s.size for s in samples]
    drawn = all(s.truth.segmentations is not None for s in samples)
    return predict(model, images, sizes, to=device, with_masks=drawn)


def coco_detections(
    found: Found, image_id: int, category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """Convert the detections in one picture to COCO's result format."""
    keys = ("image_id", "category_id", "bbox", "score")
    rows = Table.of_found([(image_id, found)], category_ids).rows()
    return [{key: row[key] for key in keys} for row in rows]


@contextmanager
def inference(model: nn.Module) -> Iterator[None]:
    """Turn off gradients and switch to eval mode; afterwards every module is as it was."""
    modes = {module: module.training for module in model.modules()}
    with torch.inference_mode():
        try:
            model.eval()
            yield
        finally:
            for module, training in modes.items():
                module.training = training
