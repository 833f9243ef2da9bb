r"""# Panoptic: from masks of queries to one answer per pixel

Every query has a mask, and masks overlap. There are three questions, and a function for each:

| function   | question                             | result per pixel                         |
|------------|--------------------------------------|------------------------------------------|
| `semantic` | which class?                         | a label: all queries vote, by score and mask |
| `instance` | which object?                        | the number of a segment, 0 for none      |
| `panoptic` | which object, or which stuff?        | a number too; equal stuff is one segment |

A *rule* decides which query gets a pixel, and which segments are too small to keep. There are two:

| rule          | used by      | which query gets a pixel           | which segments stay      |
|---------------|--------------|------------------------------------|--------------------------|
| `ByOverlap()` | transformers | the highest score × mask           | keep 0.8 of their mask   |
| `ByArea()`    | the authors  | the highest mask, scores over 0.85 | more than 4 pixels       |

Both give a pixel to the strongest query, even if it is weak. A pixel has no segment only if the
segment that won it was removed.

`ByArea` repeats until no segment is too small, and gives every pixel to a segment. It joins equal
stuff **in its first pass only**. A mask that was joined to another is then empty, and is removed as
too small. So in the second pass its pixels go to the next strongest query. We keep this, because
published numbers were computed this way.

**Padding.** Masks cover the canvas. With `padding`, each mask is enlarged to the canvas and cut to
its picture. Without it, the whole mask is treated as the picture, as transformers always does.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rtdetr_lab.errors import ImageError
from rtdetr_lab.images.masks import part_of_picture, resized
from rtdetr_lab.images.postprocess import at_least_single, check_sizes
from rtdetr_lab.notation import Size
from rtdetr_lab.structures import Prediction


@dataclass(frozen=True)
class Segment:
    """Segment of a picture: number in `Segments.ids`, label, score, and its first query."""

    id: int
    label: int
    score: float
    query: int


@dataclass(frozen=True, eq=False)
class Segments:
    """Segments of one picture: the number of a segment per pixel (0: none), and their list."""

    ids: Int[Tensor, "H W"]
    segments: tuple[Segment, ...]


@dataclass(frozen=True, eq=False)
class Candidates:
    """Queries of one picture that predict a class: mask logits, scores, labels."""

    masks: Float[Tensor, "n h w"]
    scores: Float[Tensor, " n"]
    labels: Int[Tensor, " n"]
    queries: Int[Tensor, " n"]

    def at(self, index: Tensor) -> "Candidates":
        """Return the candidates at `index`."""
        parts = (self.masks, self.scores, self.labels, self.queries)
        return Candidates(*(part[index] for part in parts))

    def segment(self, id: int, i: int) -> Segment:
        """Return candidate `i` as a segment."""
        return Segment(id, int(self.labels[i]), float(self.scores[i]), int(self.queries[i]))


Rule = Callable[[Candidates, Size, Size, Collection[int]], Segments]
"""Function to segments from candidates, the size of the result, the size of the picture that the
model was given, and the labels of stuff."""


@dataclass(frozen=True)
class ByOverlap:
    """Rule that gives a pixel to the highest score times mask.

    A segment stays if it keeps more than `min_kept` of its own mask: of the pixels where mask times
    score reaches `mask_threshold`, as in transformers.
    """

    threshold: float = 0.5
    mask_threshold: float = 0.5
    min_kept: float = 0.8

    def __call__(
        self, found: Candidates, size: Size, processed: Size, stuff: Collection[int]
    ) -> Segments:
        found = found.at(found.scores > self.threshold)
        ids = torch.zeros(size, dtype=torch.long, device=found.masks.device)
        if not len(found.scores):
            return Segments(ids, ())
        strength = resized(found.masks.sigmoid(), size) * found.scores[:, None, None]
        winner, segments = strength.argmax(0), dict[object, Segment]()
        for k, label in enumerate(found.labels.tolist()):
            won, own = winner == k, strength[k] >= self.mask_threshold
            kept = float(won.sum() / own.sum()) if own.any() else 0.0
            if kept <= self.min_kept:
                continue
            key = label if label in stuff else (label, k)
            segment = segments.setdefault(key, found.segment(len(segments) + 1, k))
            ids[won] = segment.id
        return Segments(ids, tuple(segments.values()))


@dataclass(frozen=True)
class ByArea:
    """Rule that keeps only queries above `threshold` and gives every pixel to one of them.

    Segments of `max_small` pixels or fewer are removed.
    """

    threshold: float = 0.85
    max_small: int = 4

    def __call__(
        self, found: Candidates, size: Size, processed: Size, stuff: Collection[int]
    ) -> Segments:
        found, first = found.at(found.scores > self.threshold), True
        while len(found.scores):
            winner = resized(found.masks, processed).argmax(0)
            if first:
                winner = _joined(winner, found.labels, stuff)
            winner = _nearest(winner, size)
            area = winner.flatten().bincount(minlength=len(found.scores))
            if bool((area > self.max_small).all()):
                segments = (found.segment(k + 1, k) for k in range(len(found.scores)))
                return Segments(winner + 1, tuple(segments))
            found, first = found.at(area > self.max_small), False
        return Segments(torch.zeros(size, dtype=torch.long, device=found.masks.device), ())


def semantic(
    prediction: Prediction, sizes: Sequence[Size], *, padding: Bool[Tensor, "B H W"] | None = None
) -> list[Int[Tensor, "_ _"]]:
    """Return the label of every pixel, per picture, by a model whose last class is "no object".

    "No object" is not a possible answer.
    """
    masks = _masks(prediction, sizes)
    votes = at_least_single(prediction.logits).softmax(-1)[..., :-1]
    maps = []
    for b, size in enumerate(sizes):
        probability = part_of_picture(masks[b], _of(padding, b)).sigmoid()
        scores = torch.einsum("qc,qhw->chw", votes[b], probability)
        maps.append(resized(scores, size).argmax(0))
    return maps


def panoptic(
    prediction: Prediction,
    sizes: Sequence[Size],
    stuff: Collection[int] = (),
    rule: Rule | None = None,
    *,
    padding: Bool[Tensor, "B H W"] | None = None,
    alone: bool = False,
) -> list[Segments]:
    """Return the segments of each picture, at its (height, width) in `sizes`.

    Each label in `stuff` has at most one segment. `alone` says that every class is judged alone, as
    by RT-DETR; otherwise the last class is "no object".
    """
    masks, rule = _masks(prediction, sizes), rule or ByOverlap()
    found, nothing = [], -1 if alone else prediction.logits.shape[-1] - 1
    for b, size in enumerate(sizes):
        logits = at_least_single(prediction.logits[b])
        scores, labels = (logits.sigmoid() if alone else logits.softmax(-1)).max(-1)
        said = (labels != nothing).nonzero()[:, 0]
        picture = part_of_picture(masks[b, said], _of(padding, b))
        processed = size if padding is None else (picture.shape[-2], picture.shape[-1])
        candidates = Candidates(picture, scores[said], labels[said], said)
        found.append(rule(candidates, size, processed, stuff))
    return found


def instance(
    prediction: Prediction,
    sizes: Sequence[Size],
    rule: Rule | None = None,
    *,
    padding: Bool[Tensor, "B H W"] | None = None,
    alone: bool = False,
) -> list[Segments]:
    """Return segments like `panoptic`, but every object keeps its own."""
    return panoptic(prediction, sizes, (), rule, padding=padding, alone=alone)


def _masks(prediction: Prediction, sizes: Sequence[Size]) -> Float[Tensor, "B Q h w"]:
    check_sizes(sizes, prediction)
    if prediction.masks is None:
        remedy = "use a model with a mask head (with_masks, detr_r50_panoptic)"
        raise ImageError("prediction.masks", "there are none", remedy)
    return at_least_single(prediction.masks)


def _of(padding: Bool[Tensor, "B H W"] | None, b: int) -> Bool[Tensor, "H W"] | None:
    return None if padding is None else padding[b]


def _nearest(ids: Int[Tensor, "h w"], size: Size) -> Int[Tensor, "H W"]:
    # Like Pillow, by the centres of pixels; torch's plain "nearest" uses their corners.
    return F.interpolate(ids[None, None].float(), size, mode="nearest-exact")[0, 0].long()


def _joined(winner: Tensor, labels: Tensor, stuff: Collection[int]) -> Tensor:
    """Give the pixels of equal stuff to the first query with that label."""
    first: dict[int, int] = {}
    target = [
        first.setdefault(label, k) if label in stuff else k
        for k, label in enumerate(labels.tolist())
    ]
    return torch.tensor(target, device=winner.device)[winner]
