r"""# Detections: the result for one picture, in its own pixels

    found = detector("kitchen.jpg")
    found.boxes_xyxy, found.scores, found.labels, found.names
    found.above(0.8).only("cat").plot()

`Detections` is a table with one row per detection, best first. Boxes are corners in pixels of the
*upright* picture. They are not clipped, so they may reach a little over its edge. `frame` describes
how the file stores the picture, and `to_coco` returns boxes in the frame of the annotations
(`images/frames.py`). `labels` are the model's contiguous classes. `classes` has their names and
their category ids in the data set (COCO has 80 classes with ids up to 90).

A model with masks fills `masks`: for every row the pixels of its query, in the size of the picture
(`images/masks.py`). Masks may overlap. They take one byte per pixel and row, so filter before you
keep many. `SegmentedPicture` gives each pixel to one segment instead.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool
from torch import Tensor

from rtdetr_lab.boxes import xywh_from_xyxy
from rtdetr_lab.data.rle import encode_mask, run_lengths
from rtdetr_lab.errors import ImageError, import_extra, import_optional
from rtdetr_lab.images.arrays import RGB
from rtdetr_lab.images.classes import Classes as Classes
from rtdetr_lab.images.classes import classes_of as classes_of
from rtdetr_lab.images.decode import Photo
from rtdetr_lab.images.frames import Frame
from rtdetr_lab.images.panoptic import Segments
from rtdetr_lab.images.postprocess import Found
from rtdetr_lab.notation import Size
from rtdetr_lab.viz.boxes import annotate, save_annotated, show_boxes
from rtdetr_lab.viz.masks import paint_masks
from rtdetr_lab.viz.palette import DARK
from rtdetr_lab.writing import printable, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes


COLUMNS = ("image", "width", "height", "name", "label", "score", "x0", "y0", "x1", "y1")
"""Columns of `Detections.rows`: path, size in pixels, class name and label, score, and corners in
pixels, all of the upright picture."""


@dataclass(frozen=True)
class Detection:
    """Row of `Detections`: corners in pixels, score, label, class name, and query."""

    box_xyxy: tuple[float, float, float, float]
    score: float
    label: int
    name: str
    query: int


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Detections(Found):
    """Detections of one picture, best first, with frame, class names and pixels."""

    frame: Frame
    classes: Classes
    source: str = ""
    image: RGB | None = None

    @classmethod
    def of(cls, found: Found, photo: Photo, classes: Classes) -> "Detections":
        """Make detections from the result of `postprocess` for a picture."""
        columns, source, image = found.to("cpu").columns(), photo.source, photo.rgb
        return cls(**columns, frame=photo.frame, classes=classes, source=source, image=image)

    @property
    def size(self) -> Size:
        """(height, width) of the upright picture."""
        return self.frame.upright

    @property
    def names(self) -> tuple[str, ...]:
        """Class name of every detection."""
        return tuple(self.classes.names[i] for i in self.labels.tolist())

    def __iter__(self) -> Iterator[Detection]:
        rows = (self.scores, self.labels, self.queries)
        columns = zip(self.boxes_xyxy.tolist(), *(r.tolist() for r in rows), strict=True)
        for box, score, label, query in columns:
            yield Detection(tuple(box), score, label, self.classes.names[label], query)

    def __getitem__(self, index: Tensor | slice | Sequence[int]) -> "Detections":
        """Select rows by a mask, indices or a slice, in that order."""
        if isinstance(index, Tensor | slice):
            return self.at(index)
        return self.at(torch.as_tensor(index).long())

    def above(self, threshold: float | Mapping[str, float]) -> "Detections":
        """Select the rows with a score strictly above `threshold`, or above that of their class.

        Classes that are not in the mapping keep all rows. Raises `ConfigError` for an unknown name.
        """
        if not isinstance(threshold, Mapping):
            return self[self.scores > threshold]
        least = torch.full((len(self.classes),), -1.0, dtype=self.scores.dtype)
        for name, score in threshold.items():
            least[self.classes.label_of(name)] = score
        return self[self.scores > least[self.labels]]

    def only(self, *names: str) -> "Detections":
        """Select the rows of the named classes; raise `ConfigError` for an unknown name."""
        labels = torch.tensor([self.classes.label_of(n) for n in names], dtype=torch.long)
        return self[torch.isin(self.labels, labels)]

    def without_image(self) -> "Detections":
        """Drop the pixels, to keep many detections in memory, or to send them."""
        return replace(self, image=None)

    def __repr__(self) -> str:
        height, width = self.size
        source = f" in {printable(self.source)}" if self.source else ""
        head = f"{len(self)} detection{'s' * (len(self) != 1)}{source} ({width} × {height})"
        names = [shorten(printable(n), 40) for n in self.names]
        wide = max(map(len, names), default=0)
        rows = [
            f"  {n:<{wide}}  {d.score:.3f}  [" + ", ".join(f"{v:.1f}" for v in d.box_xyxy) + "]"
            for n, d in zip(names, self, strict=True)
        ]
        return "\n".join([head, *rows])

    def _drawable(self) -> tuple[RGB, Tensor, list[str], list[str]]:
        if self.image is None:
            remedy = "draw with rtdetr_lab.viz.boxes.show_boxes(image, …), or keep the image"
            raise ImageError(self.source or "detections", "has no pixels", remedy)
        texts = [f"{d.name} {d.score:.2f}" for d in self]
        colors = [DARK.color(label) for label in self.labels.tolist()]  # bright: photos are dark
        image = self.image if self.masks is None else paint_masks(self.image, self.masks, colors)
        return image, self.boxes_xyxy, texts, colors

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw picture, boxes, labels and masks on `ax` or a new figure; return the axes."""
        return show_boxes(*self._drawable(), ax=ax)

    def drawn(self) -> RGB:
        """Return the annotated picture."""
        return annotate(*self._drawable())

    def save(self, path: str | Path) -> Path:
        """Write the annotated picture; the suffix of `path` chooses the format."""
        return save_annotated(Path(path), *self._drawable())

    def rows(self) -> list[dict[str, Any]]:
        """Return a row per detection, with the columns `COLUMNS`; numbers have six decimals.

        `tables.py` writes the rows of many pictures for other tools.
        """
        height, width = self.size
        start = (self.source, width, height)
        rows = ((*start, d.name, d.label, d.score, *d.box_xyxy) for d in self)
        decimals = ([round(v, 6) if isinstance(v, float) else v for v in row] for row in rows)
        return [dict(zip(COLUMNS, row, strict=True)) for row in decimals]

    def to_pandas(self) -> Any:
        """Make a `pandas.DataFrame` of the `rows`; `tables.to_pandas` does it for many pictures.

        Raises `MissingExtraError` if pandas is not installed.
        """
        return import_extra("pandas", "notebooks").DataFrame(self.rows(), columns=list(COLUMNS))

    def to_json(self) -> dict[str, Any]:
        """Convert to plain numbers and texts for `json.dumps`; masks are COCO's plain run lengths.

        `size`, boxes and masks are those of the upright picture.
        """
        rows = [
            {"label": d.label, "name": d.name, "score": d.score, "box_xyxy": list(d.box_xyxy)} | m
            for d, m in zip(self, self._drawn(run_lengths), strict=True)
        ]
        lies = {"size_stored": list(self.frame.stored), "orientation": self.frame.orientation}
        about = {"image": self.source, "frame": "upright", "size": list(self.size), **lies}
        return {**about, "detections": rows}

    def to_coco(
        self, image_id: int, category_ids: Sequence[int] | None = None, size: Size | None = None
    ) -> list[Any]:
        """Make rows of a COCO results file.

        `bbox` is left, top, width, height. With masks, `segmentation` has compressed run lengths,
        which need the extra [eval]. The rows are in the frame of the annotations: the stored
        raster, unless `size`, the (height, width) in the annotations, fits only the upright
        picture. Raises `ImageError` if it fits neither.
        """
        lies = self.frame.of_annotations(size, self.source or "picture")
        ids = self.classes.category_ids if category_ids is None else category_ids
        boxes = xywh_from_xyxy(lies.boxes_as_stored(self.boxes_xyxy)).tolist()
        drawn = self._drawn(lambda mask: encode_mask(lies.pixels_as_stored(mask)))
        return [
            {"image_id": image_id, "category_id": ids[d.label], "bbox": box, "score": d.score} | m
            for d, box, m in zip(self, boxes, drawn, strict=True)
        ]

    def _drawn(self, encode: Callable[[Any], Any]) -> Iterator[dict[str, Any]]:
        for i in range(len(self)):
            yield {} if self.masks is None else {"segmentation": encode(self.masks[i].numpy())}

    def to_supervision(self) -> Any:
        """Convert to `supervision.Detections`; raise `MissingExtraError` if it is not installed."""
        import numpy as np

        return import_optional("supervision", "supervision").Detections(
            xyxy=self.boxes_xyxy.float().numpy(),
            confidence=self.scores.float().numpy(),
            class_id=self.labels.numpy(),
            mask=None if self.masks is None else self.masks.numpy(),
            data={"class_name": np.array(self.names, dtype=str)},
        )


@dataclass(frozen=True, eq=False)
class SegmentedPicture(Segments):
    """Segments of a picture: `ids` has a segment's id per upright pixel, 0 for none.

    `frame.pixels_as_stored` rotates `ids` to the stored picture.
    """

    classes: Classes
    frame: Frame
    image: RGB = field(repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Class name of every segment."""
        return tuple(self.classes.names[segment.label] for segment in self.segments)

    @property
    def masks(self) -> Bool[Tensor, "n H W"]:
        """Mask of every segment."""
        numbers = torch.tensor([s.id for s in self.segments], dtype=torch.long)
        return self.ids == numbers[:, None, None]

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the picture with painted, named segments on `ax` or a new figure."""
        from rtdetr_lab.viz.panoptic import show_segments

        return show_segments(self.image, self, self.classes.names, ax)
