r"""# Postprocess: from Q queries to boxes in pixels

There is no suppression, and there are no anchors to decode. The model ranks its predictions
(`model.by_sigmoid`, `model.by_softmax`), boxes are multiplied by the picture's size, and low scores
are cut. Ranking never waits for the device. So the whole table can be copied once and cut on
arrival, as an engine does. The table has Q rows per picture, best first:

| column | 0–3 | 4 | 5 | 6 |
|---|---|---|---|---|
| | corners in pixels | score | label | query |

**Fractions of what?** Pictures of a batch may share a canvas. A box is a fraction of its *picture*
or of the *canvas*, and a checkpoint does not say which:

| `fractions`      | trained by                                              |
|------------------|---------------------------------------------------------|
| `of_the_picture` | the authors, so all published weights                   |
| `of_the_canvas`  | fine-tuning with transformers' image processor          |

transformers itself reads all boxes as `of_the_picture`. Without padding both are the same.

`suppress` keeps at most one box per place, whatever its label. It is not part of the model, and
runs only on request.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rtdetr_lab.boxes import area, iou, xyxy_from_cxcywh
from rtdetr_lab.errors import ImageError
from rtdetr_lab.images.masks import masks_of
from rtdetr_lab.model import Rank, by_sigmoid, declared
from rtdetr_lab.notation import Size
from rtdetr_lab.structures import Prediction

Fractions = Callable[[Tensor, Tensor], Tensor]
F = TypeVar("F", bound="Found")


def of_the_picture(
    boxes: Float[Tensor, "B Q 4"], filled: Float[Tensor, "B 2"]
) -> Float[Tensor, "B Q 4"]:
    """Return the boxes unchanged."""
    return boxes


def of_the_canvas(
    boxes: Float[Tensor, "B Q 4"], filled: Float[Tensor, "B 2"]
) -> Float[Tensor, "B Q 4"]:
    """Enlarge boxes from fractions of the canvas to fractions of the picture."""
    height, width = filled.unbind(1)
    return boxes / torch.stack([width, height, width, height], dim=1).unsqueeze(1)


def filled_part(padding: Bool[Tensor, "B H W"], dtype: torch.dtype) -> Float[Tensor, "B 2"]:
    """Return the fraction of the canvas that a picture fills, as (height, width)."""
    pictures = (~padding).to(dtype)
    return torch.stack([pictures[:, :, 0].mean(1), pictures[:, 0].mean(1)], dim=1)


class NotFinite(ImageError):
    """Prediction with NaN or infinity: the fault of the model, not of the picture."""


@dataclass(frozen=True, eq=False)
class Found:
    """Detections of one picture, best first.

    Corners are in pixels; `queries` are the indices of the queries; `masks` are present if the
    model draws them (`masks.py`).
    """

    boxes_xyxy: Float[Tensor, "n 4"]
    scores: Float[Tensor, " n"]
    labels: Int[Tensor, " n"]
    queries: Int[Tensor, " n"]
    masks: Bool[Tensor, "n _ _"] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def at(self: F, index: Tensor | slice) -> F:
        """Return the detections at `index` (a mask, positions or a slice), in its order."""
        return replace(self, **{name: values[index] for name, values in self.columns().items()})

    def to(self: F, device: torch.device | str) -> F:
        """Move to another device."""
        return replace(self, **{name: one.to(device) for name, one in self.columns().items()})

    def columns(self) -> dict[str, Any]:
        """Return the tensors by name; each has one row per detection."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def ranked_table(
    rank: Rank,
    logits: Float[Tensor, "B Q _"],
    boxes: Float[Tensor, "B Q 4"],
    sizes: Float[Tensor, "B 2"],
) -> Float[Tensor, "B Q 7"]:
    """Return the table above, on the device of `logits`; `sizes` are (height, width) in pixels."""
    scores, labels, queries = rank(at_least_single(logits))
    corners = rows_at(xyxy_from_cxcywh(at_least_single(boxes)), queries)
    pixels = corners * sizes.to(corners).flip(1).repeat(1, 2).unsqueeze(1)
    columns = [scores, labels.to(scores.dtype), queries.to(scores.dtype)]
    return torch.cat([pixels, torch.stack(columns, dim=-1)], dim=-1)


def found_in(table: Float[Tensor, "B Q 7"], threshold: float) -> list["Found"]:
    """Return the rows of each picture that score strictly above `threshold`.

    Raises `ImageError` if a value is not finite: NaN would look like an empty picture.
    """
    found = []
    for number, rows in enumerate(table):
        check_finite(number, rows)
        kept = rows[rows[:, 4] > threshold]
        found.append(Found(kept[:, :4], kept[:, 4], kept[:, 5].long(), kept[:, 6].long()))
    return found


