"""# Sets: from what stands on the command line to pictures to learn from and to be judged by

`metadata` is the model's: pictures come in the size it is made for.
"""

from rtdetr_lab.commands.base import say
from rtdetr_lab.data.batch import Augmented, Dataset, First
from rtdetr_lab.data.canvas import fitted
from rtdetr_lab.data.coco import CocoDataset
from rtdetr_lab.data.shapes import TRAIN, VAL, ShapesConfig, ShapesDataset
from rtdetr_lab.data.transforms import RandomFlip
from rtdetr_lab.model import Metadata

ENDLESS = 1_000_000
"""Training pictures of the shapes world: more than any run here sees, so none is seen twice."""


def world(size: int) -> ShapesConfig:
    """The default world in pictures of another size; in small ones the largest shapes fit in."""
    return ShapesConfig(size=size, max_side=min(ShapesConfig.max_side, float(size)))


def training_set(source: str, metadata: Metadata, seed: int, as_stored: bool = False) -> Dataset:
    """`shapes`, or the `train` split of a COCO folder, resized and flipped at random; or left
    `as_stored`, for a recipe that resizes."""
    if source == "shapes":
        return _drawn(metadata, TRAIN, ENDLESS)
    found = CocoDataset.from_folder(source, "train")
    for reason, count in found.dropped.items():
        say(f"{source}: {count} annotations are left out: {reason}", aside=True)
    return found if as_stored else Augmented(fitted(found, metadata), RandomFlip(), seed)


def validation_set(
    source: str, metadata: Metadata, count: int | None = None, split: str = "val"
) -> Dataset:
    """`shapes`, or a split of a COCO folder, resized as in training; at most `count` of it."""
    if source == "shapes":
        return _drawn(metadata, VAL, 500 if count is None else count)
    resized = fitted(CocoDataset.from_folder(source, split), metadata)
    return resized if count is None or count >= len(resized) else First(resized, count)


def _drawn(metadata: Metadata, which: int, count: int) -> Dataset:
    """Shapes are drawn in squares, as large as the longer side of the model's size."""
    height, width = metadata.fixed_size
    data = ShapesDataset(world(max(height, width)), which, count)
    return data if height == width and not metadata.edges else fitted(data, metadata)
