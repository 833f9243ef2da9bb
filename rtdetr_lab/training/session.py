r"""# Session: one call of `train`, step after step

After a step there may be, in this order: a line of the record, a validation, a save. A validation
does not change the random numbers of the run, so the result does not depend on how often the run
validates.

The best validation so far writes `best.pt`, and `model/`, the model in a form that others can load.
Then the state is saved. The state is also saved every `save_every` steps, half a minute after the
start, and then every few minutes, even if a step takes long.
"""

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from rtdetr_lab.checkpoints.save import save_pretrained
from rtdetr_lab.data.batch import Dataset, collate
from rtdetr_lab.data.canvas import collate_on_canvas
from rtdetr_lab.errors import TrainingError
from rtdetr_lab.images.postprocess import NotFinite
from rtdetr_lab.model import declared
from rtdetr_lab.structures import Batch
from rtdetr_lab.training import state as keep
from rtdetr_lab.training.callbacks import Callback, states
from rtdetr_lab.training.distributed import World
from rtdetr_lab.training.finite import check_weights
from rtdetr_lab.training.memory import explain_full_memory
from rtdetr_lab.training.metrics import History, Record
from rtdetr_lab.training.stop import Stop
from rtdetr_lab.training.stream import Steps
from rtdetr_lab.training.trainer import Trainer

Validate = Callable[[nn.Module], Mapping[str, float]]

SOON, OFTEN = 30.0, 180.0
"""Seconds to the first save of a session, and between later saves."""

SHARE = 0.05
"""The largest part of the time that saves may take; on a slow disk they become rarer."""


@dataclass(frozen=True, eq=False)
class Run:
    """The result of `train`: the averaged model after the last step, in eval mode, and the record.

    `finished` is False for a run that was paused: call `train` again. The best model is in `folder
    / "model"`. `reason` tells why a callback ended the run before its budget was used.
    """

    model: nn.Module
    history: list[Record]
    step: int
    finished: bool
    folder: Path | None
    reason: str = ""


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

    def learn(self) -> Run:
        """Run the remaining steps, or run until `stop` is true."""
        trainer, first = self.trainer, self.trainer.step
        if first == 0:
            # A disk that is full or read-only shows now, not after the first hour.
            self.save()
        self.next_save = time.monotonic() + SOON
        self._tell(lambda c: c.begins(trainer))
        for batch in self._batches():
            trainer.learn(batch)
            self._tell(lambda c: c.stepped(trainer))
            validated = self._look()
            told = bool(self.reason) or self.stop(trainer.step - first)
            ends = self.world.any(told, trainer.device)
            if validated or ends or self._is_over or self._save_is_due:
                self.save()
            if ends:
                break
        self._tell(lambda c: c.ends(trainer))
        if trainer.best == float("-inf"):
            self._publish()  # there was no validation: publish the newest
        finished = self._is_over or bool(self.reason)
        model, records = trainer.ema.model, self.history.records
        return Run(model, records, trainer.step, finished, self.folder, self.reason)

    def _batches(self) -> Iterable[Batch]:
        """Yield the remaining batches."""
        config, trainer = self.config, self.trainer
        if trainer.step > config.num_steps:
            made = f"{trainer.step} steps are made, the budget is {config.num_steps}"
            print(made, file=sys.stderr)
        if self.reason or self._is_over:
            return ()
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
        return steps.batches(trainer.step, config.num_workers, pin_memory=on_gpu)

    @property
    def reason(self) -> str:
        """Return why a callback wants the run to end; empty if none does."""
        return next((c.reason for c in self.callbacks if c.reason), "")

    @property
    def _is_over(self) -> bool:
        return self.trainer.step >= self.config.num_steps

    @property
    def _save_is_due(self) -> bool:
        return self._due(self.config.save_every) or time.monotonic() >= self.next_save

    def _due(self, every: int) -> bool:
        return every > 0 and self.trainer.step % every == 0

    def _tell(self, event: Callable[[Callback], None]) -> None:
        for callback in self.callbacks:
            event(callback)

    def _look(self) -> bool:
        """Write a line and validate, if they are due; return True if the run was validated."""
        config = self.config
        if self._due(config.steps(config.log_every)) or self._is_over:
            self.record()
        if not self.validate or not (self._due(config.steps(config.eval_every)) or self._is_over):
            return False
        self.evaluate(self.validate)
        return True

    def record(self) -> None:
        """Write a line about the steps since the last one."""
        now, (step, then) = time.monotonic(), self.logged
        speed = (self.trainer.step - step) * self.config.batch_size / max(now - then, 1e-9)
        self.logged = (self.trainer.step, now)
        means, lr = self.trainer.take_means(), self.trainer.lr
        self._append({**means, "lr": lr, "pictures_per_s": round(speed, 2)})

    def evaluate(self, validate: Validate) -> None:
        """Evaluate the averaged model, without a change to the random numbers of the run."""
        rng, trainer = keep.rng_state(), self.trainer
        check_weights(trainer.step, trainer.ema.model, trainer.slower)
        try:
            with explain_full_memory(trainer.step, self.config, trainer.shape, trainer.device):
                scores = validate(trainer.ema.model)
        except NotFinite as error:
            what = f"in the validation {error.what}: the run diverges"
            raise TrainingError(f"step {trainer.step}", what, trainer.slower) from error
        trainer.ema.model.eval()
        keep.set_rng_state(rng)
        self._append({k: float(v) for k, v in scores.items()})
        known = declared(trainer.ema.model).metadata
        recommended = getattr(scores, "threshold", None)
        trainer.ema.model.metadata = replace(known, threshold=recommended)
        if scores["AP"] > trainer.best:
            trainer.best = float(scores["AP"])
            if self.folder:
                keep.save_state(self.folder / "best.pt", self._state())
            self._publish()
        self.logged = (trainer.step, time.monotonic())

    def save(self) -> None:
        """Save the state that the run resumes from."""
        if not self.folder:
            return
        began = time.monotonic()
        keep.save_last(self.folder, self._state())
        now = time.monotonic()
        self.next_save = now + max(OFTEN, (now - began) / SHARE)

    def _publish(self) -> None:
        """Save the averaged model in a form that others can load."""
        if self.folder:
            save_pretrained(self.trainer.ema.model, self.folder / "model")

    def _state(self) -> dict[str, Any]:
        return {**self.trainer.state(), **self.known, "callbacks": states(self.callbacks)}

    def _append(self, values: Mapping[str, Any]) -> None:
        step, seconds = self.trainer.step, self.before + time.monotonic() - self.started
        head = {"step": step, "pictures": step * self.config.batch_size}
        record = {**head, "seconds": round(seconds, 2), **values}
        self.history.append(record)
        self._tell(lambda c: c.recorded(self.trainer, record))
