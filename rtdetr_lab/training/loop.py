r"""# The training loop

    run = train(rtdetr_nano(num_classes=9), data, "runs/nano", from_scratch(200_000))

The same call continues what it finds in the folder, whether it was stopped by Ctrl-C, by
`stop_after="50m"`, or by a power cut. On the CPU the result is bit for bit that of a run that was
never stopped: what a step does follows from the state (`state.py`) and its number (`stream.py`).

`train` prepares, `Session.learn` is the loop, `Trainer.learn` is one step, and `_between` is what
comes between two of them: a line of the record, a validation, a save.
"""

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from rtdetr_lab.checkpoints.backbone import load_backbone
from rtdetr_lab.config import build
from rtdetr_lab.data.batch import Dataset, collate
from rtdetr_lab.data.canvas import collate_on_canvas
from rtdetr_lab.evaluation.answers import keeps_aspect
from rtdetr_lab.training import state as keep
from rtdetr_lab.training.finetune import check_classes
from rtdetr_lab.training.folder import enter, saved_state
from rtdetr_lab.training.metrics import History, Record, draw_curves
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
    False for a run that was paused: call `train` again. The best model is in `folder / "model"`."""

    model: nn.Module
    history: list[Record]
    step: int
    finished: bool
    folder: Path | None


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
) -> Run:
    """Train what `cfg` describes, or a model that is already built, on `data`.

    `out` is the run folder; without one nothing is kept. `validate` maps the averaged model to
    scores, of which `AP` decides what is best. `backbone_weights` (hub id or file) fill a new
    model's backbone. `stop_after` pauses this call after so many steps, or a time ("50m").
    Raises `TrainingError` if the folder holds another run or is in use.
    """
    folder = None if out is None else Path(out)
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    with ExitStack() as held:
        if folder:
            held.enter_context(keep.lock(folder))
        stop = held.enter_context(Stop(stop_after))
        saved = saved_state(folder)
        keep.seed_everything(config.seed)
        trainer = Trainer(_begun(cfg, data, backbone_weights, saved), config, where)
        known = enter(folder, trainer, data, saved) if folder else {}
        if saved:
            trainer.restore(saved)
        history = History(folder and folder / "metrics.jsonl", trainer.step)
        session = Session(trainer, data, folder, history, validate, stop, progress, known)
        session.learn()
        average: Any = trainer.ema.model
        average.metadata = metadata_of(data)
        if folder:
            publish(folder, average, average.metadata)
    return Run(average, history.records, trainer.step, trainer.step >= config.num_steps, folder)


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
    progress: bool
    known: dict[str, Any]

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
        stream = batches(self.data, *order, workers, config.augment, collated)
        with self._bar(first, last) as bar:
            for batch in stream:
                trainer.learn(*batch)
                bar.update(config.batch_size)
                paused = self.stop(trainer.step - first)
                self._between(bar, paused or trainer.step == last)
                if paused:
                    break
        if self.folder:
            draw_curves(self.history.records, self.folder / "curves.png")

    def _between(self, bar: tqdm, ends: bool) -> None:
        step, config = self.trainer.step, self.config
        is_last = step == config.num_steps
        if _due(step, config.log_every) or is_last:
            self.record(bar)
        if self.validate and (_due(step, config.eval_every) or is_last):
            self.evaluate(self.validate)
        if self.folder and (_due(step, config.save_every) or ends):
            keep.save_last(self.folder, self._state())

    def record(self, bar: tqdm) -> None:
        """A line of what was learnt since the last one."""
        now, (step, then) = time.monotonic(), self.logged
        speed = (self.trainer.step - step) * self.config.batch_size / max(now - then, 1e-9)
        self.logged = (self.trainer.step, now)
        means, lr = self.trainer.take_means(), self.trainer.lr
        self._append({**means, "lr": lr, "pictures_per_s": round(speed, 2)})
        bar.set_postfix(loss=f"{means['loss']:.3f}", lr=f"{lr:.2g}")

    def evaluate(self, validate: Validate) -> None:
        """Score the averaged model, without touching the random numbers of the run."""
        rng = keep.rng_state()
        scores = validate(self.trainer.ema.model)
        self.trainer.ema.model.eval()
        keep.set_rng_state(rng)
        self._append({k: float(v) for k, v in scores.items()})
        if self.folder and scores["AP"] > self.trainer.best:
            self.trainer.best = float(scores["AP"])
            keep.save_state(self.folder / "best.pt", self._state())
        self.logged = (self.trainer.step, time.monotonic())

    def _state(self) -> dict[str, Any]:
        return {**self.trainer.state(), **self.known}

    def _append(self, values: Record) -> None:
        step, seconds = self.trainer.step, self.before + time.monotonic() - self.started
        head = {"step": step, "pictures": step * self.config.batch_size}
        self.history.append({**head, "seconds": round(seconds, 2), **values})

    def _bar(self, first: int, last: int) -> tqdm:
        size = self.config.batch_size
        return tqdm(
            total=last * size,
            initial=first * size,
            unit="img",
            file=sys.stderr,
            disable=not self.progress,
            smoothing=0.05,
        )


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
