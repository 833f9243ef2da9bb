r"""# Detections: the answer for one picture, in its own pixels

    found = detector("kitchen.jpg")
    found.boxes_xyxy, found.scores, found.labels, found.names
    found.above(0.8).only("cat").plot()

A table with one row per detection, best first. Boxes are corners in pixels of the *upright*
picture and may reach a little over its edge, as the model predicted them. `labels` are the model's
contiguous classes; `classes` knows what they are called and which category of the data set they
were (COCO counts 80 classes with ids up to 90).

`masks` are there if the model draws: for every row the pixels its query claims, in the size of the
picture (`images/masks.py`). They may overlap. It is one byte per pixel and row: filter before you
keep many.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rtdetr_lab.boxes import xywh_from_xyxy
from rtdetr_lab.config import require
from rtdetr_lab.data.rle import encode_mask, run_lengths
from rtdetr_lab.errors import ImageError, MissingExtraError
from rtdetr_lab.images.arrays import RGB
from rtdetr_lab.images.postprocess import Found
from rtdetr_lab.model import declared
from rtdetr_lab.notation import Size
from rtdetr_lab.viz.boxes import printable, save_annotated, shorten, show_boxes
from rtdetr_lab.viz.masks import paint_masks
from rtdetr_lab.viz.palette import DARK

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Classes:
    """What the labels 0 … C−1 are called, and their ids in the data set they were learned from."""

    names: tuple[str, ...]
    category_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.category_ids:
            object.__setattr__(self, "category_ids", tuple(range(len(self.names))))
        require(
            len(self.category_ids) == len(self.names),
            "category_ids",
            f"{len(self.category_ids)} ids for {len(self.names)} names",
            "give one id per class name",
        )

    @classmethod
    def unnamed(cls, num_classes: int) -> "Classes":
        """For a model nobody has told what its classes are."""
        return cls(tuple(f"class {i}" for i in range(num_classes)))

    def __len__(self) -> int:
        return len(self.names)

    def label_of(self, name: str) -> int:
        """The label of a class name; raises `ConfigError` with the nearest ones."""
        near = get_close_matches(name, self.names, n=3, cutoff=0.3) or list(self.names[:5])
        require(name in self.names, "class", f"no {name!r}", f"nearest: {', '.join(near)}")
        return self.names.index(name)


def classes_of(model: nn.Module, names: Iterable[str] | None = None) -> Classes:
    """What a model's labels are called: `names`, else what its checkpoint says, else numbers."""
    says = declared(model)
    known, count = says.metadata, says.num_classes
    if names is not None:
        classes = Classes(tuple(names))
    elif known.names:
        classes = Classes(known.names, known.category_ids)
    else:
        classes = Classes.unnamed(count)
    what = f"{len(classes)} names for a model with {count} classes"
    require(len(classes) == count, "names", what, "give every class one name")
    return classes


@dataclass(frozen=True)
class Detection:
    """One row: corners in pixels, score, label, what it is called, and the query it came from."""

    box_xyxy: tuple[float, float, float, float]
    score: float
    label: int
    name: str
    query: int


