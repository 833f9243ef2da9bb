"""# Sets: from what stands on the command line to pictures to learn from and to be judged by"""

from typing import Any

from rtdetr_lab.checkpoints.names import NAME, note_of, path_of
from rtdetr_lab.commands.base import say
from rtdetr_lab.data.batch import Augmented, Dataset, First, Mapped
from rtdetr_lab.data.canvas import ResizeEdges
from rtdetr_lab.data.coco import CocoDataset
from rtdetr_lab.data.shapes import TRAIN, VAL, ShapesConfig, ShapesDataset
from rtdetr_lab.data.transforms import RandomFlip, Resize
from rtdetr_lab.detr.model import DETRConfig
from rtdetr_lab.images.edges import PAPER_EDGES, Edges

WORLD = "shapes"

ENDLESS = 1_000_000
"""Training pictures of the shapes world: more than any run here sees, so none is seen twice."""


def world(size: int) -> ShapesConfig:
    """The default world in pictures of another size; in small ones the largest shapes fit in."""
    return ShapesConfig(size=size, max_side=min(ShapesConfig.max_side, float(size)))


def edges_for(size: int) -> Edges:
    """Shortest and longest side for a DETR, in the paper's proportion."""
    return (size, size * PAPER_EDGES[1] // PAPER_EDGES[0])


def edges_if_detr(cfg: Any, size: int) -> Edges | None:
    """A DETR keeps the shape of pictures; all others see squares."""
    return edges_for(size) if isinstance(cfg, DETRConfig) else None


def is_world(source: str) -> bool:
    """Whether `--data` means the shapes world, and not a folder of that name."""
    return source.removeprefix(NAME) == WORLD and path_of(source) is None


def say_which(source: str) -> None:
    """Say so where a folder took the place of the shapes world."""
    if source == WORLD and not is_world(source):
        say(note_of(source, "the drawn world"), aside=True)


def training_set(
    source: str, size: int, seed: int, as_stored: bool = False, edges: Edges | None = None
) -> Dataset:
    """`shapes`, or the `train` split of a COCO folder, resized (to `size` squared, or between
    `edges`) and flipped at random; or left `as_stored`, for a recipe that resizes."""
    if is_world(source):
        return _between(ShapesDataset(world(size), TRAIN, ENDLESS), edges)
    found = CocoDataset.from_folder(source, "train")
    for reason, count in found.dropped.items():
        say(f"{source}: {count} annotations are left out: {reason}", aside=True)
    return found if as_stored else Augmented(_resized(found, size, edges), RandomFlip(), seed)


def validation_set(
    source: str,
    size: int,
    count: int | None = None,
    split: str = "val",
    edges: Edges | None = None,
) -> Dataset:
    """`shapes`, or a split of a COCO folder, resized as in training; at most `count` of it."""
    if is_world(source):
        return _between(ShapesDataset(world(size), VAL, 500 if count is None else count), edges)
    resized = _resized(CocoDataset.from_folder(source, split), size, edges)
    return resized if count is None or count >= len(resized) else First(resized, count)


def _resized(data: Dataset, size: int, edges: Edges | None) -> Dataset:
    return _between(data, edges) if edges else Mapped(data, Resize((size, size)))


def _between(data: Dataset, edges: Edges | None) -> Dataset:
    # Shapes are drawn in their size; the run still has to know that its model keeps the shape.
    return Mapped(data, ResizeEdges(edges)) if edges else data
