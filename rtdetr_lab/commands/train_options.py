"""# Train's options: how it learns, how it is judged, how it runs; and the recipe that follows

None means "as the recipe says" (`training/recipe.py`), so that `--model` and `--data` are enough.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from rtdetr_lab.commands.base import Command, Reading
from rtdetr_lab.config import require

if TYPE_CHECKING:
    from rtdetr_lab.data.augment import AspectAugmentation, Augmentation
    from rtdetr_lab.model import DetectionModel, Metadata
    from rtdetr_lab.training import TrainConfig
    from rtdetr_lab.training.recipe import Steps

Recipe = Literal["scratch", "fine-tune", "paper", "v2"]
Augment = Literal["flip", "paper", "v2"]


def _by(hint: str) -> object:
    """What stands in the help where tyro would say "default: None"."""
    return tyro.conf.arg(help_behavior_hint=f"(default: {hint})")


@dataclass(frozen=True, kw_only=True)
class Learning:
    """How it learns. What is not given follows from the recipe."""

    recipe: Annotated[Recipe | None, _by("fine-tune with --model, else scratch")] = None
    """scratch, fine-tune, or as published: paper (RT-DETR) or v2 (RT-DETRv2), for a preset with
    --backbone-weights."""
    pictures: Annotated[int | None, _by("200,000 from scratch, else so many rounds")] = None
    """Budget: pictures seen, however often each."""
    batch_size: int = 16
    """Pictures per step."""
    accumulate: int = 1
    """Parts in which they go through the model: more parts need less memory."""
    lr: Annotated[float | None, _by("by the recipe")] = None
    """Learning rate after the warm-up."""
    backbone_lr: Annotated[float | None, _by("a part of --lr, by the backbone's depth")] = None
    """That of the backbone."""
    clip_norm: Annotated[float | None, _by("by the recipe")] = None
    """Longest gradient."""
    warmup_steps: Annotated[int | None, _by("by the recipe")] = None
    """Steps over which the rate rises."""
    augment: Annotated[Augment | None, _by("paper and v2: their own, else flip")] = None
    """For folders: mirror only, or the recipe of RT-DETR or RT-DETRv2: colours, zoom-out, crops,
    several sizes; paper with a DETR is its own. Long runs on photos need it."""
    seed: int = 0
    """Of weights, order and augmentation."""

    def rates(self) -> dict[str, Any]:
        """What was given of the recipe's values, apart from the rate itself."""
        names = ("backbone_lr", "clip_norm", "warmup_steps")
        return {n: v for n in names if (v := getattr(self, n)) is not None}


@dataclass(frozen=True, kw_only=True)
class Judging:
    """How it is judged while it learns."""

    eval_every: Annotated[int | None, _by("a tenth of a fine-tuning, else 0")] = None
    """Steps between validations; 0: only at the end. The best goes to model/."""
    val_limit: Annotated[int | None, _by("all")] = None
    """At most so many pictures in a validation."""
    patience: int = 0
    """End after so many validations in a row without a better AP; 0: use the whole budget."""
    min_delta: float = 0.0
    """By how much AP must be better to count as better for --patience."""
    overfit: int = 0
    """Learn so many batches by heart and be judged by them: AP must reach 0.99, or it is said what
    is wrong (exit code 1)."""


@dataclass(frozen=True, kw_only=True)
class Running:
    """How it runs. Nothing here changes what is learned, but for the rounding of --amp."""

    amp: bool = False
    """Compute in bfloat16 on a CPU too; a GPU that has it does so anyway."""
    fp32: bool = False
    """Compute in single precision even where bfloat16 is faster."""
    device: Annotated[str | None, _by("the GPU where there is one")] = None
    """cpu, cuda, cuda:1 …"""
    workers: int = 0
    """Processes that load pictures; 0: between the steps."""
    threads: Annotated[int | None, _by("all cores")] = None
    """Threads for the arithmetic; 1 is fastest where other programs compete for the cores."""
    stop_after: Annotated[str | None, _by("the whole budget")] = None
    """Pause after a time: 90s, 50m, 1.5h."""
    save_every: int = 250
    """Steps between saves."""
    tensorboard: bool = False
    """Write the record for TensorBoard too, into tensorboard/ (needs: pip install tensorboard)."""

    @property
    def precision(self) -> bool | None:
        """What was said about bfloat16; None if nothing was."""
        both = self.amp and self.fp32
        require(not both, "--fp32", "contradicts --amp", "leave one of them out")
        return True if self.amp else False if self.fp32 else None


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Command):
    """What `train` may be asked for."""

    data: str = "shapes"
    """`shapes` (drawn while training), or a folder with train and val: COCO JSON, YOLO or VOC."""
    model: Annotated[str | None, _by("a new one")] = None
    """Begin with this model: a short name, a hub id, a folder, also that of a run, or a file. Class
    heads are new where the data has other classes."""
    preset: Annotated[str | None, _by("nano")] = None
    """Begin with new weights of: nano, r18, r34, r50_m, r50, r101, v2_r18 … v2_r101, detr_nano,
    detr_r50, detr_r101, detr_r50_dc5, detr_r101_dc5."""
    backbone_weights: Annotated[str | None, _by("new weights")] = None
    """Pretrained ResNet-D weights for a preset's backbone: a hub id, a folder or a file."""
    freeze: Annotated[str, _by("nothing")] = ""
    """Modules that do not learn: backbone, or backbone,encoder …"""
    queries: Annotated[int | None, _by("the model's")] = None
    """The most objects it can find in a picture. A DETR's are learned: new ones begin at random."""
    out: Path = Path("runs/train")
    """Run folder: state, metrics.jsonl, curves.png, and the model in model/."""
    size: Annotated[str | None, _by("the model's; new: 256 nano, 640")] = None
    """What the model sees: one number, or HxW; of a DETR, which keeps the shape, one number is the
    shortest side."""
    names: Annotated[str | None, _by("it says so")] = None
    """What the classes of --model are called, with commas, if its file does not say."""
    learning: Annotated[Learning, tyro.conf.OmitArgPrefixes] = field(default_factory=Learning)
    judging: Annotated[Judging, tyro.conf.OmitArgPrefixes] = field(default_factory=Judging)
    running: Annotated[Running, tyro.conf.OmitArgPrefixes] = field(default_factory=Running)
    reading: Annotated[Reading, tyro.conf.OmitArgPrefixes] = field(default_factory=Reading)


