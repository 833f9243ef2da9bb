"""A campaign: many cases, each judged alone, counted, and found again by number.

`python tests/programs/campaign/run.py NAME COUNT` runs one in a process of its own, so that its
memory can be measured and a hang ends with the process.
"""

import random
import resource
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from rtdetr_lab.errors import LabError

SECONDS = 30.0
"""Processor time after which a case counts as hung. The slowest takes a fraction of a second."""

MEGABYTES = 500
"""How far one case may raise the process's peak."""

Case = Callable[[random.Random], str]
"""Makes and judges one case. Returns how it went ("refused", "read" …), raises `Wrong`."""


class Wrong(Exception):
    """A silent wrong answer, or an answer nobody promised."""


@dataclass
class Tally:
    """What a campaign found."""

    name: str
    seed: int
    count: int = 0
    outcomes: Counter = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    peak_mb: float = 0.0
    seconds: float = 0.0

    def to_dict(self) -> dict:
        return {**vars(self), "outcomes": dict(sorted(self.outcomes.items()))}


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(name: str, case: Case, count: int, seed: int) -> Tally:
    """Judge `count` cases; case i depends on (seed, i) alone."""
    tally, started = Tally(name, seed), time.monotonic()
    case(random.Random(f"{seed} warm-up"))  # imports and caches are nobody's fault
    before = peak_mb()
    for index in range(count):
        begun = time.process_time()
        try:
            outcome = case(random.Random(f"{seed} {index}"))
        except Wrong as error:
            outcome = "WRONG"
            tally.wrong.append(f"case {index}: {error}")
        except BaseException as error:
            outcome = "WRONG"
            tally.wrong.append(f"case {index}: {type(error).__name__}: {str(error)[:300]}")
        took = time.process_time() - begun
        if took > SECONDS:
            tally.wrong.append(f"case {index}: took {took:.1f} s of processor time")
        if (grown := peak_mb() - before) > MEGABYTES:
            tally.wrong.append(f"case {index}: the peak of memory rose by {grown:.0f} MB")
        before = max(before, peak_mb())
        tally.slowest_s = max(tally.slowest_s, round(took, 3))
        tally.outcomes[outcome] += 1
        tally.count += 1
    tally.peak_mb, tally.seconds = round(peak_mb()), round(time.monotonic() - started, 1)
    return tally


def refusal(error: LabError, must_name: str) -> str:
    """ "refused", if the message names the file and has its three parts."""
    if must_name not in str(error):
        raise Wrong(f"{type(error).__name__} does not name {must_name}: {error}")
    if not (error.where and error.what and error.remedy):
        raise Wrong(f"{type(error).__name__} lacks a part: {error}")
    return "refused"
