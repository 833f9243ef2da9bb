r"""# Session: one call of `train`, step after step

What is due after a step, in this order: a line of the record, a validation, a save. The random
numbers of the run are put back after a validation, so that how often one looks changes nothing.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from rtdetr_lab.data.batch import Dataset, collate
from rtdetr_lab.data.canvas import collate_on_canvas
from rtdetr_lab.training import state as keep
from rtdetr_lab.training.callbacks import Callback, states
from rtdetr_lab.training.distributed import World
from rtdetr_lab.training.memory import explain_full_memory
from rtdetr_lab.training.metrics import History
from rtdetr_lab.training.stop import Stop
from rtdetr_lab.training.stream import Steps
from rtdetr_lab.training.trainer import Trainer

Validate = Callable[[nn.Module], Mapping[str, float]]


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
        steps = Steps(
            self.data,
            config.batch_size,
            config.seed,
            config.num_steps,
            augment=config.augment,
            collate=collate_on_canvas if trainer.model.takes_padding else collate,
            world=self.world,
        )
        on_gpu = trainer.device.type == "cuda"
        batches = steps.batches(first, config.num_workers, pin_memory=on_gpu)
        self._tell(lambda c: c.begins(trainer))
        for batch in () if self.reason else batches:
            trainer.learn(batch)
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
        with explain_full_memory(trainer.step, self.config, trainer.shape, trainer.device):
            scores = validate(trainer.ema.model)
        self.trainer.ema.model.eval()
        keep.set_rng_state(rng)
        self._append({k: float(v) for k, v in scores.items()})
        if self.folder and scores["AP"] > self.trainer.best:
            self.trainer.best = float(scores["AP"])
            keep.save_state(self.folder / "best.pt", self._state())
        self.logged = (self.trainer.step, time.monotonic())

    def _state(self) -> dict[str, Any]:
        return {**self.trainer.state(), **self.known, "callbacks": states(self.callbacks)}

    def _append(self, values: Mapping[str, Any]) -> None:
        step, seconds = self.trainer.step, self.before + time.monotonic() - self.started
        head = {"step": step, "pictures": step * self.config.batch_size}
        record = {**head, "seconds": round(seconds, 2), **values}
        self.history.append(record)
        self._tell(lambda c: c.recorded(self.trainer, record))


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
