"""# Classes: the names of a model's labels, and their categories in the data set"""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from torch import nn

from rtdetr_lab.config import require
from rtdetr_lab.model import declared


@dataclass(frozen=True)
class Classes:
    """Names of the labels 0 … C−1, and their ids in the data set they were learned from."""

    names: tuple[str, ...]
    category_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.category_ids:
            object.__setattr__(self, "category_ids", tuple(range(len(self.names))))
        fine = len(self.category_ids) == len(self.names)
        what = f"{len(self.category_ids)} ids for {len(self.names)} names"
        require(fine, "category_ids", what, "give one id per class name")

    @classmethod
    def unnamed(cls, num_classes: int) -> "Classes":
        """Make numbered classes for a model without class names."""
        return cls(tuple(f"class {i}" for i in range(num_classes)))

    def __len__(self) -> int:
        return len(self.names)

    def label_of(self, name: str) -> int:
        """Return the label of a class name; raise `ConfigError` with the nearest names."""
        near = get_close_matches(name, self.names, n=3, cutoff=0.3) or list(self.names[:5])
        require(name in self.names, "class", f"{name!r} is unknown", f"nearest: {', '.join(near)}")
        return self.names.index(name)


def classes_of(model: nn.Module, names: Iterable[str] | None = None) -> Classes:
    """Return names of a model's labels: `names`, else those of its checkpoint, else numbers."""
    says = declared(model)
    known, count = says.metadata, says.num_classes
    if names is not None:
        classes = Classes(tuple(names))
    elif known.names:
        classes = Classes(known.names, known.category_ids)
    else:
        classes = Classes.unnamed(count)
    what = f"{len(classes)} names for a model with {count} classes"
    require(len(classes) == count, "names", what, "give one name per class")
    return classes
