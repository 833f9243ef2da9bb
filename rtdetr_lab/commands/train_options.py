"""# Train's options: learning, validation, running; and the recipe that follows from them

None means "as in the recipe" (`training/recipe.py`), so that `--model` and `--data` are enough.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from rtdetr_lab.commands.base import HELD_OUT, Command, Reading
from rtdetr_lab.config import require

if TYPE_CHECKING:
    from rtdetr_lab.data.augment import AspectAugmentation, Augmentation
    from rtdetr_lab.model import DetectionModel, Metadata
    from rtdetr_lab.training import TrainConfig
    from rtdetr_lab.training.recipe import Steps

Recipe = Literal["scratch", "fine-tune", "paper", "v2"]
Augment = Literal["none", "flip", "light", "v1", "paper", "v2", "deim"]


def _by(hint: str) -> object:
    """Return the text that the help shows in place of "default: None"."""
    return tyro.conf.arg(help_behavior_hint=f"(default: {hint})")


@dataclass(frozen=True, kw_only=True)
class Learning:
    """Choose how the model learns. Options that are not given follow from the recipe."""

    recipe: Annotated[Recipe | None, _by("fine-tune with --model, else scratch")] = None
    """scratch, fine-tune, or a published one: paper (RT-DETR) or v2 (RT-DETRv2).
    The published ones are for a preset with --backbone-weights."""
    pictures: Annotated[int | None, _by("200,000 from scratch, else 50 or 72 rounds")] = None
    """Budget: pictures seen; each view counts."""
    batch_size: Annotated[int | None, _by("16; to fine-tune on few pictures, 4 or 8")] = None
    """Pictures per step."""
    accumulate: int = 1
    """Send the pictures of a step through the model in this many parts, to save memory."""
    lr: Annotated[float | None, _by("by the recipe")] = None
    """Learning rate after the warm-up."""
    backbone_lr: Annotated[float | None, _by("a part of --lr, by the backbone's depth")] = None
    """Learning rate of the backbone."""
    clip_norm: Annotated[float | None, _by("by the recipe")] = None
    """Largest norm of the gradient; a longer one is clipped."""
    warmup_steps: Annotated[int | None, _by("by the recipe")] = None
    """Steps during which the rate rises."""
    augment: Annotated[Augment | None, _by("paper and v2: their own, else flip")] = None
    """For folders: none; flip mirrors; light also changes colours; v1 (or paper) and v2 also
    zoom out, crop and resize; deim also joins pictures. For a DETR, v1 is DETR's own. Long runs
    on photos need one of them."""
    flip: bool = True
    """--no-flip: never mirror, because a mirror changes classes (left and right, d and b)."""
    turn: bool = False
    """Also turn pictures by quarters of a circle: objects may lie in any direction (cards, cells).
    """
    seed: int = 0
    """Seed of weights, order and augmentation."""

    @property
    def mirrors(self) -> bool:
        """Return whether pictures are mirrored at random."""
        return self.flip and self.augment != "none"

    def rates(self) -> dict[str, Any]:
        """Return the given values of the recipe, except the learning rate itself."""
        names = ("backbone_lr", "clip_norm", "warmup_steps")
        return {n: v for n in names if (v := getattr(self, n)) is not None}


@dataclass(frozen=True, kw_only=True)
class Evaluating:
    """Choose how the model is evaluated during training."""

    eval_every: Annotated[int | None, _by("a tenth of a fine-tuning run, else 0")] = None
    """Steps between validations; 0: only at the end. model/ holds the best model."""
    val_split: Annotated[float | None, HELD_OUT] = None
    """Part of the pictures that is held out for validation; 0: none."""
    val_limit: Annotated[int | None, _by("all")] = None
    """Most pictures in a validation."""
    patience: int = 0
    """End after this many validations in a row without a better AP; 0: use the whole budget."""
    min_delta: float = 0.0
    """For --patience, AP must improve by more than this."""
    overfit: int = 0
    """Overfit this number of batches, and evaluate on them. If AP does not reach 0.99,
    print possible faults (exit code 1)."""


@dataclass(frozen=True, kw_only=True)
class Running:
    """Choose how the run uses the machine. This changes what is learned only by rounding."""

    amp: bool = False
    """Compute in bfloat16 on a CPU too; a GPU that has it always does, except with --fp32."""
    amp_auto: bool = False
    """Compute in bfloat16 if the processor has it. `--amp auto` means the same."""
    fp32: bool = False
    """Compute in single precision, even if bfloat16 is faster."""
    device: Annotated[str | None, _by("the GPU where there is one")] = None
    """cpu, cuda, cuda:1 …"""
    workers: int = 0
    """Processes that load pictures; 0: load them between the steps."""
    threads: Annotated[int | None, _by("all cores")] = None
    """Threads for the computation; 1 is fastest if other programs use the cores too."""
    stop_after: Annotated[str | None, _by("the whole budget")] = None
    """Pause after this time: 90s, 50m, 1.5h."""
    save_every: int = 250
    """Steps between saves."""
    tensorboard: bool = False
    """Also write the record for TensorBoard, to tensorboard/ (needs: pip install tensorboard)."""
    wandb: bool = False
    """Also send the record to Weights & Biases (needs: pip install wandb)."""

    @property
    def precision(self) -> bool | None:
        """Return whether to use bfloat16; None if no option was given."""
        from rtdetr_lab.training import memory
        from rtdetr_lab.training.distributed import choose_device

        both = (self.amp or self.amp_auto) and self.fp32
        require(not both, "--fp32", "contradicts --amp", "leave one of them out")
        if self.amp_auto:
            return memory.computes_in_bf16(choose_device(self.device))
        return True if self.amp else False if self.fp32 else None


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Command):
    """Options of `train`."""

    data: str = "shapes"
    """`shapes` (drawn during training), or a folder with train and val: COCO JSON, YOLO or VOC."""
    model: Annotated[str | None, _by("a new one")] = None
    """Begin with this model: a short name, a hub id, a folder (also of a run) or a file.
    If the data has other classes, class heads are new."""
    preset: Annotated[str | None, _by("nano")] = None
    """Begin with a new model: nano, nano_seg, r18, r34, r50_m, r50, r101, v2_r18 … v2_r101,
    detr_nano, detr_r50, detr_r101, detr_r50_dc5, detr_r101_dc5."""
    backbone_weights: Annotated[str | None, _by("new weights")] = None
    """Pretrained ResNet-D weights for a preset's backbone: a hub id, a folder or a file."""
    freeze: Annotated[str, _by("nothing")] = ""
    """Modules that do not learn: backbone, or backbone,encoder …"""
    queries: Annotated[int | None, _by("the model's")] = None
    """Most objects that it can find in a picture. A DETR's additional queries begin at random."""
    out: Path = Path("runs/train")
    """Run folder: state, metrics.jsonl, curves.png, and the model in model/."""
    size: Annotated[str | None, _by("the model's; new: nano 256, RT-DETR 640, DETR 800")] = None
    """Size of the model's input: one number, or HxW.
    A DETR keeps the shape of pictures: one number is the shortest side."""
    masks: bool = False
    """Let an RT-DETR draw masks too: add a mask head, unless it has one."""
    names: Annotated[str | None, _by("as in its file")] = None
    """Names of the classes of --model, with commas, if its file has none."""
    learning: Annotated[Learning, tyro.conf.OmitArgPrefixes] = field(default_factory=Learning)
    evaluating: Annotated[Evaluating, tyro.conf.OmitArgPrefixes] = field(default_factory=Evaluating)
    running: Annotated[Running, tyro.conf.OmitArgPrefixes] = field(default_factory=Running)
    reading: Annotated[Reading, tyro.conf.OmitArgPrefixes] = field(default_factory=Reading)

    def step_of(self, count: int) -> int:
        """Return the pictures per step, for `count` pictures on disk."""
        from rtdetr_lab.training.recipe import TrainConfig, batch_for

        if self.learning.batch_size is not None:
            return self.learning.batch_size
        fits = recipe_name(self) == "fine-tune" and not self.evaluating.overfit
        return batch_for(count) if fits else TrainConfig.batch_size


