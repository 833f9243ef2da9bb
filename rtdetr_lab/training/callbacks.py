r"""# Callbacks: they watch a run, and may end it

The loop learns, records, validates and saves. Everything else is a callback. The loop calls it when
the run begins, after every step, after every line of the record, and when the run ends. Override
the methods that you need, and pass your callback to `train(..., callbacks=[Mine()])`:

    class Print(Callback):
        def recorded(self, trainer, record):
            print(record)

A callback that sets `reason` ends the run after the step; everything is saved first. To keep values
across a resume, return them from `state` as plain values. `restore` gets them back.
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from rtdetr_lab.config import require
from rtdetr_lab.config_json import to_dict
from rtdetr_lab.errors import TrainingError, import_optional
from rtdetr_lab.training.metrics import Record, draw_curves
from rtdetr_lab.training.trainer import Trainer
from rtdetr_lab.writing import printable, write_text


class Callback:
    """Base of all callbacks: its methods do nothing."""

    def __init__(self) -> None:
        self.reason = ""

    def begins(self, trainer: Trainer) -> None:
        """Called before the first step of this call; `trainer.step` steps are already done."""

    def stepped(self, trainer: Trainer) -> None:
        """Called after every step."""

    def recorded(self, trainer: Trainer, record: Record) -> None:
        """Called after every line of the record; the line is of a validation if it has an `AP`."""

    def ends(self, trainer: Trainer) -> None:
        """Called after the last step of this call."""

    def state(self) -> dict[str, Any]:
        """Return what a resume needs: numbers, strings, and lists and dictionaries of them."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to what `state` returned."""


def states(callbacks: Iterable[Callback]) -> dict[str, Any]:
    """Return what a checkpoint keeps of the callbacks. The key is the class: one of each."""
    return {type(c).__name__: state for c in callbacks if (state := c.state())}


def restored(callbacks: list[Callback], saved: Mapping[str, Any] | None) -> list[Callback]:
    """Restore each callback from its saved state, and return the callbacks."""
    known = (saved or {}).get("callbacks", {})
    for callback in callbacks:
        if state := known.get(type(callback).__name__):
            callback.restore(state)
    return callbacks


class Note(Callback):
    """A file beside the run, written when the run begins: so it never replaces that of another."""

    def __init__(self, path: Path, tree: dict[str, Any]) -> None:
        super().__init__()
        self.path, self.tree = path, tree

    def begins(self, trainer: Trainer) -> None:
        write_text(self.path, json.dumps(self.tree, ensure_ascii=False, indent=1), TrainingError)


class Bar(Callback):
    """Progress bar: pictures seen, time left and pictures per second; the last loss, rate and AP.

    It begins with the loss of the first step. Every validation gets a line of its own, which a log
    file keeps too. Without a terminal, the bar is written once a minute.
    """

    def begins(self, trainer: Trainer) -> None:
        size, config = trainer.config.batch_size, trainer.config
        done, total = trainer.step * size, config.num_steps * size
        where = {"unit": "img", "file": sys.stderr, "smoothing": 0.05}
        pause = 0.1 if sys.stderr.isatty() else 60.0
        self.bar: Any = tqdm(total=total, initial=done, mininterval=pause, **where)
        self.shown: dict[str, str] = {}
        if trainer.step:
            self._say(f"continues at step {trainer.step:,} of {config.num_steps:,}")

    def stepped(self, trainer: Trainer) -> None:
        if not self.shown:  # the first line of the record may be many steps away
            self._show(loss=f"{trainer.means.mean('loss'):.3f}")
        self.bar.update(trainer.config.batch_size)

    def recorded(self, trainer: Trainer, record: Record) -> None:
        if "loss" in record:
            self._show(loss=f"{record['loss']:.3f}", lr=f"{record['lr']:.2g}")
        if "AP" in record:
            self._show(AP=f"{record['AP']:.3f}")
            scores = (f"{name} {record[name]:.3f}" for name in ("AP", "AP50") if name in record)
            best = ", the best so far" * (record["AP"] > max(trainer.best, 0.0))
            self._say(f"step {record['step']:,}: {', '.join(scores)}{best}")

    def ends(self, trainer: Trainer) -> None:
        self.bar.close()

    def _show(self, **values: str) -> None:
        self.shown |= values
        self.bar.set_postfix(self.shown, refresh=sys.stderr.isatty())

    def _say(self, line: str) -> None:
        self.bar.write(line, file=sys.stderr)


