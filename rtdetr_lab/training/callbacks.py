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

from rtdetr_lab.errors import MissingExtraError, TrainingError
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
    """Progress bar: pictures seen, time left and pictures per second; the last recorded loss and
    rate."""

    def begins(self, trainer: Trainer) -> None:
        size, config = trainer.config.batch_size, trainer.config
        done, total = trainer.step * size, config.num_steps * size
        where = {"unit": "img", "file": sys.stderr, "smoothing": 0.05}
        self.bar: Any = tqdm(total=total, initial=done, **where)

    def stepped(self, trainer: Trainer) -> None:
        self.bar.update(trainer.config.batch_size)

    def recorded(self, trainer: Trainer, record: Record) -> None:
        if "loss" in record:
            shown = {"loss": f"{record['loss']:.3f}", "lr": f"{record['lr']:.2g}"}
        else:
            shown = {"AP": f"{record.get('AP', -1):.3f}"}
        self.bar.set_postfix(shown)

    def ends(self, trainer: Trainer) -> None:
        self.bar.close()


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
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            what = "TensorBoard is not installed"
            raise MissingExtraError("--tensorboard", what, "pip install tensorboard") from error
        self.folder, self.open = Path(folder), SummaryWriter

    def begins(self, trainer: Trainer) -> None:
        # A stopped run may have written after its last save: we write that again.
        self.writer: Any = self.open(str(self.folder), purge_step=trainer.step + 1)

    def recorded(self, trainer: Trainer, record: Record) -> None:
        kind = "train" if "loss" in record else "val"
        for name, value in record.items():
            if name != "step":
                self.writer.add_scalar(printable(f"{kind}/{name}"), value, record["step"])

    def ends(self, trainer: Trainer) -> None:
        self.writer.close()
