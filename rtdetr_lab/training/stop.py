r"""# Stop: when a run pauses

A run pauses between two steps, never inside a step. It pauses after a given number of steps or a
given time, on Ctrl-C, on SIGTERM (clusters send it before they take the machine away), or on SIGHUP
(a closed terminal). The state is then saved, and the same call resumes. A second Ctrl-C stops at
once.
"""

import re
import signal
import threading
import time
from types import FrameType
from typing import Any

from rtdetr_lab.errors import ConfigError
from rtdetr_lab.writing import ENDING

UNITS = {"s": 1, "m": 60, "h": 3600}


def seconds_of(duration: str) -> float:
    """Return the seconds of "90s", "50m" or "1.5h"."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", duration.strip())
    if not match:
        remedy = 'give "90s", "50m" or "1.5h"'
        raise ConfigError("stop_after", f"{duration!r} is not a time", remedy)
    return float(match[1]) * UNITS[match[2]]


class Stop:
    """`stop(steps)` returns True if a run has to pause; `steps` are those since it was started."""

    def __init__(self, after: int | str | None) -> None:
        self.steps = after if isinstance(after, int) else None
        self.deadline = time.monotonic() + seconds_of(after) if isinstance(after, str) else None
        self.signal: str | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            for number in ENDING:
                # Respect nohup; but a shell ignores SIGINT of every background job.
                ignored = signal.getsignal(number) is signal.SIG_IGN
                if number == signal.SIGINT or not ignored:
                    self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _note(self, number: int, _: FrameType | None) -> None:
        self.signal = signal.Signals(number).name
        signal.signal(number, self._previous[number])

    def __call__(self, steps: int) -> bool:
        late = self.deadline is not None and time.monotonic() >= self.deadline
        enough = self.steps is not None and steps >= self.steps
        return bool(self.signal) or late or enough
