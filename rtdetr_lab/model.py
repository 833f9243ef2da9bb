r"""# Model: what every detector says about itself

Equipment (detector, evaluation, training, export) never asks *which* model it holds. It asks the
model, and a class answers with attributes:

| attribute             | says                                      | RT-DETR      | DETR         |
|-----------------------|-------------------------------------------|--------------|--------------|
| `metadata`            | names, size, licence …: a `Metadata`      | from birth   | from birth   |
| `num_classes`         | how many classes it can tell apart        | 80           | 91           |
| `num_queries`         | the most objects it finds in a picture    | 300          | 100          |
| `rank`                | how class logits become scores            | `by_sigmoid` | `by_softmax` |
| `takes_padding`       | pictures keep their shape, on one canvas  | no           | yes          |
| `takes_fewer_queries` | `num_queries` may be set                  | yes          | no           |
| `draws_masks`         | its `Prediction` has masks                | no           | with a head  |

A class of your own says the same, or inherits from `DetectionModel` and says what differs. What is
missing is named (`declared`).

**From logits to scores.** RT-DETR's sigmoids are independent. One top-k over *all* pairs of query
and class decides, so a query may appear twice, and another not at all:

$$ s_{q,c} = \sigma(\ell_{q,c}), \qquad (q, c)_1, \dots, (q, c)_Q = \operatorname{top\text{-}Q} s,
   \qquad q = \lfloor i / C \rfloor, \quad c = i \bmod C $$

DETR's classes exclude each other, and the last one is "nothing". A query has one label:

$$ s_q = \max_{c < C} \operatorname{softmax}(\ell_q)_c, \qquad
   c_q = \arg\max_{c < C} \ell_{q,c} $$
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from rtdetr_lab.errors import CheckpointError, ConfigError
from rtdetr_lab.notation import Edges, Size

Ranked = tuple[Float[Tensor, "B Q"], Int[Tensor, "B Q"], Int[Tensor, "B Q"]]
"""Scores, labels and queries, best first."""

Rank = Callable[[Float[Tensor, "B Q _"]], Ranked]


def by_sigmoid(logits: Float[Tensor, "B Q C"]) -> Ranked:
    """RT-DETR: the best Q pairs of query and class."""
    num_queries, num_classes = logits.shape[1:]
    scores, index = logits.sigmoid().flatten(1).topk(num_queries, dim=1)
    return scores, index % num_classes, index // num_classes


def by_softmax(logits: Float[Tensor, "B Q C"]) -> Ranked:
    """DETR: every query with its best class, "nothing" (the last one) left out."""
    scores, labels = logits.softmax(-1)[..., :-1].max(-1)
    scores, queries = scores.sort(dim=1, descending=True, stable=True)
    return scores, labels.gather(1, queries), queries


@dataclass(frozen=True)
class Metadata:
    """What a model remembers beside its weights.

    `image_size` is the (height, width) it was trained at; None: not trained yet, it takes pictures
    as they come. A DETR keeps the shape of a picture: `edges` are its shortest and longest side,
    and `image_size` is then only what fixed-size uses (export) take. `canvas_boxes` says what its
    boxes are fractions of where pictures are padded (`images/preprocess.py`). `sha256` is the
    digest of the tensors as read.
    """

    names: tuple[str, ...] = ()
    category_ids: tuple[int, ...] = ()
    image_size: Size | None = None
    licence: str | None = None
    source: str | None = None
    revision: str | None = None
    sha256: str | None = None
    edges: Edges | None = None
    canvas_boxes: bool = False

    def __post_init__(self) -> None:
        where, remedy = "metadata", "give one name and one category id per class"
        if self.category_ids and len(self.category_ids) != len(self.names):
            what = f"{len(self.names)} names and {len(self.category_ids)} category ids"
            raise CheckpointError(where, what, remedy)
        if len(set(self.category_ids)) != len(self.category_ids):
            raise CheckpointError(where, "a category id stands twice", remedy)
        if self.edges is not None and not 1 <= self.edges[0] <= self.edges[1]:
            what = f"edges are {self.edges}"
            raise CheckpointError(where, what, "give the shortest side and the longest, in pixels")
        if self.image_size is not None and min(self.image_size) < 1:
            what = f"image_size is {self.image_size}"
            raise CheckpointError(where, what, "give (height, width) in pixels")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @property
    def fixed_size(self) -> Size:
        """(height, width) for what must have one, such as an exported file: 640² if unknown."""
        shortest = self.edges[0] if self.edges else 640
        return self.image_size or (shortest, shortest)


class DetectionModel(nn.Module):
    """Pictures in, `Prediction` out; see the table above for what a subclass may say."""

    rank: Rank = staticmethod(by_sigmoid)
    takes_padding: bool = False
    takes_fewer_queries: bool = False
    draws_masks: bool = False
    num_queries: int
    """Per picture; every model sets its own."""

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.cfg: Any = cfg
        self.metadata = Metadata()

    @property
    def num_classes(self) -> int:
        """Classes it can tell apart, "nothing" not counted."""
        count: int = self.cfg.num_classes
        return count


TO_DECLARE = {
    "metadata": "metadata = Metadata()",
    "num_classes": "num_classes = 3",
    "num_queries": "num_queries = 100",
    "rank": "rank = staticmethod(by_sigmoid)",
    "takes_padding": "takes_padding = False",
    "takes_fewer_queries": "takes_fewer_queries = False",
    "draws_masks": "draws_masks = False",
}
"""What a model must say, and how a class says it."""


def declared(model: object) -> Any:
    """`model`, a `DetectionModel` or a class that says as much. Raises `ConfigError` with what is
    missing."""
    missing = [name for name in TO_DECLARE if not hasattr(model, name)]
    if missing:
        example = "; ".join(TO_DECLARE[name] for name in missing)
        remedy = f"write in the class: {example} (rtdetr_lab.model has all of these words)"
        what = f"does not say its {', '.join(missing)}"
        raise ConfigError(type(model).__name__, what, remedy)
    return model