ROUNDS = {"fine-tune": 50, "paper": 72, "v2": 72}
"""Default budget: views of each picture."""

OVERFIT_STEPS = 400
"""Views of each picture for `--overfit`; a healthy run ends long before."""


def recipe_name(asked: TrainOptions) -> str:
    """Return the recipe that was given, or that follows from what the run begins with."""
    from_preset = "paper" if asked.backbone_weights else "scratch"
    return asked.learning.recipe or ("fine-tune" if asked.model else from_preset)


def recipe_of(asked: TrainOptions, model: "DetectionModel", count: int) -> "TrainConfig":
    """Return the recipe for a model and `count` pictures on disk."""
    from rtdetr_lab.training import fine_tune, from_scratch, paper, v2
    from rtdetr_lab.training.recipe import to_overfit

    given, evaluating, running = asked.learning, asked.evaluating, asked.running
    makers: dict[str, Callable[..., TrainConfig]] = {
        "scratch": from_scratch,
        "fine-tune": partial(fine_tune, model.cfg),
        "paper": paper,
        "v2": partial(v2, model.cfg),
    }
    budget = given.pictures or _budget(asked, count)
    made = makers[recipe_name(asked)](budget, batch_size=asked.step_of(count))
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
        patience=evaluating.patience,
        min_delta=evaluating.min_delta,
        num_workers=running.workers,
        save_every=running.save_every,
        eval_every=_eval_every(asked),
    )
    return to_overfit(made) if evaluating.overfit else made


