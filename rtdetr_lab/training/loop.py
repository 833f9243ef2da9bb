r"""# The training loop

    run = train(rtdetr_nano(num_classes=9), data, "runs/nano", from_scratch(200_000))

The same call continues what it finds in the folder, whether it was stopped by Ctrl-C, by
`stop_after="50m"`, or by a power cut. On the CPU the result is bit for bit that of a run that was
never stopped: what a step does follows from the state (`state.py`) and its number (`stream.py`).

`train` prepares, `Session.learn` is the loop, `Trainer.learn` is one step. Between two of them may
come a line of the record, a validation and a save. Whatever else happens in a run is a callback:
progress bar, early stopping, curves, TensorBoard, the doctor (`callbacks.py`).
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rtdetr_lab.checkpoints.backbone import load_backbone
from rtdetr_lab.config import build
from rtdetr_lab.data.batch import Dataset, collate
from rtdetr_lab.data.canvas import collate_on_canvas
from rtdetr_lab.evaluation.answers import keeps_aspect
from rtdetr_lab.training import state as keep
from rtdetr_lab.training.callbacks import Bar, Callback, Curves, EarlyStopping
from rtdetr_lab.training.distributed import World, joined, own_device
from rtdetr_lab.training.finetune import check_classes
from rtdetr_lab.training.folder import enter, saved_state
from rtdetr_lab.training.memory import said_when_full
from rtdetr_lab.training.metrics import History, Record
from rtdetr_lab.training.publish import metadata_of, publish
from rtdetr_lab.training.recipe import TrainConfig
from rtdetr_lab.training.stop import Stop
from rtdetr_lab.training.stream import batches
from rtdetr_lab.training.trainer import Trainer

RECIPE = TrainConfig()
Validate = Callable[[nn.Module], Mapping[str, float]]


@dataclass(frozen=True, eq=False)
class Run:
    """What came out: the averaged model as it was last, in eval mode, and the record. `finished` is
    False for a run that was paused: call `train` again. The best model is in `folder / "model"`.
    `reason` says why a callback ended it before its budget was used up."""

    model: nn.Module
    history: list[Record]
    step: int
    finished: bool
    folder: Path | None
    reason: str = ""


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
    """Train what `cfg` describes, or a model that is already built, on `data`.

    `out` is the run folder; without one nothing is kept. `validate` maps the averaged model to
    scores, of which `AP` decides what is best. `backbone_weights` (hub id or file) fill a new
    model's backbone. `stop_after` pauses this call after so many steps, or a time ("50m").
    `callbacks` look on, and may end the run; after early stopping a higher `patience` goes on.
    Raises `TrainingError` if the folder holds another run or is in use.
    """
    folder = None if out is None else Path(out)
    where = own_device(device)
    with ExitStack() as held:
        world = held.enter_context(joined(where, config.batch_size))
        if folder and world.writes:
            held.enter_context(keep.lock(folder))
        stop = held.enter_context(Stop(stop_after))
        saved = saved_state(folder)
        keep.seed_everything(config.seed)
        trainer = Trainer(_begun(cfg, data, backbone_weights, saved), config, where)
        known = enter(folder, trainer, data, saved) if folder and world.writes else {}
        if saved:
            trainer.restore(saved)
        world.check_step(trainer.step, where)
        if not world.writes:
            folder, validate, progress = None, None, False
            keep.seed_everything(config.seed + trainer.step + world.rank * 1_000_003)
        history = History(folder and folder / "metrics.jsonl", trainer.step)
        watching = [*_watching(config, folder, history, progress), *callbacks]
        session = Session(trainer, data, folder, history, validate, stop, watching, known, world)
        session.restore(saved or {})
        session.learn()
        average: Any = trainer.ema.model
        average.metadata = metadata_of(data)
        if folder:
            publish(folder, average, average.metadata)
    finished = trainer.step >= config.num_steps or bool(session.reason)
    return Run(average, history.records, trainer.step, finished, folder, session.reason)


def _watching(
    config: TrainConfig, folder: Path | None, history: History, progress: bool
) -> Iterator[Callback]:
    """The callbacks that come with a recipe and a folder."""
    if progress:
        yield Bar()
    if config.patience:
        yield EarlyStopping(config.patience, config.min_delta)
    if folder:
        yield Curves(folder / "curves.png", lambda: history.records)


def _begun(
    cfg: Any, data: Dataset, backbone_weights: str | Path | None, saved: dict[str, Any] | None
) -> nn.Module:
    model = cfg if isinstance(cfg, nn.Module) else build(cfg)
    check_classes(model, data.names)
    if backbone_weights is None or saved:
        return model
    return load_backbone(model, backbone_weights)


@dataclass
class Session:
    """One call of `train`: the loop, and what it does between steps."""

    trainer: Trainer
    data: Dataset
    folder: Path | None
    history: History
    validate: Validate | None
    stop: Stop
    callbacks: list[Callback]
    known: dict[str, Any]
    world: World

    def __post_init__(self) -> None:
        self.config = self.trainer.config
        self.started, self.before = time.monotonic(), self.history.seconds
        self.logged = (self.trainer.step, self.started)

    def learn(self) -> None:
        """From the step that is next to the last, or until `stop` says so."""
        trainer, config, first = self.trainer, self.config, self.trainer.step
        if self.folder and first == 0:
            # An unwritable or full disk shows now and not after the first hour.
            keep.save_last(self.folder, self._state())
        last, workers = config.num_steps, config.num_workers
        order = (config.batch_size, config.seed, first, last)
        collated = collate_on_canvas if keeps_aspect(trainer.model) else collate
        stream = batches(self.data, *order, workers, config.augment, collated, self.world)
        self._tell(lambda c: c.begins(trainer))
        for batch in () if self.reason else stream:
            trainer.learn(*batch)
            self._tell(lambda c: c.stepped(trainer))
            self._look()
            told = bool(self.reason) or self.stop(trainer.step - first)
            ends = self.world.any(told, trainer.device)
            if self.folder and (_due(trainer.step, config.save_every) or ends or self._is_last):
                keep.save_last(self.folder, self._state())
            if ends:
                break
        self._tell(lambda c: c.ends(trainer))

    @property
    def reason(self) -> str:
        """Why a callback wants the run to end; empty if none does."""
        return next((c.reason for c in self.callbacks if c.reason), "")

    @property
    def _is_last(self) -> bool:
        return self.trainer.step == self.config.num_steps

    def _tell(self, event: Callable[[Callback], None]) -> None:
        for callback in self.callbacks:
            event(callback)

    def _look(self) -> None:
        """What is due after a step: a line of the record, a validation."""
        if _due(self.trainer.step, self.config.log_every) or self._is_last:
            self.record()
        if self.validate and (_due(self.trainer.step, self.config.eval_every) or self._is_last):
            self.evaluate(self.validate)

    def record(self) -> None:
        """A line of what was learnt since the last one."""
        now, (step, then) = time.monotonic(), self.logged
        speed = (self.trainer.step - step) * self.config.batch_size / max(now - then, 1e-9)
        self.logged = (self.trainer.step, now)
        means, lr = self.trainer.take_means(), self.trainer.lr
        self._append({**means, "lr": lr, "pictures_per_s": round(speed, 2)})

    def evaluate(self, validate: Validate) -> None:
        """Score the averaged model, without touching the random numbers of the run."""
        rng = keep.rng_state()
        trainer = self.trainer
        with said_when_full(trainer.step, self.config, trainer.shape, trainer.device):
            scores = validate(trainer.ema.model)
        self.trainer.ema.model.eval()
        keep.set_rng_state(rng)
        self._append({k: float(v) for k, v in scores.items()})
        if self.folder and scores["AP"] > self.trainer.best:
            self.trainer.best = float(scores["AP"])
            keep.save_state(self.folder / "best.pt", self._state())
        self.logged = (self.trainer.step, time.monotonic())

    def _state(self) -> dict[str, Any]:
        watching = {type(c).__name__: c.state() for c in self.callbacks}
        return {**self.trainer.state(), **self.known, "callbacks": watching}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Let every callback go on from what it had saved."""
        known = saved.get("callbacks", {})
        for callback in self.callbacks:
            if state := known.get(type(callback).__name__):
                callback.restore(state)

    def _append(self, values: Mapping[str, Any]) -> None:
        step, seconds = self.trainer.step, self.before + time.monotonic() - self.started
        head = {"step": step, "pictures": step * self.config.batch_size}
        record = {**head, "seconds": round(seconds, 2), **values}
        self.history.append(record)
        self._tell(lambda c: c.recorded(self.trainer, record))


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
