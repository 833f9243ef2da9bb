r"""# Callbacks: what watches a run, and may end it

The loop learns, records, validates and saves. Everything else looks on: it is told when the run
begins, after every step, when a line was recorded, and when the run ends. A callback of your own
overrides what it needs and goes into `train(..., callbacks=[Mine()])`:

    class Print(Callback):
        def recorded(self, trainer, record):
            print(record)

A callback that sets `reason` ends the run after the step, with everything saved. What it must
remember across a resume it returns from `state` as plain values, which come back in `restore`.
"""

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from rtdetr_lab.errors import MissingExtraError
from rtdetr_lab.training.metrics import Record, draw_curves
from rtdetr_lab.training.trainer import Trainer


class Callback:
    """Does nothing, at every occasion."""

    def __init__(self) -> None:
        self.reason = ""

    def begins(self, trainer: Trainer) -> None:
        """Before the first step of this call; `trainer.step` are done already."""

    def stepped(self, trainer: Trainer) -> None:
        """After every step."""

    def recorded(self, trainer: Trainer, record: Record) -> None:
        """After a line of the record: of learning, or of a validation if it has an `AP`."""

    def ends(self, trainer: Trainer) -> None:
        """After the last step of this call."""

    def state(self) -> dict[str, Any]:
        """What a resume needs: numbers, strings, lists and dictionaries of them."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""


def states(callbacks: Iterable[Callback]) -> dict[str, Any]:
    """What a checkpoint keeps of them: by class, so that a run has one of a kind."""
    return {type(c).__name__: state for c in callbacks if (state := c.state())}


def restored(callbacks: list[Callback], saved: Mapping[str, Any] | None) -> list[Callback]:
    """The callbacks, each going on from what it had saved."""
    known = (saved or {}).get("callbacks", {})
    for callback in callbacks:
        if state := known.get(type(callback).__name__):
            callback.restore(state)
    return callbacks


class Bar(Callback):
    """Pictures seen, time left and pictures per second; loss and rate as last recorded."""

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
    """Ends the run after `patience` validations in a row none of which was more than `min_delta`
    better than the best before them."""

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
    """Draws the record when the run ends."""

    def __init__(self, path: Path, records: Callable[[], list[Record]]) -> None:
        super().__init__()
        self.path, self.records = path, records

    def ends(self, trainer: Trainer) -> None:
        draw_curves(self.records(), self.path)


class TensorBoard(Callback):
    """Writes every number of the record to TensorBoard's files; the record itself stays in
    `metrics.jsonl`. Raises `MissingExtraError` at once if TensorBoard is not installed."""

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            what = "TensorBoard is not installed"
            raise MissingExtraError("--tensorboard", what, "pip install tensorboard") from error
        self.folder, self.open = Path(folder), SummaryWriter

    def begins(self, trainer: Trainer) -> None:
        # What a stopped run wrote after its last save is about to be written again.
        self.writer: Any = self.open(str(self.folder), purge_step=trainer.step + 1)

    def recorded(self, trainer: Trainer, record: Record) -> None:
        kind = "train" if "loss" in record else "val"
        for name, value in record.items():
            if name != "step":
                self.writer.add_scalar(f"{kind}/{name}", value, record["step"])

    def ends(self, trainer: Trainer) -> None:
        self.writer.close()
