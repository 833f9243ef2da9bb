r"""# Pictures: the data of a study, drawn once and shared by its runs"""

from collections.abc import Sequence
from dataclasses import dataclass

from rtdetr_lab.data.batch import Dataset, Sample


@dataclass(frozen=True)
class Kept:
    """A data set whose samples are kept in memory once made: 18 runs over one drawn world should
    draw it once. Worth it while it fits: 50 kB for a picture of 128 × 128."""

    dataset: Dataset

    def __post_init__(self) -> None:
        object.__setattr__(self, "_samples", {})  # no field: it is no part of what the data *is*

    @property
    def names(self) -> Sequence[str]:
        """Class names by label."""
        return self.dataset.names

    @property
    def category_ids(self) -> Sequence[int]:
        """The annotation's ids by label."""
        return self.dataset.category_ids

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        samples: dict[int, Sample] = vars(self)["_samples"]
        if index not in samples:
            samples[index] = self.dataset[index]
        return samples[index]


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
        return min(self.count, len(self.dataset))

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.dataset[index]
