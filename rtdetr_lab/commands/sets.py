"""# Sets: from words on the command line to data for training and validation

`metadata` is the model's: pictures are resized to its size.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rtdetr_lab.checkpoints.names import NAME, note_of, path_of
from rtdetr_lab.commands.base import VAL_SPLIT, Reading, bar, say
from rtdetr_lab.config import require
from rtdetr_lab.data.annotated import Annotations
from rtdetr_lab.data.batch import Augmented, Dataset, First
from rtdetr_lab.data.canvas import fitted
from rtdetr_lab.data.coco import CocoDataset
from rtdetr_lab.data.findings import Finding, Severity, raise_first_error
from rtdetr_lab.data.layout import COCO, Layout, find_layout
from rtdetr_lab.data.places import Places
from rtdetr_lab.data.shapes import TRAIN, VAL, ShapesConfig, ShapesDataset
from rtdetr_lab.data.shapes_printed import printed
from rtdetr_lab.data.split import divide
from rtdetr_lab.data.transforms import RandomFlip
from rtdetr_lab.data.whole_set import other_classes
from rtdetr_lab.errors import ConfigError
from rtdetr_lab.images.decode import Limits
from rtdetr_lab.model import Metadata

AS_USUAL = Reading()

ENDLESS = 1_000_000
"""Training pictures of the shapes world: more than any run here sees, so none is seen twice."""


def world(size: int) -> ShapesConfig:
    """Return the default world with another picture size; in small pictures the largest shapes
    still fit."""
    return ShapesConfig(size=size, max_side=min(ShapesConfig.max_side, float(size)))


WORLDS: dict[str, Callable[[int], ShapesConfig]] = {"shapes": world, "printed": printed}
"""Name of a drawn world on the command line → function of the size of a picture, in pixels."""


def is_world(source: str) -> bool:
    """Return True if `--data` means a drawn world, and not a folder of that name."""
    return source.removeprefix(NAME) in WORLDS and path_of(source) is None


def names_of(source: str) -> tuple[str, ...]:
    """Return the classes of a drawn world."""
    return WORLDS[source.removeprefix(NAME)](256).names


def stored_sets(
    source: str, splits: Sequence[str], reading: Reading = AS_USUAL, val_split: float | None = None
) -> dict[str, CocoDataset]:
    """Read splits of a data set on disk, each once; a drawn world has none.

    If the set has no validation set, `val_split` of its pictures are held out (default: 0.15), the
    same ones at every call; 0 holds out none. Prints a line about that, if a folder is used in
    place of a drawn world, and if its format is not COCO JSON. Raises `DataError` if the splits
    do not have the same classes.
    """
    if is_world(source):
        return {}
    if source in WORLDS:
        say(note_of(source, "the drawn world"), aside=True)
    layout, limits = find_layout(source, reading.voc_origin), reading.limits
    if layout.format != COCO:
        told = f"{source}: a {layout.format} folder, read as it is; to convert it to COCO JSON: "
        say(f"{told}rtdetr-lab data convert {source} NEW_FOLDER", aside=True)
    if set(layout.splits) == {"train"} and "val" in splits and val_split != 0:
        loaded = _held_out(layout, VAL_SPLIT if val_split is None else val_split, limits)
    elif val_split and set(layout.splits) != {"train"}:
        what = f"is {val_split:g}, but {source} has {', '.join(layout.splits)}"
        raise ConfigError("--val-split", what, "leave it out")
    else:
        loaded = {split: layout[split].load() for split in splits}
    found = {s: CocoDataset(loaded[s], layout.folder, limits=limits) for s in splits}
    raise_first_error(other_classes({name: data.annotations for name, data in found.items()}))
    return found


def _held_out(layout: Layout, share: float, limits: Limits) -> dict[str, Annotations]:
    """Divide a training set, and say so. Raises `ConfigError` for a share that is none."""
    what = f"is {share:g}"
    require(0 < share < 1, "--val-split", what, "give a part of the pictures: 0.15")
    whole = layout["train"].load()
    places = Places(layout.folder, whole.path)
    shares = {"train": 1 - share, "val": share}
    parts = divide(whole, places, shares, limits=limits, progress=bar())
    told = f"{whole.path} has no validation set: {len(parts['val'].pictures)} of "
    told += f"{len(whole.pictures)} pictures are held out, the same ones in `train` and `eval`; "
    say(f"{told}to write them down: rtdetr-lab data split", aside=True)
    return parts


def divided(found: Mapping[str, CocoDataset]) -> dict[str, Any]:
    """Return which pictures learn and which validate; nothing if the data has both sets itself."""
    parts = {name: data.annotations for name, data in found.items()}
    paths = {part.path for part in parts.values()}
    if len(parts) < 2 or len(paths) > 1:
        return {}
    (path,) = paths
    names = {name: [p.file_name for p in part.pictures] for name, part in parts.items()}
    return {"annotations": str(path), **names}


def tell(findings: Sequence[Finding]) -> None:
    """Print one line per rule: annotations that are left out, and warnings."""
    for rule in dict.fromkeys(f.rule for f in findings):
        first, *more = [f for f in findings if f.rule is rule]
        if rule.severity is Severity.DROPPED:
            text = f"{first.file}: {len(more) + 1} annotations are left out: {rule.name}"
            say(f"{text}; {first.remedy}", aside=True)
        elif rule.severity is Severity.WARNING:
            others = f" (and {len(more)} more)" if more else ""
            say(f"{first.where}: {rule.name}: {first.what}{others}; {first.remedy}", aside=True)


def training_set(
    found: CocoDataset | str,
    metadata: Metadata,
    seed: int,
    as_stored: bool = False,
    masks: bool = False,
    mirrored: bool = True,
) -> Dataset:
    """Return a stored split, resized and mirrored at random, or the drawn world of this name.

    `as_stored` leaves the pictures as they are, for a recipe that resizes them. `masks` reads the
    masks of objects too.
    """
    if isinstance(found, str):
        return _drawn(found, metadata, TRAIN, ENDLESS, masks)
    found = replace(found, with_masks=masks)
    return (
        found if as_stored else Augmented(fitted(found, metadata), RandomFlip(0.5 * mirrored), seed)
    )


def validation_set(
    found: CocoDataset | str, metadata: Metadata, count: int | None = None, masks: bool = False
) -> Dataset:
    """Return at most `count` pictures of a stored split, resized as in training, or of the drawn
    world of this name."""
    if isinstance(found, str):
        return _drawn(found, metadata, VAL, 500 if count is None else count, masks)
    resized = fitted(replace(found, with_masks=masks), metadata)
    return resized if count is None or count >= len(resized) else First(resized, count)


def _drawn(source: str, metadata: Metadata, which: int, count: int, masks: bool) -> Dataset:
    """Draw squares whose side is the longer side of the model's size."""
    height, width = metadata.fixed_size
    config = WORLDS[source.removeprefix(NAME)](max(height, width))
    data = ShapesDataset(config, which, count, masks)
    return data if height == width and not metadata.edges else fitted(data, metadata)