def postprocess(
    prediction: Prediction,
    sizes: Sequence[Size],
    threshold: float = 0.5,
    *,
    rank: Rank = by_sigmoid,
    padding: Bool[Tensor, "B H W"] | None = None,
    fractions: Fractions = of_the_picture,
    with_masks: bool = False,
) -> list[Found]:
    """Return, per picture, the detections that score strictly above `threshold`.

    `sizes` are (height, width) in pixels. `rank` is the model's; `padding` is what the model was
    given. Boxes may reach a little over the edge, as predicted. They have at least single
    precision. `with_masks` enlarges the masks of the detections, if the model draws any. Raises
    `ImageError` for values that are not finite.
    """
    check_sizes(sizes, prediction)
    boxes = at_least_single(prediction.boxes)
    if padding is not None:
        boxes = fractions(boxes, filled_part(padding, boxes.dtype))
    table = ranked_table(rank, prediction.logits, boxes, sizes_beside(boxes, sizes))
    found = found_in(table, threshold)
    if not with_masks or prediction.masks is None:
        return found
    drawn = []
    for number, (one, size) in enumerate(zip(found, sizes, strict=True)):
        logits = at_least_single(prediction.masks[number, one.queries])
        check_finite(number, logits)
        hidden = None if padding is None else padding[number]
        drawn.append(replace(one, masks=masks_of(logits, size, hidden)))
    return drawn


def postprocess_of(
    model: nn.Module, fractions: Fractions | None = None
) -> Callable[..., list[Found]]:
    """Return `postprocess` with the settings that the model declares."""
    says = declared(model)
    known = of_the_canvas if says.metadata.canvas_boxes else of_the_picture
    return partial(postprocess, rank=says.rank, fractions=fractions or known)


def check_sizes(sizes: Sequence[Size], prediction: Prediction) -> None:
    """Raise `ImageError` unless every picture has a size."""
    if len(sizes) != len(prediction.logits):
        what = f"{len(sizes)} sizes for {len(prediction.logits)} pictures"
        raise ImageError("sizes", what, "give one (height, width) per picture of the batch")


def check_finite(number: int, values: Tensor) -> None:
    """Raise `NotFinite` if the prediction for picture `number` is not finite."""
    if not bool(values.isfinite().all()):
        what = "the model's output contains NaN or infinity"
        remedy = "check the weights (`rtdetr-lab verify`); in half precision, try single precision"
        raise NotFinite(f"pictures[{number}]", what, remedy)


def sizes_beside(like: Tensor, sizes: Sequence[Size]) -> Float[Tensor, "B 2"]:
    """Return (height, width) of every picture, on the device of `like`."""
    return torch.tensor(sizes, dtype=at_least_single(like[:1]).dtype).to(like.device)


def rows_at(table: Float[Tensor, "B N D"], index: Int[Tensor, "B Q"]) -> Float[Tensor, "B Q D"]:
    """Return the rows at `index` of every picture's table.

    We do not use `take_along_dim`: an export with a dynamic batch does not support it.
    """
    return table.gather(1, index.unsqueeze(-1).expand(-1, -1, table.shape[2]))


def at_least_single(values: Tensor) -> Tensor:
    """Convert half precision to single: bfloat16 has no number between 512 and 516."""
    return values if values.dtype == torch.float64 else values.float()


def suppress(found: Found, max_iou: float = 0.7) -> Found:
    """Remove duplicates of any class: a box that overlaps a better one by more than `max_iou`."""
    found = found.at(found.scores.argsort(descending=True, stable=True))
    return found.at(survivors(iou(found.boxes_xyxy, found.boxes_xyxy) > max_iou))


def covered(boxes: Float[Tensor, "n 4"], others: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    """Return at [i, j] the fraction of box i that is inside box j of `others`."""
    low = torch.maximum(boxes[:, None, :2], others[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return (high - low).clamp(min=0).prod(-1) / area(boxes).clamp(min=1e-9)[:, None]


def survivors(beaten_by: Bool[Tensor, "n n"]) -> Bool[Tensor, " n"]:
    """Walk down the list and remove row i if a remaining j before it has `beaten_by[i, j]`.

    The walk is greedy: a removed row removes no others.
    """
    kept: list[int] = []
    for i, row in enumerate(beaten_by.tolist()):
        if not any(row[j] for j in kept):
            kept.append(i)
    mask = torch.zeros(len(beaten_by), dtype=torch.bool, device=beaten_by.device)
    mask[kept] = True
    return mask