ROUNDS = {"fine-tune": 50, "paper": 72, "v2": 72}
"""Default budget: how often each picture is seen."""

BY_HEART = 400
"""The same for `--overfit`; a healthy run ends long before."""


def recipe_name(asked: TrainOptions) -> str:
    """The recipe that was asked for, or that follows from what the model begins with."""
    from_preset = "paper" if asked.backbone_weights else "scratch"
    return asked.learning.recipe or ("fine-tune" if asked.model else from_preset)


def recipe_of(asked: TrainOptions, model: "DetectionModel", count: int) -> "TrainConfig":
    """The recipe for a model and so many pictures on disk."""
    from rtdetr_lab.training import fine_tune, from_scratch, paper, v2
    from rtdetr_lab.training.recipe import by_heart

    given, judging, running = asked.learning, asked.judging, asked.running
    makers: dict[str, Callable[..., TrainConfig]] = {
        "scratch": from_scratch,
        "fine-tune": partial(fine_tune, model.cfg),
        "paper": paper,
        "v2": partial(v2, model.cfg),
    }
    budget = given.pictures or _budget(asked, count)
    made = makers[recipe_name(asked)](budget, batch_size=given.batch_size)
    if given.lr is not None:
        ratio = given.lr / made.lr
        made = replace(made, lr=given.lr, backbone_lr=made.backbone_lr * ratio)
    made = replace(
        made,
        **given.rates(),
        seed=given.seed,
        accumulate=given.accumulate,
        augment=augmentation_of(asked, model.metadata),
        amp=running.precision,
        patience=judging.patience,
        min_delta=judging.min_delta,
        num_workers=running.workers,
        save_every=running.save_every,
        eval_every=_eval_every(asked),
    )
    return by_heart(made) if judging.overfit else made


def _eval_every(asked: TrainOptions) -> "Steps":
    from rtdetr_lab.training.recipe import ShareOfRun

    if asked.judging.eval_every is not None:
        return asked.judging.eval_every
    often = recipe_name(asked) == "fine-tune" or asked.judging.patience
    return ShareOfRun(0.1) if often else 0


def _budget(asked: TrainOptions, count: int) -> int:
    from rtdetr_lab.commands.sets import is_world

    rounds = ROUNDS.get(recipe_name(asked))
    if asked.judging.overfit:
        return BY_HEART * count
    if rounds is None:
        return 200_000
    return 20_000 if is_world(asked.data) else max(5_000, rounds * count)


def augmentation_of(
    asked: TrainOptions, metadata: "Metadata"
) -> "Augmentation | AspectAugmentation | None":
    """What `--augment`, or the recipe, does to pictures beside mirroring them."""
    from rtdetr_lab.commands.sets import is_world
    from rtdetr_lab.data.augment import detr_augmentation, paper_augmentation, v2_augmentation

    size, edges = metadata.fixed_size, metadata.edges
    recipe = asked.learning.recipe
    chosen = asked.learning.augment or (recipe if recipe in ("paper", "v2") else "flip")
    if chosen == "flip" or asked.judging.overfit:
        return None
    what = "shapes are told apart by their aspect, which crops would change"
    remedy = "say flip, or give a folder as --data"
    require(not is_world(asked.data), "--augment", what, remedy)
    if chosen == "paper":
        whole = paper_augmentation(size[0])
        return detr_augmentation(edges) if edges else replace(whole, size=size)
    what = "v2 is RT-DETRv2's, which stretches pictures to squares; a DETR keeps their shape"
    remedy = "say paper, which for a DETR is its own, or flip"
    require(not edges, "--augment", what, remedy)
    return replace(v2_augmentation(size[0]), size=size)
