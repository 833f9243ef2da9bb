"""# Timing: interleaved rounds, medians, spread"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Subject = Callable[[], object]
"""Does the work once. What it leaves running on the device is waited for."""


@dataclass(frozen=True)
class Times:
    """Seconds of every round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Half of the rounds took longer."""
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
    """Every subject once per round; the order rotates, so that nobody is always after the same."""
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


def wait() -> None:
    """Until the device has done everything asked of it."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
"""`cpu` counts this process's own seconds on all cores: for a machine that is shared."""
