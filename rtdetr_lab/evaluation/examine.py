"""# Examine: one evaluation that answers five questions

| question                       | how it is answered                                     |
|--------------------------------|--------------------------------------------------------|
| How good is it?                | COCO's numbers of the last layer, by class             |
| What does a layer add?         | these numbers for every layer and the proposals, in *one* run |
| How many queries does it need? | the model runs again with fewer                        |
| What goes wrong?               | detections above a score are classified (`mistakes.py`) |
| What does a mirror change?     | the model runs again on mirrored pictures (`mirror.py`) |

Queries attend to each other, so the best ten of a hundred do not show what a model with ten
queries predicts. A DETR's queries are learned one by one. It cannot run with fewer of them, and
that row is left out.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from rtdetr_lab.data.batch import Dataset, Sample, as_float, in_order
from rtdetr_lab.data.canvas import fitted
from rtdetr_lab.evaluation.coco import Metrics, Scored
from rtdetr_lab.evaluation.evaluate import Answers, Progress, inference
from rtdetr_lab.evaluation.mirror import about_mirror, labels_said, turned_back
from rtdetr_lab.evaluation.mistakes import Judgement, judge
from rtdetr_lab.evaluation.thresholds import Curves
from rtdetr_lab.images.postprocess import Found, postprocess_of
from rtdetr_lab.images.predict import predict, see
from rtdetr_lab.model import declared
from rtdetr_lab.structures import LayerPrediction, Prediction

QUERIES = (10, 25, 50, 100)


@dataclass(frozen=True, eq=False)
class Examination:
    """Detections of a model on a data set, with their numbers and their mistakes."""

    names: tuple[str, ...]
    scored: Scored
    layers: dict[str, Metrics]
    queries: dict[int, Metrics]
    judgements: tuple[Judgement, ...]
    threshold: float
    curves: Curves
    mirror: tuple[str, ...] = ()
    """One sentence for each pair of classes that become each other in a mirror."""

    @property
    def worst(self) -> list[int]:
        """Indices of the pictures with mistakes, most mistakes first; ties keep their order."""
        wrong = [i for i, one in enumerate(self.judgements) if one.num_mistakes]
        return sorted(wrong, key=lambda i: -self.judgements[i].num_mistakes)


def examine(
    model: Any,
    dataset: Dataset,
    batch_size: int = 16,
    num_workers: int = 0,
    device: torch.device | str | None = None,
    progress: Progress = iter,
    queries: Sequence[int] = QUERIES,
    threshold: float = 0.5,
) -> Examination:
    """Run `model` over `dataset`, and again with each smaller number of `queries`."""
    says = declared(model)
    few = [n for n in queries if says.takes_fewer_queries and n < says.num_queries]
    seen, answers = fitted(dataset, says.metadata), Answers(dataset)
    judgements: list[Judgement] = []
    classes = len(dataset.names)
    plain, mirrored = (torch.zeros(classes, classes, dtype=torch.long) for _ in range(2))
    with inference(model):
        for samples in progress(in_order(seen, batch_size, num_workers)):
            found = _look(model, samples, few, device, answers)
            truths = [sample.truth for sample in samples]
            answers.take(truths, found)
            plain += labels_said(truths, found, classes)
            mirrored += labels_said(truths, _mirrored(model, samples, device), classes)
            for truth, one in zip(truths, found, strict=True):
                judgements.append(judge(truth, one.at(one.scores > threshold)))
    results = answers.scored()
    counts = {n: results.pop(_with_queries(n)).metrics for n in few}
    *_, last = results.values()
    if says.takes_fewer_queries:
        counts[says.num_queries] = last.metrics
    layers = {way: one.metrics for way, one in results.items()}
    names = tuple(dataset.names)
    curves = answers.curves()
    mirror = tuple(about_mirror(plain, mirrored, names))
    return Examination(names, last, layers, counts, tuple(judgements), threshold, curves, mirror)


def _mirrored(model: Any, samples: list[Sample], device: torch.device | str | None) -> list[Found]:
    """Return the detections in mirrored pictures, in the frames of the pictures."""
    images = [as_float(s.image).flip(-1) for s in samples]
    found = predict(model, images, [s.size for s in samples], to=device or _device_of(model))
    return [turned_back(one, s.size[1]) for one, s in zip(found, samples, strict=True)]


def _device_of(model: Any) -> Any:
    return next((p.device for p in model.parameters()), None)


def _look(
    model: Any,
    samples: list[Sample],
    few: Sequence[int],
    device: torch.device | str | None,
    answers: Answers,
) -> list[Found]:
    """Add the detections of every layer, and those with fewer queries; return the last layer's."""
    device = device or _device_of(model)
    images, sizes = [as_float(s.image) for s in samples], [s.size for s in samples]

    def keep(way: str, answer: LayerPrediction | Prediction) -> list[Found]:
        one = Prediction(answer.logits, answer.boxes, ())
        found = postprocess_of(model)(one, sizes, -1.0, padding=padding)
        answers.add(way, samples, found)
        return found

    whole, padding = see(model, images, device)
    if whole.proposals is not None:
        keep("proposals", whole.proposals.layer)
    for number, layer in enumerate(whole.layers, 1):
        found = keep(f"layer {number}", layer)
    for count in few:
        with _queries(model, count):
            keep(_with_queries(count), see(model, images, device)[0])
    return found


def _with_queries(count: int) -> str:
    return f"{count} queries"


@contextmanager
def _queries(model: Any, count: int) -> Iterator[None]:
    before = model.num_queries
    try:
        model.num_queries = count
        yield
    finally:
        model.num_queries = before
