r"""# The life of a query: from a token to a detection

We follow one query through the whole decoder. Its token is one cell of one level. Its class score
gives it a rank among all tokens. Its proposal becomes the reference box. Each layer moves the box
and predicts its class again. The last prediction is the detection.

    with record(model) as seen:
        prediction = model(images)
    life = life_of_query(prediction, seen, shapes, query=0)
    draw_life(life, image)

The life has two sources: the records of the taps, and the output of the model. If they do not agree
exactly, the records are of another run, and `life_of_query` raises `RecordError`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rtdetr_lab.errors import RecordError
from rtdetr_lab.notation import Size, num_tokens
from rtdetr_lab.structures import Prediction
from rtdetr_lab.viz.cells import cells_of_tokens


@dataclass(frozen=True, eq=False)
class QueryLife:
    """Steps of one query: step 0 is the proposal, step i the i-th layer; boxes are cxcywh."""

    query: int
    token: int
    shapes: tuple[Size, ...]
    boxes: Float[Tensor, "S 4"]
    logits: Float[Tensor, "S C"]

    @property
    def rank(self) -> int:
        """Rank by score among all tokens, from 1; selection returns the tokens in this order."""
        return self.query + 1

    @property
    def cell(self) -> tuple[int, int, int]:
        """Level, row and column of the token."""
        level, row, column = cells_of_tokens(torch.tensor(self.token), self.shapes).tolist()
        return level, row, column

    @property
    def num_tokens(self) -> int:
        """Number of tokens that the query was selected from."""
        return num_tokens(self.shapes)

    @property
    def scores(self) -> Float[Tensor, "S"]:
        """Best class score after every step."""
        return self.logits.sigmoid().amax(-1)

    @property
    def labels(self) -> Int[Tensor, "S"]:
        """Best class after every step."""
        return self.logits.argmax(-1)

    @property
    def score(self) -> float:
        """Score of the detection."""
        return float(self.scores[-1])

    @property
    def label(self) -> int:
        """Label of the detection."""
        return int(self.labels[-1])


def life_of_query(
    prediction: Prediction,
    seen: Mapping[str, Tensor],
    shapes: Sequence[Size],
    query: int,
    picture: int = 0,
) -> QueryLife:
    """Chain the taps `selection.*`, `proposal_head.*` and `decoder.*` of one run to its output.

    `shapes` are those of the decoder's levels. Raises `RecordError` if the two do not agree.
    """
    proposals, layers = prediction.proposals, prediction.layers
    if proposals is None or not 0 <= query < prediction.boxes.shape[1]:
        what = f"there is no query {query} that started as a token"
        raise RecordError("life_of_query", what, "pass a prediction of RT-DETR and one of its Q")
    index = proposals.index[picture, query]
    steps = [proposals.layer, *layers]
    boxes = torch.stack([step.boxes[picture, query] for step in steps]).detach()
    logits = torch.stack([step.logits[picture, query] for step in steps]).detach()
    # Denoising queries, if any, come first: ours count from the end.
    place = query - prediction.boxes.shape[1]
    links = [("selection.index", query, index), ("proposal_head.logits", int(index), logits[0])]
    for i in range(len(layers)):
        links.append((f"decoder.reference.{i}", place, boxes[i]))
        links.append((f"decoder.boxes.{i}", place, boxes[i + 1]))
        links.append((f"decoder.logits.{i}", place, logits[i + 1]))
    for name, where, told in links:
        _check_link(name, seen[name][picture, where], told)
    return QueryLife(query, int(index), tuple(shapes), boxes.cpu(), logits.cpu())


def _check_link(name: str, recorded: Tensor, told: Tensor) -> None:
    # All links are exact but one: the first reference and the proposals are sigmoids of different
    # tensors, and vectorised sigmoids may differ in the last digit.
    first = name == "decoder.reference.0"
    slack = 4 * torch.finfo(told.dtype).eps if first else 0.0
    if not torch.allclose(recorded.detach(), told.detach(), rtol=0.0, atol=slack):
        what = "the record and the prediction are not of the same run"
        remedy = "take both from one call: prediction = model(images) inside the record block"
        raise RecordError(name, what, remedy)