@dataclass(frozen=True, eq=False)
class Detections:
    """What was found in one picture, best first."""

    boxes_xyxy: Float[Tensor, "n 4"]
    scores: Float[Tensor, " n"]
    labels: Int[Tensor, " n"]
    queries: Int[Tensor, " n"]
    size: Size
    classes: Classes
    source: str = ""
    image: RGB | None = field(default=None, repr=False)
    masks: Bool[Tensor, "n H W"] | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls, found: Found, size: Size, classes: Classes, source: str = "", image: RGB | None = None
    ) -> "Detections":
        """From what `postprocess` returns."""
        f = found.to("cpu")
        rows = (f.boxes_xyxy, f.scores, f.labels, f.queries)
        return cls(*rows, size, classes, source, image, f.masks)

    @property
    def names(self) -> tuple[str, ...]:
        """What every detection is called."""
        return tuple(self.classes.names[i] for i in self.labels.tolist())

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        rows = (self.scores, self.labels, self.queries)
        columns = zip(self.boxes_xyxy.tolist(), *(r.tolist() for r in rows), strict=True)
        for box, score, label, query in columns:
            yield Detection(tuple(box), score, label, self.classes.names[label], query)

    def __getitem__(self, index: Tensor | slice | Sequence[int]) -> "Detections":
        """Those that a mask, positions or a slice picks, in that order."""
        at = index if isinstance(index, Tensor | slice) else torch.as_tensor(index).long()
        rows = {n: getattr(self, n)[at] for n in ("boxes_xyxy", "scores", "labels", "queries")}
        return replace(self, **rows, masks=None if self.masks is None else self.masks[at])

    def above(self, threshold: float) -> "Detections":
        """Those that score strictly above `threshold`."""
        return self[self.scores > threshold]

    def only(self, *names: str) -> "Detections":
        """Those of the named classes; raises `ConfigError` on a name the model does not know."""
        labels = torch.tensor([self.classes.label_of(n) for n in names], dtype=torch.long)
        return self[torch.isin(self.labels, labels)]

    def without_image(self) -> "Detections":
        """The same without the pixels: for keeping many, or sending them elsewhere."""
        return replace(self, image=None)

    def __repr__(self) -> str:
        height, width = self.size
        source = f" in {printable(self.source)}" if self.source else ""
        head = f"{len(self)} detection{'s' * (len(self) != 1)}{source} ({width} × {height})"
        names = [shorten(printable(n), 40, len) for n in self.names]
        wide = max(map(len, names), default=0)
        rows = [
            f"  {n:<{wide}}  {d.score:.3f}  [" + ", ".join(f"{v:.1f}" for v in d.box_xyxy) + "]"
            for n, d in zip(names, self, strict=True)
        ]
        return "\n".join([head, *rows])

    def _drawable(self) -> tuple[RGB, Tensor, list[str], list[str]]:
        if self.image is None:
            remedy = "draw with rtdetr_lab.viz.boxes.show_boxes(image, …), or keep the image"
            raise ImageError(self.source or "detections", "the pixels were dropped", remedy)
        texts = [f"{d.name} {d.score:.2f}" for d in self]
        colors = [DARK.color(label) for label in self.labels.tolist()]  # bright: photos are dark
        image = self.image if self.masks is None else paint_masks(self.image, self.masks, colors)
        return image, self.boxes_xyxy, texts, colors

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """The picture with boxes, labels and masks, on `ax` or a new figure; returns the axes."""
        return show_boxes(*self._drawable(), ax=ax)

    def save(self, path: str | Path) -> Path:
        """Write the annotated picture; the ending of `path` chooses the format."""
        return save_annotated(Path(path), *self._drawable())

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and texts, ready for `json.dumps`; masks as COCO's plain run lengths."""
        rows = [
            {"label": d.label, "name": d.name, "score": d.score, "box_xyxy": list(d.box_xyxy)} | m
            for d, m in zip(self, self._drawn(run_lengths), strict=True)
        ]
        return {"image": self.source, "size": list(self.size), "detections": rows}

    def to_coco(self, image_id: int, category_ids: Sequence[int] | None = None) -> list[Any]:
        """Rows of a COCO results file: `bbox` is left, top, width, height, and `segmentation`, if
        the model draws, compressed run lengths (which need the extra [eval])."""
        ids = self.classes.category_ids if category_ids is None else category_ids
        boxes = xywh_from_xyxy(self.boxes_xyxy).tolist()
        return [
            {"image_id": image_id, "category_id": ids[d.label], "bbox": box, "score": d.score} | m
            for d, box, m in zip(self, boxes, self._drawn(encode_mask), strict=True)
        ]

    def _drawn(self, encode: Callable[[Any], Any]) -> Iterator[dict[str, Any]]:
        for i in range(len(self)):
            yield {} if self.masks is None else {"segmentation": encode(self.masks[i].numpy())}

    def to_supervision(self) -> Any:
        """As `supervision.Detections`; raises `MissingExtraError` where it is not installed."""
        try:
            import supervision
        except ImportError as error:
            remedy = "pip install supervision"
            raise MissingExtraError("supervision", "is not installed", remedy) from error
        import numpy as np

        return supervision.Detections(
            xyxy=self.boxes_xyxy.float().numpy(),
            confidence=self.scores.float().numpy(),
            class_id=self.labels.numpy(),
            mask=None if self.masks is None else self.masks.numpy(),
            data={"class_name": np.array(self.names, dtype=str)},
        )
