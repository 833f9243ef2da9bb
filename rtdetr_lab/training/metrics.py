r"""# Metrics: the record of a run

`metrics.jsonl` has one JSON object per line. Each has `step`, `pictures` and `seconds`:

| kind       | fields                                                                       |
|------------|------------------------------------------------------------------------------|
| training   | `loss`, its terms, `grad_norm` (means since the last line), `lr`, `pictures_per_s` |
| validation | `AP`, `AP50` …, `AP_class/NAME`: what the evaluation returned                |

The run appends lines while it trains. A run that resumes from step s removes the lines after s: it
will write them again.
"""

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from rtdetr_lab.errors import TrainingError
from rtdetr_lab.layers import has_float64
from rtdetr_lab.writing import figure_text, write_bytes, write_text

Record = dict[str, Any]
NOT_TERMS = {"step", "pictures", "seconds", "loss", "grad_norm", "lr", "pictures_per_s"}


class Means:
    """Means since the last line of the record. Sums stay on the device, so that no step waits for
    them."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            value = value.detach()
            value = value.double() if has_float64(value.device) else value
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.count += 1

    def mean(self, name: str) -> float:
        """Return one mean so far."""
        return float(self.sums[name]) / self.count

    def take(self) -> dict[str, float]:
        """Return the means so far, and begin again."""
        means = {name: float(value) / self.count for name, value in self.sums.items()}
        self.sums, self.count = {}, 0
        return means


class History:
    """The lines of a run, in memory and, if there is a folder, on disk."""

    def __init__(self, path: Path | None, up_to_step: int) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path and path.exists() else []
        self.records = [r for r in _parsed(lines) if r["step"] <= up_to_step]
        if path:
            text = "".join(json.dumps(r) + "\n" for r in self.records)
            write_text(path, text, TrainingError)

    @property
    def seconds(self) -> float:
        """Return the time spent on the run up to its last line."""
        return self.records[-1]["seconds"] if self.records else 0.0

    def append(self, record: Record) -> None:
        self.records.append(record)
        if self.path:
            with open(self.path, "a") as file:
                file.write(json.dumps(record) + "\n")


def _parsed(lines: Iterable[str]) -> Iterable[Record]:
    for line in lines:
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return  # the last line of a process that was killed while writing


def draw_curves(records: list[Record], path: Path) -> None:
    """Draw the loss, its terms, the rate, and AP if it was measured, over pictures seen."""
    from matplotlib.figure import Figure  # the figure only: no window, no global state

    training = [r for r in records if "loss" in r]
    if not training:
        return
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    loss, terms, score = figure.subplots(1, 3)
    seen = [r["pictures"] for r in training]
    loss.plot(seen, [r["loss"] for r in training])
    loss.set(title="loss", xlabel="pictures seen", yscale="log")
    for name in sorted(training[-1].keys() - NOT_TERMS):
        if "." not in name:  # only the last layer; the other layers are in the record
            terms.plot(seen, [r[name] for r in training], linewidth=1, label=figure_text(name))
    terms.set(title="last layer", xlabel="pictures seen", yscale="log")
    terms.legend()
    _draw_score(score, records, training)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_bytes(path, buffer.getvalue(), error=TrainingError)


def _draw_score(axes: Any, records: list[Record], training: list[Record]) -> None:
    validation = [r for r in records if "AP" in r]
    if not validation:
        axes.plot([r["pictures"] for r in training], [r["lr"] for r in training])
        axes.set(title="learning rate", xlabel="pictures seen")
        return
    for name in ("AP", "AP50"):
        points = [(r["pictures"], r[name]) for r in validation if name in r]
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
    axes.set(title="validation", xlabel="pictures seen", ylim=(0, 1))
    axes.legend()