class EarlyStopping(Callback):
    """Ends the run after `patience` validations in a row that did not beat the best AP by more than
    `min_delta`."""

    def __init__(self, patience: int, min_delta: float = 0.0) -> None:
        super().__init__()
        self.patience, self.min_delta = patience, min_delta
        self.best, self.waited = float("-inf"), 0

    def recorded(self, trainer: Trainer, record: Record) -> None:
        if "AP" not in record:
            return
        if record["AP"] > self.best + self.min_delta:
            self.best, self.waited = record["AP"], 0
        else:
            self.waited += 1
        self._decide()

    def _decide(self) -> None:
        if self.waited >= self.patience:
            by = f" by {self.min_delta:g}" if self.min_delta else ""
            self.reason = f"AP {self.best:.3f} was not beaten{by} in {self.waited} validations"

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    def restore(self, state: dict[str, Any]) -> None:
        self.best, self.waited = state["best"], state["waited"]
        self._decide()


class Curves(Callback):
    """Draws the curves of the record when the run ends."""

    def __init__(self, path: Path, records: Callable[[], list[Record]]) -> None:
        super().__init__()
        self.path, self.records = path, records

    def ends(self, trainer: Trainer) -> None:
        draw_curves(self.records(), self.path)


class TensorBoard(Callback):
    """Writes every number of the record to TensorBoard's files too. `metrics.jsonl` stays the
    record.

    Raises `MissingExtraError` at once if TensorBoard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self.open = import_optional("torch.utils.tensorboard", "tensorboard").SummaryWriter
        self.folder = Path(folder)

    def begins(self, trainer: Trainer) -> None:
        # A stopped run may have written after its last save: we write that again.
        self.writer: Any = self.open(str(self.folder), purge_step=trainer.step + 1)

    def recorded(self, trainer: Trainer, record: Record) -> None:
        for name, value in _tagged(record).items():
            self.writer.add_scalar(name, value, record["step"])

    def ends(self, trainer: Trainer) -> None:
        self.writer.close()


class WandB(Callback):
    """Sends every number of the record, the recipe and the model's configuration to Weights &
    Biases. wandb adds the versions of packages.

    Its environment variables say where: `WANDB_PROJECT`, `WANDB_MODE=offline`. A resumed run goes
    on in the same place. Raises `MissingExtraError` at once if wandb is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self.wandb, self.folder, self.id = import_optional("wandb", "wandb"), Path(folder), ""

    def begins(self, trainer: Trainer) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)  # else wandb writes to the folder of systems
        quiet = self.wandb.Settings(console="off", disable_git=True, disable_code=True)
        told: dict[str, Any] = {"dir": str(self.folder), "name": self.folder.parent.name}
        told |= {"id": self.id, "resume": "allow"} if self.id else {}
        recipe = {"recipe": to_dict(trainer.config), "model": to_dict(trainer.model.cfg)}
        # the run before this one may have ended in an error, without a word to wandb
        told |= {"settings": quiet, "reinit": "finish_previous"}
        self.run = self.wandb.init(config=recipe, **told)
        self.id = self.run.id

    def recorded(self, trainer: Trainer, record: Record) -> None:
        self.run.log(_tagged(record), step=record["step"])

    def ends(self, trainer: Trainer) -> None:
        self.run.finish()

    def state(self) -> dict[str, Any]:
        return {"id": self.id}

    def restore(self, state: dict[str, Any]) -> None:
        self.id = state["id"]


def _tagged(record: Record) -> Record:
    """Return the numbers of a line, named train/… or val/…"""
    kind = "train" if "loss" in record else "val"
    return {printable(f"{kind}/{name}"): v for name, v in record.items() if name != "step"}


LOGGERS: dict[str, Callable[[Path], Callback]] = {"tensorboard": TensorBoard, "wandb": WandB}
"""Names on the command line → callbacks that write the record for another program."""


def loggers(folder: Path, names: Iterable[str]) -> list[Callback]:
    """Return the callbacks of these names; each writes below its own folder in `folder`.

    Raises `ConfigError` for another name, and `MissingExtraError` for a missing package.
    """
    found = []
    for name in names:
        require(name in LOGGERS, "loggers", f"{name!r} is none", f"use {' or '.join(LOGGERS)}")
        found.append(LOGGERS[name](folder / name))
    return found
