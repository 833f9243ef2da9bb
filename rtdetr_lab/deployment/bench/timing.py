"""# Timing: interleaved rounds, medians, spread, and a table of them"""

import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch

from rtdetr_lab.writing import Markdown, markdown_table, markdown_text

Subject = Callable[[], object]
"""Function that does the work once. We wait for what it leaves running on the device."""


@dataclass(frozen=True)
class Times:
    """Seconds of every round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median seconds of a round."""
        return statistics.median(self.rounds)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, as a fraction of the median."""
        if len(self.rounds) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.rounds, n=4, method="inclusive")
        return (high - low) / 2 / self.median


def interleaved(
    subjects: Mapping[str, Subject], rounds: int, warm_up: int = 2, *, clock: Callable[[], float]
) -> dict[str, Times]:
    """Run every subject once per round, in rotating order, so that none is always first."""
    for run in subjects.values():
        for _ in range(warm_up):
            run()
    wait()
    names, taken = list(subjects), {name: list[float]() for name in subjects}
    for i in range(rounds):
        shift = i % len(names)
        for name in names[shift:] + names[:shift]:
            start = clock()
            subjects[name]()
            wait()
            taken[name].append(clock() - start)
    return {name: Times(tuple(seconds)) for name, seconds in taken.items()}


def by_median(times: Mapping[str, Times]) -> dict[str, Times]:
    """Sort by median, the fastest first."""
    return dict(sorted(times.items(), key=lambda item: item[1].median))


def times_table(
    times: Mapping[str, Times],
    columns: Mapping[str, Callable[[str], str]] | None = None,
    bold: Collection[str] = (),
    last: Sequence[Sequence[str]] = (),
) -> str:
    """Format Markdown: median, spread, and the text of each of the `columns` for a name.

    Names in `bold` are bold; the rows of `last` come last.
    """
    more = columns or {}
    rows = [
        [
            Markdown(f"**{markdown_text(name)}**") if name in bold else name,
            f"{t.median * 1e3:.2f}",
            f"{t.spread:.0%}",
            *(cell(name) for cell in more.values()),
        ]
        for name, t in times.items()
    ]
    return markdown_table(["", "median ms", "±", *more], [*rows, *last])


def wait() -> None:
    """Wait until the device has finished all its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
"""`cpu` counts this process's own seconds on all cores, for a shared machine."""
