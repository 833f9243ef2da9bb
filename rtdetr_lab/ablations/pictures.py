r"""# Pictures: the data of a study, drawn once and shared by its runs"""

from dataclasses import dataclass

from rtdetr_lab.data.batch import Sample, Wrapped


@dataclass(frozen=True)
class Kept(Wrapped):
    """A data set whose samples are kept in memory once made: 18 runs over one drawn world should
    draw it once. Worth it while it fits: 50 kB for a picture of 128 × 128."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_samples", {})  # no field: it is no part of what the data *is*

    def __getitem__(self, index: int) -> Sample:
        samples: dict[int, Sample] = vars(self)["_samples"]
        if index not in samples:
            samples[index] = self.dataset[index]
        return samples[index]
