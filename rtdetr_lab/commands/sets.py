"""# Sets: from what stands on the command line to pictures to learn from and to be judged by

`metadata` is the model's: pictures come in the size it is made for.
"""

from collections.abc import Sequence

from rtdetr_lab.checkpoints.names import NAME, note_of, path_of
from rtdetr_lab.commands.base import say
from rtdetr_lab.data.batch import Augmented, Dataset, First
from rtdetr_lab.data.canvas import fitted
from rtdetr_lab.data.coco import CocoDataset
from rtdetr_lab.data.findings import Finding, Severity, raise_first_error
from rtdetr_lab.data.layout import COCO, find_layout
from rtdetr_lab.data.shapes import TRAIN, VAL, ShapesConfig, ShapesDataset
from rtdetr_lab.data.transforms import RandomFlip
from rtdetr_lab.data.whole_set import other_classes
from rtdetr_lab.model import Metadata

WORLD = "shapes"

ENDLESS = 1_000_000
"""Training pictures of the shapes world: more than any run here sees, so none is seen twice."""


def world(size: int) -> ShapesConfig:
    """The default world in pictures of another size; in small ones the largest shapes fit in."""
    return ShapesConfig(size=size, max_side=min(ShapesConfig.max_side, float(size)))


def is_world(source: str) -> bool:
    """Whether `--data` means the shapes world, and not a folder of that name."""
    return source.removeprefix(NAME) == WORLD and path_of(source) is None


def say_which(source: str) -> None:
    """Say where a folder takes the place of the shapes world, and where it is not COCO JSON."""
    if is_world(source):
        return
    if source == WORLD:
        say(note_of(source, "the drawn world"), aside=True)
    kind = find_layout(source).format
    if kind != COCO:
        told = f"{source}: a {kind} folder, read as it is; to have it as COCO JSON: "
        say(f"{told}rtdetr-lab data convert {source} NEW_FOLDER", aside=True)


def stored_sets(source: str, splits: Sequence[str]) -> dict[str, CocoDataset]:
    """Read splits of a data set on disk, each once; there are none of the shapes world.

    Raises `DataError` where the splits do not have the same classes.
    """
    if is_world(source):
        return {}
    layout = find_layout(source)
    found = {name: CocoDataset(layout[name].load(), layout.folder) for name in splits}
    raise_first_error(other_classes({name: data.annotations for name, data in found.items()}))
    return found


def tell(findings: Sequence[Finding]) -> None:
    """One line a rule: what is left out, and what should be looked at."""
    for rule in dict.fromkeys(f.rule for f in findings):
        first, *more = [f for f in findings if f.rule is rule]
        if rule.severity is Severity.DROPPED:
            text = f"{first.file}: {len(more) + 1} annotations are left out: {rule.name}"
            say(f"{text}; {first.remedy}", aside=True)
        elif rule.severity is Severity.WARNING:
            others = f" (and {len(more)} more)" if more else ""
            say(f"{first.where}: {rule.name}: {first.what}{others}; {first.remedy}", aside=True)


def training_set(
    source: str,
    metadata: Metadata,
    seed: int,
    as_stored: bool = False,
    found: CocoDataset | None = None,
) -> Dataset:
    """`shapes`, or the `train` split of a data set on disk, resized and flipped at random; or left
    `as_stored`, for a recipe that resizes. `found` is the split, where it was read already."""
    if is_world(source):
        return _drawn(metadata, TRAIN, ENDLESS)
    if found is None:
        found = CocoDataset.from_folder(source, "train")
    return found if as_stored else Augmented(fitted(found, metadata), RandomFlip(), seed)


def validation_set(
    source: str,
    metadata: Metadata,
    count: int | None = None,
    split: str = "val",
    found: CocoDataset | None = None,
) -> Dataset:
    """`shapes`, or a split of a data set on disk, resized as in training; at most `count` of it.
    `found` is the split, where it was read already."""
    if is_world(source):
        return _drawn(metadata, VAL, 500 if count is None else count)
    if found is None:
        found = CocoDataset.from_folder(source, split)
    resized = fitted(found, metadata)
    return resized if count is None or count >= len(resized) else First(resized, count)


def _drawn(metadata: Metadata, which: int, count: int) -> Dataset:
    """Shapes are drawn in squares, as large as the longer side of the model's size."""
    height, width = metadata.fixed_size
    data = ShapesDataset(world(max(height, width)), which, count)
    return data if height == width and not metadata.edges else fitted(data, metadata)
