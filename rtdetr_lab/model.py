r"""# Model: the attributes that every detector declares

Equipment (detector, evaluation, training, export) never checks *which* model it has. It reads
attributes of the model:

| attribute             | meaning                                   | RT-DETR      | DETR         |
|-----------------------|-------------------------------------------|--------------|--------------|
| `metadata`            | names, size, licence …: a `Metadata`      | always       | always       |
| `num_classes`         | number of classes                         | 80           | 91           |
| `num_queries`         | maximum number of objects in a picture    | 300          | 100          |
| `rank`                | function from class logits to scores      | `by_sigmoid` | `by_softmax` |
| `takes_padding`       | pictures keep their shape, on one canvas  | no           | yes          |
| `takes_fewer_queries` | `num_queries` may be set                  | yes          | no           |
| `draws_masks`         | its `Prediction` has masks                | no           | with a head  |

Your own class declares all of them, or inherits from `DetectionModel` and declares the differences.
`declared` raises an error that names missing ones.

**From logits to scores.** RT-DETR's sigmoids are independent. One top-k over *all* pairs of query
and class decides, so a query may appear twice, and another not at all:

$$ s_{q,c} = \sigma(\ell_{q,c}), \qquad (q, c)_1, \dots, (q, c)_Q = \operatorname{top\text{-}Q} s,
   \qquad q = \lfloor i / C \rfloor, \quad c = i \bmod C $$

DETR's classes exclude each other, and the last one is "nothing". So a query has one label:

$$ s_q = \max_{c < C} \operatorname{softmax}(\ell_q)_c, \qquad
   c_q = \arg\max_{c < C} \ell_{q,c} $$
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from rtdetr_lab.errors import CheckpointError, ConfigError
from rtdetr_lab.notation import Edges, Size

Ranked = tuple[Float[Tensor, "B Q"], Int[Tensor, "B Q"], Int[Tensor, "B Q"]]
"""Scores, labels and queries, best first."""

Rank = Callable[[Float[Tensor, "B Q _"]], Ranked]


def by_sigmoid(logits: Float[Tensor, "B Q C"]) -> Ranked:
    """Return the best Q pairs of query and class, as RT-DETR."""
    num_queries, num_classes = logits.shape[1:]
    scores, index = logits.sigmoid().flatten(1).topk(num_queries, dim=1)
    return scores, index % num_classes, index // num_classes


def by_softmax(logits: Float[Tensor, "B Q C"]) -> Ranked:
    """Return every query with its best class except "nothing", the last one, as DETR."""
    scores, labels = logits.softmax(-1)[..., :-1].max(-1)
    scores, queries = scores.sort(dim=1, descending=True, stable=True)
    return scores, labels.gather(1, queries), queries


@dataclass(frozen=True)
class Metadata:
    """Facts about a model that are stored beside its weights.

    `image_size` is the (height, width) of training; None means that the model is not trained yet
    and takes pictures of any size. A DETR keeps the aspect ratio of a picture: `edges` are its
    shortest and longest side, and only uses with a fixed size (export) read `image_size`.
    `canvas_boxes` is True if boxes of padded pictures are fractions of the canvas
    (`images/preprocess.py`). `threshold` is the score that validation recommends
    (`evaluation/thresholds.py`). `sha256` is the digest of the tensors that were read.
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
    threshold: float | None = None

    def __post_init__(self) -> None:
        where, remedy = "metadata", "give one name and one category id per class"
        if self.category_ids and len(self.category_ids) != len(self.names):
            what = f"{len(self.names)} names and {len(self.category_ids)} category ids"
            raise CheckpointError(where, what, remedy)
        if len(set(self.category_ids)) != len(self.category_ids):
            raise CheckpointError(where, "a category id occurs twice", remedy)
        if self.edges is not None and not 1 <= self.edges[0] <= self.edges[1]:
            what = f"edges are {self.edges}"
            raise CheckpointError(where, what, "give the shortest side and the longest, in pixels")
        if self.threshold is not None and not 0 <= self.threshold < 1:
            what = f"threshold is {self.threshold}"
            raise CheckpointError(where, what, "give a score from 0 to 1")
        if self.image_size is not None and min(self.image_size) < 1:
            what = f"image_size is {self.image_size}"
            raise CheckpointError(where, what, "give (height, width) in pixels")

    def named(self, names: tuple[str, ...]) -> "Metadata":
        """Return these facts with other names of classes, if they are others."""
        if names == self.names:
            return self
        return replace(self, names=names, category_ids=tuple(range(len(names))))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @property
    def fixed_size(self) -> Size:
        """Fixed (height, width), for example of an exported file; 640 × 640 if unknown."""
        shortest = self.edges[0] if self.edges else 640
        return self.image_size or (shortest, shortest)


class DetectionModel(nn.Module):
    """Base of models from pictures to a `Prediction`; the table above lists its attributes."""

    rank: Rank = staticmethod(by_sigmoid)
    takes_padding: bool = False
    takes_fewer_queries: bool = False
    draws_masks: bool = False
    num_queries: int
    """Number of queries per picture; every model sets its own."""

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.cfg: Any = cfg
        self.metadata = Metadata()

    @property
    def num_classes(self) -> int:
        """Number of classes, without "nothing"."""
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
"""Attributes that a model must have → an example of each."""


def declared(model: object) -> Any:
    """Return `model`, if it has all attributes of a `DetectionModel`.

    Raises `ConfigError` with the names of missing attributes.
    """
    missing = [name for name in TO_DECLARE if not hasattr(model, name)]
    if missing:
        example = "; ".join(TO_DECLARE[name] for name in missing)
        remedy = f"write in the class: {example} (rtdetr_lab.model explains them)"
        what = f"has no {', '.join(missing)}"
        raise ConfigError(type(model).__name__, what, remedy)
    return model
