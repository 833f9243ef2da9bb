r"""# The training loop

    run = train(rtdetr_nano(num_classes=9), data, "runs/nano", from_scratch(200_000))

The same call resumes the run in the folder, whether it was stopped by Ctrl-C, by
`stop_after="50m"`, or by a power cut. On the CPU the result is bit for bit that of a run without a
stop: a step depends only on the state (`state.py`) and on its number (`stream.py`).

Pictures are resized to the model's size (`model.metadata`), unless the recipe's augmentation does
it. A model without a size takes the size of the pictures, and stores it.

`train` prepares, `Session.learn` (`session.py`) is the loop, and `Trainer.learn` is one step.
Between two steps there may be a line of the record, a validation and a save. Everything else in a
run is a callback (`callbacks.py`): progress bar, early stopping, curves, TensorBoard, the doctor.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rtdetr_lab.checkpoints.backbone import load_backbone
from rtdetr_lab.config import build
from rtdetr_lab.data.batch import Dataset
from rtdetr_lab.data.canvas import fitted
from rtdetr_lab.data.preflight import look_at
from rtdetr_lab.errors import TrainingError
from rtdetr_lab.model import declared
from rtdetr_lab.training import state as keep
from rtdetr_lab.training.callbacks import Bar, Callback, Curves, EarlyStopping, restored
from rtdetr_lab.training.distributed import choose_device, join_processes
from rtdetr_lab.training.finetune import check_classes, metadata_of
from rtdetr_lab.training.folder import enter, saved_state
from rtdetr_lab.training.metrics import History
from rtdetr_lab.training.recipe import TrainConfig
from rtdetr_lab.training.session import Run, Session, Validate
from rtdetr_lab.training.stop import Stop
from rtdetr_lab.training.trainer import Trainer
from rtdetr_lab.writing import locked

RECIPE = TrainConfig()


def train(
    cfg: Any,
    data: Dataset,
    out: str | Path | None = None,
    config: TrainConfig = RECIPE,
    validate: Validate | None = None,
    *,
    backbone_weights: str | Path | None = None,
    stop_after: int | str | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Train the model that `cfg` describes, or a model that is already built, on `data`.

    `out` is the run folder; without it, nothing is saved. `validate` evaluates the averaged model;
    the model with the best `AP` is kept. `backbone_weights` is a hub id or a file. `stop_after` is
    a number of steps, or a time ("50m"). Raises `TrainingError` if the folder has another run or is
    in use, and `DataError` for data that cannot teach anything.
    """
    look_at(data)
    folder, where = Path(out) if out else None, choose_device(device)
    with ExitStack() as held:
        world = held.enter_context(join_processes(where, config.batch_size))
        if folder and world.writes:
            held.enter_context(locked(folder, TrainingError))
        stop = held.enter_context(Stop(stop_after))
        saved = saved_state(folder)
        model, data = _fit(cfg, data, config, None if saved else backbone_weights)
        trainer = Trainer(model, config, where)
        known = enter(folder, trainer, data, saved) if folder and world.writes else {}
        if saved:
            trainer.restore(saved)
        world.check_step(trainer.step, where)
        if not world.writes:
            folder, validate, progress, callbacks = None, None, False, ()
            keep.seed_everything(config.seed + trainer.step + world.rank * 1_000_003)
        history = History(folder and folder / "metrics.jsonl", trainer.step)
        told = restored([*_own_callbacks(config, folder, history, progress), *callbacks], saved)
        return Session(trainer, data, folder, history, validate, stop, told, known, world).learn()


def _fit(
    cfg: Any, data: Dataset, config: TrainConfig, backbone_weights: str | Path | None
) -> tuple[Any, Dataset]:
    """Build the model from the seed and set its classes and size; resize the data to that size."""
    keep.seed_everything(config.seed)
    model = declared(cfg if isinstance(cfg, nn.Module) else build(cfg))
    check_classes(model, data.names)
    if backbone_weights is not None:
        load_backbone(model, backbone_weights)
    sized = config.augment and (config.augment.size or config.augment.edges)
    data = data if sized else fitted(data, model.metadata)
    model.metadata = metadata_of(data, config.augment, model.metadata)
    return model, data


def _own_callbacks(
    config: TrainConfig, folder: Path | None, history: History, progress: bool
) -> Iterator[Callback]:
    """Yield the callbacks that the recipe and the folder need."""
    if progress:
        yield Bar()
    if config.patience:
        yield EarlyStopping(config.patience, config.min_delta)
    if folder:
        yield Curves(folder / "curves.png", lambda: history.records)
