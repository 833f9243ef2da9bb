r"""# Bases: the start of a study, in miniature and at full size

**In miniature** a run takes a minute, not a day. These choices make differences visible in it:

| choice                | miniature                          | paper                            |
|-----------------------|------------------------------------|----------------------------------|
| world                 | shapes, 128 px, small and crowded  | COCO, 640 px                     |
| model                 | nano with 30 queries, 12 positives | R50 with 300 queries, 100        |
| backbone starts from  | nano's own weights                 | ImageNet weights                 |
| learning rate of the backbone | a tenth of the others'     | a tenth                          |
| pictures seen         | a few thousand                     | 1.4 million (12 epochs)          |

The papers also start from a trained backbone. Ours learned the same shapes, but larger, and in a
model with the encoder of row E. All variants start from it, but it was trained with only one of
them.
"""

from dataclasses import dataclass, replace

from rtdetr_lab.ablations.variant import Setup
from rtdetr_lab.checkpoints.infer import PRESETS
from rtdetr_lab.config import require
from rtdetr_lab.data.batch import Augmented, Dataset, Mapped, Sample, Wrapped
from rtdetr_lab.data.coco import CocoDataset
from rtdetr_lab.data.findings import raise_first_error
from rtdetr_lab.data.shapes import SHAPE_NAMES, TRAIN, VAL, ShapesDataset
from rtdetr_lab.data.shapes_worlds import SMALLEST, WORLDS
from rtdetr_lab.data.transforms import RandomFlip, Resize
from rtdetr_lab.denoising import DenoisingConfig
from rtdetr_lab.notation import Size
from rtdetr_lab.query_selection import TopScore
from rtdetr_lab.rtdetr import RTDETRConfig, rtdetr_nano
from rtdetr_lab.training import TrainConfig, from_scratch

VALIDATION = 200
"""Pictures for the evaluation of a miniature: always the same."""

LARGEST_KEPT = 20_000
"""A larger set is not kept in memory (1 GB at 128 px); its pictures are drawn again each time."""

FULL_SIZE = {p.__name__.removeprefix("rtdetr_"): p for p in PRESETS if p is not rtdetr_nano}


def miniature_config(num_classes: int = len(SHAPE_NAMES), num_queries: int = 30) -> RTDETRConfig:
    """Return nano with fewer queries and less denoising.

    30 queries are enough for twelve objects, and a step takes half as long.
    """
    cfg = rtdetr_nano(num_classes)
    return replace(cfg, selection=TopScore(num_queries), denoising=DenoisingConfig(12))


def short_recipe(num_pictures: int = 6400) -> TrainConfig:
    """Return a recipe of a few hundred steps of 8, with warm-up and average as short as the run."""
    return from_scratch(
        num_pictures,
        batch_size=8,
        backbone_lr=1e-4,
        warmup_steps=50,
        ema_decay=0.99,
        ema_warmup=50,
        save_every=200,
    )


def miniature(world: str = "plain") -> Setup:
    """Return the base of the shipped studies; in a world of crowds it has twice as many queries."""
    cfg = miniature_config(num_queries=60 if world == "crowds" else 30)
    return Setup(cfg, short_recipe(), backbone_weights="nano")


def full_size(preset: str) -> Setup:
    """Return a preset with the paper's recipe.

    Give it `backbone_weights` of ImageNet, as the paper does: the norms of the presets are frozen
    and expect them.
    """
    known = ", ".join(FULL_SIZE)
    require(preset in FULL_SIZE, "--preset", f"{preset!r} is not a preset", f"use nano or {known}")
    return Setup(FULL_SIZE[preset](), TrainConfig())


@dataclass(frozen=True)
class Kept(Wrapped):
    """Data set that keeps its samples in memory, so that 18 runs draw them only once.

    A picture of 128 × 128 takes 50 kB.
    """

    def __post_init__(self) -> None:
        object.__setattr__(self, "_samples", {})  # not a field: fields describe the data

    def __getitem__(self, index: int) -> Sample:
        samples: dict[int, Sample] = vars(self)["_samples"]
        if index not in samples:
            samples[index] = self.dataset[index]
        return samples[index]


def small_world(
    size: int = 128, num_pictures: int = 6400, world: str = "plain"
) -> tuple[Dataset, Dataset]:
    """Return (train, val) of a world; train has as many pictures as a run sees, each once."""
    what = f"{world!r} is not a world"
    require(world in WORLDS, "--world", what, f"use one of {', '.join(WORLDS)}")
    large = world == "plain" or size >= SMALLEST
    require(large, "--size", f"is {size}", f"give {SMALLEST} or more for the world {world!r}")
    config = WORLDS[world](size)
    train = ShapesDataset(config, TRAIN, num_pictures)
    val = Kept(ShapesDataset(config, VAL, VALIDATION))
    return (Kept(train) if num_pictures <= LARGEST_KEPT else train), val


def stored(folder: str, size: Size) -> tuple[Dataset, Dataset]:
    """Return (train, val) of a data set on disk, resized; training pictures are flipped at random.

    Raises `DataError` for data that cannot be used for training.
    """
    found = [CocoDataset.from_folder(folder, split) for split in ("train", "val")]
    for data in found:
        raise_first_error(data.annotations.findings)
    train, val = (Mapped(data, Resize(size)) for data in found)
    return Augmented(train, RandomFlip(), 0), val
