"""# Examine: one evaluation, with everything a reader wants to know about it

| question                       | how it is answered                                     |
|--------------------------------|--------------------------------------------------------|
| How good is it?                | COCO's numbers of the last layer, by class             |
| What does a layer add?         | the same of every layer and the proposals, in *one* run |
| How many queries does it need? | the model runs again with fewer                        |
| What goes wrong?               | answers above a score are judged (`mistakes.py`)       |

Queries see each other: to cut the list of a hundred down to ten would not show what ten can do.
A DETR's queries are learned one by one; it has no smaller number of them, and that row is left out.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from rtdetr_lab.data.batch import Dataset, Sample, Truth, as_float, in_order
from rtdetr_lab.data.canvas import fitted
from rtdetr_lab.errors import DataError
from rtdetr_lab.evaluation.coco import Metrics, Scored, coco_truth, scored
from rtdetr_lab.evaluation.evaluate import Progress, inference
from rtdetr_lab.evaluation.mistakes import Judgement, judge
from rtdetr_lab.evaluation.table import Table
from rtdetr_lab.images.postprocess import Found
from rtdetr_lab.images.predict import found_by, see
from rtdetr_lab.model import declared
from rtdetr_lab.structures import LayerPrediction, Prediction

QUERIES = (10, 25, 50, 100)


@dataclass(frozen=True, eq=False)
class Examination:
    """The answers of a model to a data set, scored and judged."""

    names: tuple[str, ...]
    scored: Scored
    layers: dict[str, Metrics]
    queries: dict[int, Metrics]
    judgements: tuple[Judgement, ...]
    threshold: float

    @property
    def worst(self) -> list[int]:
        """Pictures with mistakes, by their number: most first, then as they came."""
        wrong = [i for i, one in enumerate(self.judgements) if one.num_mistakes]
        return sorted(wrong, key=lambda i: -self.judgements[i].num_mistakes)


@dataclass
class _Kept:
    """What is remembered of every picture: of all variants the hundred best answers a class."""

    tables: dict[str | int, list[Table]] = field(default_factory=dict)
    truths: list[Truth] = field(default_factory=list)
    judgements: list[Judgement] = field(default_factory=list)


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
    """Run `model` over `dataset`; `queries` are the smaller numbers of queries it is tried with."""
    says = declared(model)
    few = [n for n in queries if says.takes_fewer_queries and n < says.num_queries]
    kept, seen = _Kept(), fitted(dataset, says.metadata)
    with inference(model):
        for samples in progress(in_order(seen, batch_size, num_workers)):
            _look(model, samples, dataset.category_ids, few, device, threshold, kept)
    if not kept.truths:
        raise DataError("dataset", "holds no pictures", "give at least one")
    tree = coco_truth(kept.truths, dataset.names, dataset.category_ids)
    results = {name: scored(tree, Table.joined(t)) for name, t in kept.tables.items()}
    layers = {str(n): r.metrics for n, r in results.items() if isinstance(n, str)}
    last = results[list(layers)[-1]]
    counts = {n: results[n].metrics for n in few}
    if says.takes_fewer_queries:
        counts[says.num_queries] = last.metrics
    names = tuple(dataset.names)
    return Examination(names, last, layers, counts, tuple(kept.judgements), threshold)


def _look(
    model: Any,
    samples: list[Sample],
    category_ids: Sequence[int],
    few: Sequence[int],
    device: torch.device | str | None,
    threshold: float,
    kept: _Kept,
) -> None:
    device = device or next((p.device for p in model.parameters()), None)
    images, sizes = [as_float(s.image) for s in samples], [s.size for s in samples]

    def keep(key: str | int, answer: LayerPrediction | Prediction) -> list[Found]:
        one = Prediction(answer.logits, answer.boxes, ())
        found = found_by(model, one, padding, sizes)
        pairs = [(s.image_id, f) for s, f in zip(samples, found, strict=True)]
        kept.tables.setdefault(key, []).append(Table.of_found(pairs, category_ids).best(100))
        return found

    whole, padding = see(model, images, device)
    if whole.proposals is not None:
        keep("proposals", whole.proposals.layer)
    for number, layer in enumerate(whole.layers, 1):
        found = keep(f"layer {number}", layer)
    for count in few:
        with _queries(model, count):
            keep(count, see(model, images, device)[0])
    for sample, one in zip(samples, found, strict=True):
        kept.truths.append(sample.truth)
        kept.judgements.append(judge(sample.truth, one.at(one.scores > threshold)))


@contextmanager
def _queries(model: Any, count: int) -> Iterator[None]:
    before = model.num_queries
    try:
        model.num_queries = count
        yield
    finally:
        model.num_queries = before
