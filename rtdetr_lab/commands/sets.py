"""# Sets: from what stands on the command line to pictures to learn from and to be judged by"""

from collections.abc import Sequence
from dataclasses import dataclass

from rtdetr_lab.commands.base import say
from rtdetr_lab.data.batch import Augmented, Dataset, Mapped, Sample
from rtdetr_lab.data.coco import CocoDataset
from rtdetr_lab.data.shapes import TRAIN, VAL, ShapesConfig, ShapesDataset
from rtdetr_lab.data.transforms import RandomFlip, Resize

ENDLESS = 1_000_000
"""Training pictures of the shapes world: more than any run here sees, so none is seen twice."""


def world(size: int) -> ShapesConfig:
    """The default world in pictures of another size; in small ones the largest shapes fit in."""
    return ShapesConfig(size=size, max_side=min(ShapesConfig.max_side, float(size)))


def training_set(source: str, size: int, seed: int, as_stored: bool = False) -> Dataset:
    """`shapes`, or the `train` split of a COCO folder, resized and flipped at random; or left
    `as_stored`, for a recipe that resizes."""
    if source == "shapes":
        return ShapesDataset(world(size), TRAIN, ENDLESS)
    found = CocoDataset.from_folder(source, "train")
    for reason, count in found.dropped.items():
        say(f"{source}: {count} annotations are left out: {reason}", aside=True)
    return (
        found if as_stored else Augmented(Mapped(found, Resize((size, size))), RandomFlip(), seed)
    )


def validation_set(source: str, size: int, count: int | None = None, split: str = "val") -> Dataset:
    """`shapes`, or a split of a COCO folder, resized; at most `count` pictures of it."""
    if source == "shapes":
        return ShapesDataset(world(size), VAL, 500 if count is None else count)
    resized = Mapped(CocoDataset.from_folder(source, split), Resize((size, size)))
    return resized if count is None or count >= len(resized) else First(resized, count)


@dataclass(frozen=True)
class First:
    """The first pictures of a data set."""

    dataset: Dataset
    count: int

    @property
    def names(self) -> Sequence[str]:
        """Class names by label."""
        return self.dataset.names

    @property
    def category_ids(self) -> Sequence[int]:
        """The annotation's ids by label."""
        return self.dataset.category_ids

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return self.dataset[index]