def _eval_every(asked: TrainOptions) -> "Steps":
    from rtdetr_lab.training.recipe import ShareOfRun

    if asked.evaluating.eval_every is not None:
        return asked.evaluating.eval_every
    often = recipe_name(asked) == "fine-tune" or asked.evaluating.patience
    return ShareOfRun(0.1) if often else 0


def _budget(asked: TrainOptions, count: int) -> int:
    from rtdetr_lab.commands.sets import is_world

    rounds = ROUNDS.get(recipe_name(asked))
    if asked.evaluating.overfit:
        return OVERFIT_STEPS * count
    if rounds is None:
        return 200_000
    return 20_000 if is_world(asked.data) else max(5_000, rounds * count)


def augmentation_of(
    asked: TrainOptions, metadata: "Metadata"
) -> "Augmentation | AspectAugmentation | None":
    """Return the augmentation of `--augment` or of the recipe; None if it only mirrors."""
    from rtdetr_lab.commands.sets import is_world
    from rtdetr_lab.data.augment import detr_augmentation
    from rtdetr_lab.data.dense import augmentation_named
    from rtdetr_lab.data.transforms import RandomFlip

    given, size, edges = asked.learning, metadata.fixed_size, metadata.edges
    chosen = given.augment or (given.recipe if given.recipe in ("paper", "v2") else "flip")
    keeps_aspect = chosen in ("light", "none", "flip")
    if (chosen in ("none", "flip") and not given.turn) or asked.evaluating.overfit:
        return None
    what = "a DETR keeps the shape of pictures"
    require(not (given.turn and edges), "--turn", what, "leave it out")
    what = "shapes are told apart by their aspect, and crops would change it"
    remedy = "use flip, or give a folder as --data"
    require(keeps_aspect or not is_world(asked.data), "--augment", what, remedy)
    if chosen in ("v1", "paper") and edges:
        own = detr_augmentation(edges)
        return own if given.flip else replace(own, flip=RandomFlip(0))
    what = f"{chosen} stretches all pictures to one size; a DETR keeps their shape"
    remedy = "use v1, which is DETR's own for a DETR, or flip"
    require(not edges, "--augment", what, remedy)
    return augmentation_named(chosen, size, given.flip, given.turn)
